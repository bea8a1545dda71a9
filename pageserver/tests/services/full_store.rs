//! The disk that the object store's folder is on is full.

use std::{fs::File, io::Write, time::Duration};

use anyhow::{Result, ensure};
use redo_oracle::cluster::Cluster;
use reqwest::Method;
use serde_json::Value;

use crate::{
    ingest::compare_pages,
    page_client::at,
    tmpfs::Tmpfs,
    world::{PG_CLASS, World, any_timeline, wal_end},
};

const STORE_BYTES: u64 = 192 << 20;
/// Far less than the WAL that arrives.
const OPEN_LAYERS_BYTES_MAX: usize = 1 << 20;
/// What is applied at once, and the room for what it will be as an object.
const APPLIED_BYTES_MAX: u64 = 96 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_room_makes_ingest_wait_within_its_memory_and_no_page_is_wrong()
-> Result<()> {
    let mut world = World::new().await?;
    let store = Tmpfs::over(world.store(), STORE_BYTES)?;
    world.limits.open_layers_bytes_max = OPEN_LAYERS_BYTES_MAX;
    world.restart().await?;
    let mut cluster = Cluster::create("wal_keep_size = 1GB\nautovacuum = off\n")?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    let start = wal_end(&cluster.data())?;
    let mut client = world.connect(timeline, None).await?;
    let before = client.range(at(start), PG_CLASS, 0, 4).await??;
    cluster.start()?;
    let rows = "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 60000) n";
    cluster.sql("postgres", rows)?;
    cluster.stop()?;

    let filler = store.path().join("filler");
    let mut file = File::create(&filler)?;
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let end = world.serve_wal(timeline, &cluster)?;
    let bytes = |status: &serde_json::Value| status["open_layers"]["bytes"].as_u64();
    let is_full = |status: &serde_json::Value| bytes(status) >= Some(OPEN_LAYERS_BYTES_MAX as u64);
    world.eventually("/v1/status", is_full).await?;
    // Nothing can be written, however long it takes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = world.ok(Method::GET, "/v1/status", None).await?;
    ensure!(is_full(&status), "something was written: {status}");
    let allowed = OPEN_LAYERS_BYTES_MAX as u64 + APPLIED_BYTES_MAX;
    ensure!(bytes(&status) < Some(allowed), "more than its memory was taken: {status}");
    ensure!(client.range(at(start), PG_CLASS, 0, 4).await?? == before, "another page was read");

    std::fs::remove_file(&filler)?;
    let end = end.to_string();
    let has_ended = |status: &Value| any_timeline(status, |one| one["last_record_lsn"] == end);
    world.eventually("/v1/status", has_ended).await?;
    compare_pages(&mut client, &cluster, &[]).await?;
    world.restart().await?;
    // The same from layers, after memory is gone.
    compare_pages(&mut world.connect(timeline, None).await?, &cluster, &[]).await?;
    world.stop().await;
    Ok(())
}
