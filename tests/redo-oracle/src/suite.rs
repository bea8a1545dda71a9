//! What the oracle can have a server do.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use postgres_suites::{Postgres, Server, Suites};
use wal_format::Lsn;

use crate::{cluster::Cluster, coverage::Coverage, provoked, replay::Options, stretch};

/// How often a run says how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// A suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Postgres' core regression tests.
    Core,
    /// Its isolation tests.
    Isolation,
    /// The tests of its contrib extensions.
    Contrib,
    /// Every kind of record that can be made, pgbench among it.
    Provoked,
}

impl Suite {
    /// All of them.
    pub const ALL: [Suite; 4] = [Suite::Core, Suite::Isolation, Suite::Contrib, Suite::Provoked];

    /// The suite's name.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Core => "core",
            Suite::Isolation => "isolation",
            Suite::Contrib => "contrib",
            Suite::Provoked => "provoked",
        }
    }

    /// Runs the suite, replays its WAL and compares. What happens is told to `progress`, a line at a time.
    ///
    /// # Errors
    /// Where a server or a suite could not run, or a record was refused. A test of a suite that fails is told, and nothing else:
    /// its WAL is as good as any.
    pub fn run(self, progress: &(dyn Fn(&str) + Sync)) -> Result<Coverage> {
        // Each suite has images packed in another way.
        match self {
            Suite::Core => regression(self, postgres_suites::Suite::Core, "lz4", progress),
            Suite::Isolation => {
                regression(self, postgres_suites::Suite::Isolation, "pglz", progress)
            }
            Suite::Contrib => regression(self, postgres_suites::Suite::Contrib, "zstd", progress),
            Suite::Provoked => provoked::replay(&provoked::record(progress)?, Options::default()),
        }
    }
}

/// The replay keeps up with the server within what `wal_keep_size` keeps.
fn settings(suite: postgres_suites::Suite, compression: &str) -> String {
    format!(
        "fsync = off\nwal_consistency_checking = all\nwal_level = logical\n\
         track_commit_timestamp = on\nwal_keep_size = 4GB\nmax_wal_size = 1GB\n\
         wal_compression = {compression}\n{}",
        suite.settings()
    )
}

fn regression(
    suite: Suite,
    tests: postgres_suites::Suite,
    compression: &str,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Coverage> {
    let name = suite.name();
    progress(&format!("{name}: getting Postgres' tests"));
    let suites = Suites::prepare()?;
    let postgres = Postgres::of_the_suites()?;
    let mut cluster = Cluster::create_of(postgres.clone(), &[], &settings(tests, compression))?;
    cluster.start()?;
    cluster.stop()?;
    let output = cluster.folder().join("output");
    fs::create_dir(&output).with_context(|| output.display().to_string())?;
    let server = Server {
        postgres,
        host: cluster.folder().display().to_string(),
        port: 5432,
        user: "postgres".to_owned(),
        owner: cluster.owner(),
    };
    let (started, mut told) = (Instant::now(), Instant::now());
    let from = cluster.control_file()?.checkpoint;
    let follow = move |replay: &crate::replay::Replay| {
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            progress(&describe(name, replay.records(), from, replay.position(), started));
        }
    };
    stretch::follow(&mut cluster, follow, |_| {
        let report =
            suites.run(tests, &server, &output, |line| progress(&format!("{name}: {line}")))?;
        let (passed, all) = (report.passed.len(), report.tests());
        progress(&format!("{name}: {passed} of {all} tests passed"));
        for failed in &report.failed {
            progress(&format!("{name}: the test {failed} failed"));
        }
        for (skipped, reason) in &report.skipped {
            progress(&format!("{name}: {skipped} was not run: {reason}"));
        }
        Ok(())
    })
}

fn describe(name: &str, records: u64, from: Lsn, to: Lsn, started: Instant) -> String {
    let (megabytes, seconds) = (to.since(from) >> 20, started.elapsed().as_secs());
    format!("{name}: replayed {records} records, {megabytes} MB, in {seconds} s")
}
