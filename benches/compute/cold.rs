//! What a compute that has nothing takes: to the first row, and to scan a table.

use std::{fs, time::Instant};

use serde_json::json;

use crate::{
    Settings,
    harness::{Cluster, Database},
    median,
};

/// Bytes in a mebibyte are one thing, megabytes a second another: these are 10^6.
const MEGABYTE: f64 = 1e6;

/// From the request to the first row of a query, on a branch whose compute does not run; the
/// median.
pub async fn starts(cluster: &Cluster, settings: Settings) -> anyhow::Result<f64> {
    let (_, database) = cluster.tenant("cold").await?;
    database.run("CREATE TABLE t AS SELECT generate_series(1, 1000) n").await?;
    drop(database);
    cluster.api.stop("cold", "main").await?;
    let mut times = Vec::new();
    for _ in 0..settings.cold_starts {
        let began = Instant::now();
        let (compute, database) = cluster.connect("cold", "main").await?;
        let _first: i32 = database.one("SELECT n FROM t LIMIT 1").await?;
        let time = began.elapsed().as_secs_f64() * 1e3;
        println!("{}", json!({ "what": "cold start", "ms": time, "stages_ms": compute.stages_ms }));
        times.push(time);
        drop(database);
        cluster.api.stop("cold", "main").await?;
    }
    Ok(median(&times))
}

/// A sequential scan of a table by a compute that has none of it, with the kernel's caches dropped;
/// megabytes a second, the median of three.
pub async fn scan(cluster: &Cluster, settings: Settings) -> anyhow::Result<f64> {
    let (_, database) = cluster.tenant("scan").await?;
    fill(&database, settings.scan_bytes).await?;
    let bytes: i64 = database.one("SELECT pg_relation_size('big')").await?;
    drop(database);
    cluster.api.stop("scan", "main").await?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let (_, database) = cluster.connect("scan", "main").await?;
        // The layers of the object store may be in the page cache: this is loopback, and the road
        // is what is measured; the compute's own pages may not.
        fs::write("/proc/sys/vm/drop_caches", "1")?;
        database.run("SET max_parallel_workers_per_gather = 0").await?;
        let began = Instant::now();
        let _rows: i64 = database.one("SELECT count(*) FROM big").await?;
        let rate = bytes as f64 / MEGABYTE / began.elapsed().as_secs_f64();
        println!("{}", json!({ "what": "cold scan", "bytes": bytes, "mb_s": rate }));
        rates.push(rate);
        drop(database);
        cluster.api.stop("scan", "main").await?;
    }
    Ok(median(&rates))
}

/// Rows as an application has them: some text, some numbers, hint bits set.
async fn fill(database: &Database, bytes: u64) -> anyhow::Result<()> {
    database.run("CREATE TABLE big (n bigint, m bigint, t text)").await?;
    let row_bytes = 160;
    let rows = bytes / row_bytes;
    let step = 500_000;
    for first in (0..rows).step_by(step as usize) {
        let last = (first + step).min(rows) - 1;
        database
            .run(&format!(
                "INSERT INTO big SELECT i, i * 7919 % 1000003, repeat(md5(i::text), 3) || i
                 FROM generate_series({first}::bigint, {last}) i"
            ))
            .await?;
    }
    database.run("VACUUM (FREEZE) big").await
}
