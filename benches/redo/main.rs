//! How fast is redo, of one record, of one page, and of a whole WAL beside stock Postgres' crash recovery?
//! `cargo bench --bench redo`, as root. The last line is one JSON object.
//!
//! The WAL is pgbench's, made once by a stock Postgres with the settings of our computes and kept in a folder below `/tmp` for the
//! next run. Recovery and our replay take turns; both start from the same files, in the page cache, and have the same WAL. Ours is one
//! thread that decodes the WAL and applies record after record; WAL and pages are loaded to its memory before, and at its end every page
//! must be the server's. The server loads both as it goes, so there are two ratios: `ratio` is of redo alone, `ratio_with_load` counts the
//! loading with it. Both sides have their memory before they begin: the server its shared buffers, ours from the round before.
//! Every round is printed; ratios are medians over the rounds. `--quick` has less of everything. `--only-ours` replays the WAL without
//! all the rest: for a profiler.

#[path = "../figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

#[path = "../stock_recovery/mod.rs"]
#[allow(dead_code, reason = "the bench of ingest uses other parts of it")]
mod stock_recovery;

mod compare;
mod fetch;
mod files;
mod in_memory;
mod in_order;
mod kinds;
mod pages;
mod replay;

use figures::{median, round};
use files::Files;
use in_memory::WalInMemory;
use pages::Pages;
use serde_json::json;
use stock_recovery::{
    Took, recovery,
    wal::{self, Recorded, Workload},
};

/// How much is made, and how often everything runs.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Rounds of stock and ours in turn.
    pub rounds: usize,
    /// WAL that pgbench makes.
    pub wal_bytes: u64,
    /// pgbench's scale: 16 MB each.
    pub scale: u32,
    /// pgbench's clients.
    pub clients: u32,
    /// Records of a kind that are measured one by one.
    pub records_of_kind: usize,
}

const FULL: Settings =
    Settings { rounds: 5, wal_bytes: 1 << 30, scale: 50, clients: 8, records_of_kind: 2000 };

const QUICK: Settings =
    Settings { rounds: 2, wal_bytes: 64 << 20, scale: 5, clients: 8, records_of_kind: 500 };

fn main() -> anyhow::Result<()> {
    let asked = |name: &str| std::env::args().any(|argument| argument == name);
    let settings = figures::chosen(FULL, QUICK);
    let Settings { wal_bytes, scale, clients, .. } = settings;
    let workload = Workload::Transactions { wal_bytes, scale, clients };
    let recorded = Recorded::load_or_make(workload)?;
    println!("{recorded}");

    let mut wal = WalInMemory::load(&recorded)?;
    let mut pages = Pages::new(Files::new(&recorded.before()))?;
    if asked("--only-ours") {
        return only_ours(settings, &recorded, &mut wal, &mut pages);
    }
    let samples = kinds::Samples::take(&recorded, settings, &wal, &mut pages)?;
    samples.measure_kinds();
    let chain100_us = samples.measure_chain()?;
    println!("{}", json!({ "what": "page from 100 heap inserts", "us": round(chain100_us) }));

    let first_touched = replay::first_touched(&recorded, &wal)?;
    let mut rounds = Vec::new();
    for number in 0..settings.rounds {
        let (stock, ours);
        if number % 2 == 0 {
            stock = recovery::run(&recorded)?;
            ours = replay::run(&recorded, &mut wal, &mut pages, &first_touched)?;
        } else {
            ours = replay::run(&recorded, &mut wal, &mut pages, &first_touched)?;
            stock = recovery::run(&recorded)?;
        }
        let redo = ours.redo;
        let round_figures = Figures {
            redo_mb_s: recorded.bytes() as f64 / 1e6 / redo.seconds,
            stock_recovery_mb_s: recorded.bytes() as f64 / 1e6 / stock.seconds,
            ratio: stock.seconds / redo.seconds,
            ratio_with_load: stock.seconds / (redo.seconds + ours.load.seconds),
        };
        println!(
            "{}",
            json!({
                "what": "whole WAL",
                "redo_mb_s": round(round_figures.redo_mb_s),
                "stock_recovery_mb_s": round(round_figures.stock_recovery_mb_s),
                "ratio": round(round_figures.ratio),
                "ratio_with_load": round(round_figures.ratio_with_load),
                "redo_cpu_s": round(redo.cpu_seconds),
                "load_s": round(ours.load.seconds),
                "load_cpu_s": round(ours.load.cpu_seconds),
                "stock_recovery_cpu_s": round(stock.cpu_seconds),
                "cpu_ratio": round(stock.cpu_seconds / redo.cpu_seconds),
                "cpu_ratio_with_load":
                    round(stock.cpu_seconds / (redo.cpu_seconds + ours.load.cpu_seconds)),
                "pages_equal_to_the_servers": ours.pages_equal,
            })
        );
        rounds.push(round_figures);
    }
    let middle =
        |of: fn(&Figures) -> f64| round(median(&rounds.iter().map(of).collect::<Vec<_>>()));
    let result = json!({
        "redo_mb_s": middle(|round| round.redo_mb_s),
        "stock_recovery_mb_s": middle(|round| round.stock_recovery_mb_s),
        "ratio": middle(|round| round.ratio),
        "ratio_with_load": middle(|round| round.ratio_with_load),
        "chain100_us": round(chain100_us),
    });
    println!("{result}");
    Ok(())
}

/// Replays as often as there are rounds.
fn only_ours(
    settings: Settings,
    recorded: &Recorded,
    wal: &mut WalInMemory,
    pages: &mut Pages,
) -> anyhow::Result<()> {
    let first_touched = replay::first_touched(recorded, wal)?;
    for _ in 0..settings.rounds {
        let ours = replay::run(recorded, wal, pages, &first_touched)?;
        println!(
            "{}",
            json!({
                "redo_s": round(ours.redo.seconds),
                "redo_cpu_s": round(ours.redo.cpu_seconds),
                "load_cpu_s": round(ours.load.cpu_seconds),
                "pages_equal_to_the_servers": ours.pages_equal,
            })
        );
    }
    Ok(())
}

/// What one round says.
struct Figures {
    redo_mb_s: f64,
    stock_recovery_mb_s: f64,
    /// Of WAL and pages in memory: the server's recovery, which loads them as it goes, took so many times as long as our redo.
    ratio: f64,
    /// Likewise as our redo and the loading before it.
    ratio_with_load: f64,
}
