//! How much WAL a second do three safekeepers on one disk take from one proposer, and how long does a small commit
//! take? Prints one JSON object as its last line.
//!
//! `cargo bench -p safekeeper --bench append`

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::time::Instant;

use anyhow::Result;
use harness::proposer::Proposer;
use harness::{Cluster, bounds, timeline};

const COMMITS: usize = 500;
const COMMIT_BYTES: usize = 400;
const BULK_BYTES: usize = 256 << 20;
const BULK_RECORD_BYTES: usize = 8000;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::start(bounds()).await?;
        let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
        let mut micros = Vec::with_capacity(COMMITS);
        for _ in 0..COMMITS {
            let record = proposer.record(&[7; COMMIT_BYTES]);
            let begun = Instant::now();
            proposer.replicate(record).await?;
            micros.push(begun.elapsed().as_micros() as u64);
        }
        micros.sort_unstable();
        let wal = proposer.records(BULK_RECORD_BYTES, BULK_BYTES);
        let begun = Instant::now();
        proposer.replicate(wal).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let rate = BULK_BYTES as f64 / 1e6 / seconds;
        let (p50, p99) = (micros[COMMITS / 2], micros[COMMITS * 99 / 100]);
        println!(
            "{{\"commit_p50_us\":{p50},\"commit_p99_us\":{p99},\"append_mb_s_each_of_three\":{rate:.0}}}"
        );
        cluster.stop_all().await;
        Ok(())
    })
}
