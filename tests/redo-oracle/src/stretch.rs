//! A stretch of WAL between two clean stops of a server, and how it is replayed: while the server makes it, so that the WAL need
//! not be kept, or afterwards, as often as one likes.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use wal_format::{ControlFile, Lsn};

use crate::{
    cluster::Cluster,
    coverage::Coverage,
    mutation::Mutation,
    replay::{Options, Replay},
    state::State,
};

/// How often the server is asked how far it is.
const ASKED_EVERY: Duration = Duration::from_millis(250);
/// More than a shutdown checkpoint's record has, with the header of a page that it crosses into.
const CHECKPOINT_BYTES_MAX: u64 = 256;

/// What a server, stopped cleanly, had before and after a stretch of WAL that is still in its folder.
pub struct Stretch {
    before: State,
    control_before: ControlFile,
    after: State,
    control_after: ControlFile,
    wal: PathBuf,
}

impl Stretch {
    /// Has the stopped server start, do this work, and stop. Whatever stops and starts it in between leaves it running.
    pub fn record(
        cluster: &mut Cluster,
        work: impl FnOnce(&mut Cluster) -> Result<()>,
    ) -> Result<Stretch> {
        let control_before = cluster.control_file()?;
        let before = State::load(&cluster.data())?;
        cluster.start()?;
        work(cluster)?;
        cluster.stop()?;
        Ok(Stretch {
            before,
            control_before,
            after: State::load(&cluster.data())?,
            control_after: cluster.control_file()?,
            wal: cluster.data().join("pg_wal"),
        })
    }

    /// Replays all of it and compares.
    ///
    /// # Errors
    /// Where a record is refused.
    pub fn replay(&self, options: Options) -> Result<Coverage> {
        let mut replay = Replay::new(self.before.clone(), &self.control_before, options);
        self.advance(&mut replay)?;
        Ok(replay.finish(&self.after, &self.control_after))
    }

    /// How the oracle notices redo that is wrong in this way; `None` where it does not.
    ///
    /// # Errors
    /// Where the stretch has no record for that redo.
    pub fn notices(&self, mutation: Mutation) -> Result<Option<String>> {
        let options = Options { mutation: Some(mutation), ..Options::default() };
        let mut replay = Replay::new(self.before.clone(), &self.control_before, options);
        let advanced = self.advance(&mut replay);
        ensure!(
            replay.mutations() > 0,
            "no redo of resource manager {} is in this WAL",
            mutation.rmid
        );
        match advanced {
            Err(refused) => Ok(Some(format!("{refused:#}"))),
            Ok(()) => Ok(replay.finish(&self.after, &self.control_after).told.first().cloned()),
        }
    }

    fn advance(&self, replay: &mut Replay) -> Result<()> {
        let last = self.control_after.checkpoint;
        replay.advance(&self.wal, last + CHECKPOINT_BYTES_MAX, Some(last))
    }
}

/// Has the stopped server start, do this work, and stop, and replays the WAL as it comes. The server is not restarted in between.
pub fn follow(
    cluster: &mut Cluster,
    mut progress: impl FnMut(&Replay) + Send,
    work: impl FnOnce(&Cluster) -> Result<()>,
) -> Result<Coverage> {
    let control = cluster.control_file()?;
    let mut replay = Replay::new(State::load(&cluster.data())?, &control, Options::default());
    cluster.start()?;
    let wal = cluster.data().join("pg_wal");
    let is_done = AtomicBool::new(false);
    let server = &*cluster;
    thread::scope(|scope| -> Result<()> {
        let follower = scope.spawn(|| -> Result<()> {
            while !is_done.load(Ordering::Acquire) {
                // A server with no connection to spare answers the next time.
                if let Ok(flushed) = flushed(server) {
                    replay.advance(&wal, flushed, None)?;
                    progress(&replay);
                }
                thread::sleep(ASKED_EVERY);
            }
            Ok(())
        });
        let worked = work(server);
        is_done.store(true, Ordering::Release);
        match follower.join() {
            Ok(followed) => followed.and(worked),
            Err(_) => bail!("the replay panicked"),
        }
    })?;
    cluster.stop()?;
    finish(replay, cluster, &wal)
}

fn finish(mut replay: Replay, cluster: &Cluster, wal: &Path) -> Result<Coverage> {
    let control = cluster.control_file()?;
    let last = control.checkpoint;
    replay.advance(wal, last + CHECKPOINT_BYTES_MAX, Some(last))?;
    Ok(replay.finish(&State::load(&cluster.data())?, &control))
}

/// How far the server's WAL is on disk.
fn flushed(cluster: &Cluster) -> Result<Lsn> {
    let said = cluster.sql("postgres", "SELECT pg_current_wal_flush_lsn()")?;
    said.trim().parse().context("an LSN")
}
