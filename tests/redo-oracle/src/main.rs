//! `redo-oracle`: has a stock Postgres run a suite and proves redo against what it did.

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use redo_oracle::{Coverage, Suite};

/// Proves redo in Rust against Postgres itself, page by page.
///
/// A stock Postgres 15 runs a suite with wal_consistency_checking = all: each record carries the pages that it changed, as they
/// are afterwards. Its WAL is replayed here, by wal-format alone. Each page must equal the image in the record under the masks
/// that Postgres uses, and at the end all pages, SLRUs, relation maps, two-phase files, databases, tablespaces, replication
/// origins and counters must equal those of the stopped server.
///
/// The server is this machine's Postgres 15; without one, it is installed. Core, isolation and contrib are 15.18's tests, and other
/// minors fail some of them: a first run downloads them (33 MB), and that server where another is installed (18 MB). Both are kept
/// in the temporary folder.
#[derive(Parser)]
#[command(
    name = "redo-oracle",
    after_help = "Examples:\n  \
        redo-oracle --suite provoked            every kind of record that can be made, in a minute or two\n  \
        redo-oracle --suite core --json         Postgres' regression tests; some 10 GiB of WAL, read as it is made\n  \
        redo-oracle --suite all --write-coverage docs/redo-coverage.md\n\n\
        Exit status: 0 if nothing differs; 1 if something does, or the run failed."
)]
struct Arguments {
    /// What the server does.
    #[arg(long, value_enum, default_value_t = Choice::Provoked)]
    suite: Choice,

    /// Print the numbers as the last line, as JSON, instead of in words.
    #[arg(long)]
    json: bool,

    /// Write the table of all kinds of records to this file, in Markdown.
    #[arg(long, value_name = "FILE")]
    write_coverage: Option<PathBuf>,

    /// Say nothing while it runs.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// Postgres' core regression tests (217)
    Core,
    /// Its isolation tests (115)
    Isolation,
    /// The tests of its contrib extensions
    Contrib,
    /// Scripts for each kind of record, and pgbench
    Provoked,
    /// All of these
    All,
}

impl Choice {
    fn suites(self) -> Vec<Suite> {
        match self {
            Choice::Core => vec![Suite::Core],
            Choice::Isolation => vec![Suite::Isolation],
            Choice::Contrib => vec![Suite::Contrib],
            Choice::Provoked => vec![Suite::Provoked],
            Choice::All => Suite::ALL.to_vec(),
        }
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let progress = |line: &str| {
        if !arguments.quiet {
            eprintln!("{line}");
        }
    };
    let mut all = Coverage::default();
    let suites = arguments.suite.suites();
    for suite in &suites {
        let started = Instant::now();
        let coverage = suite.run(&progress).with_context(|| format!("suite {}", suite.name()))?;
        let summary = serde_json::to_string(&coverage.summary())?;
        progress(&format!("{}: {summary} in {} s", suite.name(), started.elapsed().as_secs()));
        all.add(&coverage);
    }
    println!("{}", all.table());
    for words in &all.told {
        println!("{words}");
    }
    if let Some(path) = &arguments.write_coverage {
        let names: Vec<&str> = suites.iter().map(|suite| suite.name()).collect();
        fs::write(path, redo_oracle::coverage::document(&all, &names))
            .with_context(|| path.display().to_string())?;
    }
    let summary = all.summary();
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{summary}");
    }
    Ok(if summary.mismatches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
