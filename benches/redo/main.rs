//! How fast is redo, of one record, of one page, and of a whole WAL beside stock Postgres' crash recovery?
//! `cargo bench --bench redo`, as root. The last line is one JSON object.
//!
//! The WAL is pgbench's, made once by a stock Postgres with the settings of our computes and kept in a folder below `/tmp` for the
//! next run. Recovery and our replay take turns; both start from the same files, in the page cache, and read the same WAL. Ours is one
//! thread that applies record after record; at its end every page must be the server's. Both sides have their memory before they begin:
//! the server its shared buffers, ours from the round before.
//! Every round is printed; ratios are medians over the rounds. `--quick` has less of everything.

mod compare;
mod files;
mod in_order;
mod kinds;
mod pages;
mod recovery;
mod replay;
mod server;
mod wal;

use files::Files;
use pages::Pages;
use serde_json::json;

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
    let quick = std::env::args().any(|argument| argument == "--quick");
    let settings = if quick { QUICK } else { FULL };
    println!("{settings:#?}");
    let recorded = wal::Recorded::load_or_make(settings)?;
    println!("{recorded}");

    let mut pages = Pages::new(Files::new(&recorded.before()))?;
    let samples = kinds::Samples::take(&recorded, settings, &mut pages)?;
    samples.measure_kinds();
    let chain100_us = samples.measure_chain()?;
    println!("{}", json!({ "what": "page from 100 heap inserts", "us": round(chain100_us) }));

    let (mut stock_mb_s, mut our_mb_s, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..settings.rounds {
        let (stock, (ours, pages_equal));
        if number % 2 == 0 {
            stock = recovery::run(&recorded)?;
            (ours, pages_equal) = replay::run(&recorded, &mut pages)?;
        } else {
            (ours, pages_equal) = replay::run(&recorded, &mut pages)?;
            stock = recovery::run(&recorded)?;
        }
        let mb_s = |took: Took| recorded.bytes() as f64 / 1e6 / took.seconds;
        println!(
            "{}",
            json!({
                "what": "whole WAL",
                "redo_mb_s": round(mb_s(ours)),
                "stock_recovery_mb_s": round(mb_s(stock)),
                "ratio": round(stock.seconds / ours.seconds),
                "redo_cpu_s": round(ours.cpu_seconds),
                "stock_recovery_cpu_s": round(stock.cpu_seconds),
                "cpu_ratio": round(stock.cpu_seconds / ours.cpu_seconds),
                "pages_equal_to_the_servers": pages_equal,
            })
        );
        stock_mb_s.push(mb_s(stock));
        our_mb_s.push(mb_s(ours));
        ratios.push(stock.seconds / ours.seconds);
    }
    let result = json!({
        "redo_mb_s": round(median(&our_mb_s)),
        "stock_recovery_mb_s": round(median(&stock_mb_s)),
        "ratio": round(median(&ratios)),
        "chain100_us": round(chain100_us),
    });
    println!("{result}");
    Ok(())
}

/// What a whole replay took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// By the clock.
    pub seconds: f64,
    /// Of the one thread or process that replays, in user and system mode.
    pub cpu_seconds: f64,
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
