//! How fast is ingest, from a socket to durable compressed layers, beside stock Postgres' crash recovery of the same WAL?
//! `cargo bench --bench ingest`, as root. The last line is one JSON object:
//!
//! - `ingest_mb_s`, `stock_recovery_mb_s`, `ratio`: bytes of WAL a second of either, and one over the other; of a bulk load by
//!   `pgbench -i` and of TPC-B together;
//! - `cpu_s_per_100mb`: CPU time of the pageserver, user and system, for 100 MB of WAL;
//! - `bytes_written_per_wal_byte`: what the pageserver wrote to its store and to any other file, over the WAL.
//!
//! The WAL was made by a stock Postgres with the settings of our computes. The pageserver is a process of its own and gets the WAL by
//! the safekeepers' protocol over TCP, from this process, which has it in the page cache; so the two cores carry both. The clock begins
//! when the first byte is sent, and ends when the pageserver has been told to stop and is gone: then all of it is in layers and in a
//! manifest, fsynced, which the next start has to find there. Merges that fall due meanwhile are part of it. Recovery and ingest take
//! turns, from the same files; ratios are those of the same round, figures medians over the rounds. `--quick` has less of everything.

#[path = "../../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use other parts of it")]
mod harness;

#[path = "../figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

#[path = "../stock_recovery/mod.rs"]
#[allow(dead_code, reason = "the bench of redo uses other parts of it")]
mod stock_recovery;

#[path = "../redo/files.rs"]
#[allow(dead_code, reason = "the bench of redo uses all of it")]
mod files;

#[path = "../../pageserver/tests/services/page_client.rs"]
#[allow(dead_code, reason = "the page service's own tests use other parts of it")]
mod page_client;

mod engine;
mod pages;
mod wal_service;

use anyhow::Result;
use serde_json::{Value, json};

use self::{
    engine::{Engine, Ingested},
    figures::{median, round},
    stock_recovery::{
        Took, recovery,
        wal::{Recorded, Workload},
    },
};

/// How much is made, and how often everything runs.
#[derive(Clone, Copy, Debug)]
struct Settings {
    /// Rounds of stock and ours in turn.
    rounds: usize,
    /// pgbench's scale: 16 MB each; of the load, and of the tables that the transactions change.
    scale: u32,
    /// WAL of the transactions.
    wal_bytes: u64,
    /// pgbench's clients.
    clients: u32,
}

const FULL: Settings = Settings { rounds: 5, scale: 50, wal_bytes: 1 << 30, clients: 8 };
const QUICK: Settings = Settings { rounds: 2, scale: 5, wal_bytes: 64 << 20, clients: 8 };

fn main() -> Result<()> {
    let settings = figures::chosen(FULL, QUICK);
    let runtime = tokio::runtime::Runtime::new()?;
    println!("{}", runtime.block_on(measure(settings))?);
    Ok(())
}

async fn measure(settings: Settings) -> Result<Value> {
    let Settings { rounds, scale, wal_bytes, clients } = settings;
    let workloads = [
        ("bulk load", Workload::Load { scale }),
        ("TPC-B", Workload::Transactions { wal_bytes, scale, clients }),
    ];
    let mut engine = Engine::new()?;
    let mut all = Vec::new();
    for (what, workload) in workloads {
        let recorded = Recorded::load_or_make(workload)?;
        println!("{what}: {recorded}");
        let template = engine.import(&recorded).await?;
        all.push((what, recorded, template));
    }
    let mut figures = Vec::new();
    for number in 0..rounds {
        let mut sum = Round::default();
        for (what, recorded, template) in &all {
            let ingest = async |engine: &mut Engine| engine.ingest(recorded, template).await;
            let (stock, ours);
            if number % 2 == 0 {
                stock = recovery::run(recorded)?;
                ours = ingest(&mut engine).await?;
            } else {
                ours = ingest(&mut engine).await?;
                stock = recovery::run(recorded)?;
            }
            let one = Round::new(recorded.bytes(), stock, &ours);
            let mut line = one.figures().json(what);
            line["stock_recovery_cpu_s"] = json!(round(stock.cpu_seconds));
            line["flushed_bytes_per_wal_byte"] = json!(round(ours.flushed_bytes / one.wal_bytes));
            line["merged_bytes_per_wal_byte"] = json!(round(ours.merged_bytes / one.wal_bytes));
            line["pages_equal_to_the_servers"] = json!(ours.pages_equal);
            println!("{line}");
            sum.add(one);
        }
        figures.push(sum.figures());
        println!("{}", sum.figures().json("both"));
    }
    let middle = |of: fn(&Figures) -> f64| median(&figures.iter().map(of).collect::<Vec<_>>());
    let mut result = Figures {
        ingest_mb_s: middle(|round| round.ingest_mb_s),
        stock_recovery_mb_s: middle(|round| round.stock_recovery_mb_s),
        ratio: middle(|round| round.ratio),
        cpu_s_per_100mb: middle(|round| round.cpu_s_per_100mb),
        bytes_written_per_wal_byte: middle(|round| round.bytes_written_per_wal_byte),
    }
    .json("");
    result.as_object_mut().map(|result| result.remove("what"));
    Ok(result)
}

/// Sums over what one round ingested.
#[derive(Clone, Copy, Default)]
struct Round {
    wal_bytes: f64,
    stock_seconds: f64,
    seconds: f64,
    cpu_seconds: f64,
    written_bytes: f64,
}

impl Round {
    fn new(wal_bytes: u64, stock: Took, ours: &Ingested) -> Round {
        Round {
            wal_bytes: wal_bytes as f64,
            stock_seconds: stock.seconds,
            seconds: ours.took.seconds,
            cpu_seconds: ours.took.cpu_seconds,
            written_bytes: ours.written_bytes,
        }
    }

    fn add(&mut self, other: Round) {
        self.wal_bytes += other.wal_bytes;
        self.stock_seconds += other.stock_seconds;
        self.seconds += other.seconds;
        self.cpu_seconds += other.cpu_seconds;
        self.written_bytes += other.written_bytes;
    }

    fn figures(&self) -> Figures {
        let megabytes = self.wal_bytes / 1e6;
        Figures {
            ingest_mb_s: megabytes / self.seconds,
            stock_recovery_mb_s: megabytes / self.stock_seconds,
            ratio: self.stock_seconds / self.seconds,
            cpu_s_per_100mb: self.cpu_seconds / megabytes * 100.0,
            bytes_written_per_wal_byte: self.written_bytes / self.wal_bytes,
        }
    }
}

/// What is asked.
struct Figures {
    ingest_mb_s: f64,
    stock_recovery_mb_s: f64,
    ratio: f64,
    cpu_s_per_100mb: f64,
    bytes_written_per_wal_byte: f64,
}

impl Figures {
    fn json(&self, what: &str) -> Value {
        json!({
            "what": what,
            "ingest_mb_s": round(self.ingest_mb_s),
            "stock_recovery_mb_s": round(self.stock_recovery_mb_s),
            "ratio": round(self.ratio),
            "cpu_s_per_100mb": round(self.cpu_s_per_100mb),
            "bytes_written_per_wal_byte": round(self.bytes_written_per_wal_byte),
        })
    }
}
