//! Timelines that nobody uses leave memory, their receivers with them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::TenantTimeline;
use redo_oracle::cluster::Cluster;
use reqwest::Method;
use serde_json::Value;

use crate::{
    page_client::at,
    world::{PG_CLASS, World, any_timeline},
};

const UNLOAD_AFTER: Duration = Duration::from_millis(300);

fn is_loaded(status: &Value, timeline: TenantTimeline) -> bool {
    let id = timeline.timeline.to_string();
    any_timeline(status, |one| one["timeline_id"] == id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_that_no_compute_reads_any_more_is_stored_told_of_and_unloaded() -> Result<()> {
    let mut world = World::new().await?;
    world.limits.unload_after = UNLOAD_AFTER;
    world.restart().await?;
    let mut cluster = Cluster::create("wal_keep_size = 1GB\n")?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) n")?;
    cluster.stop()?;
    let end = world.serve_wal(timeline, &cluster)?;

    let mut client = world.connect(timeline, Some(1)).await?;
    let pages = client.range(at(end), PG_CLASS, 0, 4).await??;
    tokio::time::sleep(UNLOAD_AFTER * 5).await;
    let status = world.ok(Method::GET, "/v1/status", None).await?;
    ensure!(is_loaded(&status, timeline), "it was unloaded while a compute had a connection");
    drop(client);
    world.eventually("/v1/status", |status| status["timelines"] == serde_json::json!([])).await?;
    assert_eq!(world.wal.consumed(timeline), Some(end), "a safekeeper keeps what is stored");

    let mut client = world.connect(timeline, Some(1)).await?;
    assert_eq!(client.welcome.last_record_lsn, end, "nothing has to be received again");
    let again = client.range(at(end), PG_CLASS, 0, 4).await??;
    ensure!(again == pages, "another page was read afterwards");
    let metrics =
        reqwest::get(format!("http://{}/metrics", world.http_addr())).await?.text().await?;
    let unloads = metrics.lines().find_map(|line| {
        line.strip_prefix("offshoot_pageserver_unloaded_timelines_total ")?.parse::<u64>().ok()
    });
    ensure!(unloads.context("it is counted")? >= 2, "{unloads:?} were counted");
    world.stop().await;
    Ok(())
}
