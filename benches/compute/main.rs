//! Whole roads through the engine, each against stock Postgres where there is a ratio to print:
//! `cargo bench --bench compute`, as root. The last line is one JSON object.
//!
//! The machine's noise is larger than some of the differences: ratios are medians over interleaved
//! rounds, and every round is printed. `--quick` runs fewer and shorter ones.

#[path = "../../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use other parts of it")]
mod harness;

#[path = "../figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

mod cold;
mod provisioning;
mod stock;
mod throughput;

use std::{process::Command, time::Duration};

use serde_json::json;

use self::figures::{median, round};

/// How long and how often everything is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Rounds of stock and ours in turn.
    pub rounds: usize,
    /// How long pgbench runs in each.
    pub load: Duration,
    /// pgbench's scale: 16 MB each.
    pub scale: u32,
    /// pgbench's clients.
    pub clients: u32,
    /// Tenants and branches that are created.
    pub creations: usize,
    /// The table that is scanned cold.
    pub scan_bytes: u64,
    /// Starts of a compute that was not running.
    pub cold_starts: usize,
}

const FULL: Settings = Settings {
    rounds: 5,
    load: Duration::from_secs(20),
    scale: 10,
    clients: 8,
    creations: 500,
    scan_bytes: 1 << 30,
    cold_starts: 9,
};

const QUICK: Settings = Settings {
    rounds: 2,
    load: Duration::from_secs(4),
    scale: 4,
    clients: 8,
    creations: 100,
    scan_bytes: 128 << 20,
    cold_starts: 3,
};

fn main() -> anyhow::Result<()> {
    let settings = figures::chosen(FULL, QUICK);
    println!("{}", machine());
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(measure(settings))?;
    println!("{result}");
    Ok(())
}

async fn measure(settings: Settings) -> anyhow::Result<serde_json::Value> {
    let cluster = harness::Cluster::start().await?;
    let provisioning = provisioning::measure(&cluster, settings).await?;
    let cold_start_ms = cold::starts(&cluster, settings).await?;
    let cold_scan_mb_s = cold::scan(&cluster, settings).await?;
    let throughput = throughput::measure(&cluster, settings).await?;
    Ok(json!({
        "tpcb_over_stock": round(throughput.tpcb_over_stock),
        "select_over_stock": round(throughput.select_over_stock),
        "cold_scan_mb_s": round(cold_scan_mb_s),
        "cold_start_ms": round(cold_start_ms),
        "create_p99_ms": round(provisioning.create_p99_ms),
        "branch_p99_ms": round(provisioning.branch_p99_ms),
    }))
}

/// What this ran on.
fn machine() -> String {
    let kernel = Command::new("uname").arg("-sr").output();
    let kernel = kernel.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {processors} processors", kernel.unwrap_or_default())
}
