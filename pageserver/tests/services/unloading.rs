//! Timelines that nobody uses leave memory, their receivers with them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::TenantTimeline;
use redo_oracle::cluster::Cluster;
use reqwest::Method;
use serde_json::{Value, json};
use wal_format::Lsn;

use crate::{
    page_client::at,
    world::{PG_CLASS, World, any_timeline},
};

const UNLOAD_AFTER: Duration = Duration::from_millis(300);

/// A metric's value.
async fn metric(world: &World, name: &str) -> Result<u64> {
    let text = reqwest::get(format!("http://{}/metrics", world.http_addr())).await?.text().await?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("{name} is counted"))
}

fn is_loaded(status: &Value, timeline: TenantTimeline) -> bool {
    let id = timeline.timeline.to_string();
    any_timeline(status, |one| one["timeline_id"] == id)
}

const FEW_ROWS: &str = "CREATE TABLE t AS SELECT generate_series(1, 1000) n";

/// A timeline of the tenant `acme`, and the WAL of these statements, which a safekeeper has: up to
/// where. The server that wrote it is stopped.
async fn write(world: &mut World, sql: &[&str]) -> Result<(Cluster, TenantTimeline, Lsn)> {
    let mut cluster = Cluster::create("wal_keep_size = 1GB\n")?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    cluster.start()?;
    for statement in sql {
        cluster.sql("postgres", statement)?;
    }
    cluster.stop()?;
    let end = world.serve_wal(timeline, &cluster)?;
    Ok((cluster, timeline, end))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_that_no_compute_reads_any_more_is_stored_told_of_and_unloaded() -> Result<()> {
    let mut world = World::new().await?;
    world.limits.unload_after = UNLOAD_AFTER;
    world.restart().await?;
    let (_cluster, timeline, end) = write(&mut world, &[FEW_ROWS]).await?;

    let mut client = world.connect(timeline, Some(1)).await?;
    let pages = client.range(at(end), PG_CLASS, 0, 4).await??;
    tokio::time::sleep(UNLOAD_AFTER * 5).await;
    let status = world.ok(Method::GET, "/v1/status", None).await?;
    ensure!(is_loaded(&status, timeline), "it was unloaded while a compute had a connection");
    drop(client);
    world.eventually("/v1/status", |status| status["timelines"] == json!([])).await?;
    assert_eq!(world.wal.consumed(timeline), Some(end), "a safekeeper keeps what is stored");

    let mut client = world.connect(timeline, Some(1)).await?;
    assert_eq!(client.welcome.last_record_lsn, end, "nothing has to be received again");
    let again = client.range(at(end), PG_CLASS, 0, 4).await??;
    ensure!(again == pages, "another page was read afterwards");
    let unloads = metric(&world, "offshoot_pageserver_unloaded_timelines_total").await?;
    ensure!(unloads >= 2, "{unloads} were counted");
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_says_goodbye_keeps_no_history() -> Result<()> {
    let mut world = World::new().await?;
    let (_cluster, timeline, end) = write(&mut world, &[FEW_ROWS]).await?;
    let mut client = world.connect(timeline, Some(1)).await?;
    client.range(at(end), PG_CLASS, 0, 1).await??;
    drop(client);
    // What was ingested is stored.
    world.restart().await?;
    let client = world.connect(timeline, Some(1)).await?;
    let mut old = world.connect(timeline, Some(1)).await?;
    old.range(at(old.welcome.origin.point.lsn), PG_CLASS, 0, 1).await??;

    // Each change of the window is followed by a pass.
    let pass = async |world: &World| {
        let history = json!({ "history": { "bytes": 0 } });
        world.ok(Method::PATCH, "/v1/tenants/acme", Some(history)).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let branch = world.ok(Method::GET, "/v1/tenants/acme/branches/main", None).await?;
        Ok::<_, anyhow::Error>(branch["oldest_lsn"].clone())
    };
    ensure!(pass(&world).await?.is_null(), "what a reader reads was given up");
    drop(old);
    ensure!(pass(&world).await?.is_null(), "the compute has another connection");
    drop(client);
    for _ in 0..100 {
        if pass(&world).await? == json!(end) {
            world.stop().await;
            return Ok(());
        }
    }
    anyhow::bail!("history is kept for a reader that has gone")
}

#[tokio::test(flavor = "multi_thread")]
async fn history_of_a_timeline_that_no_compute_reads_any_more_is_given_up() -> Result<()> {
    let mut world = World::new().await?;
    world.limits.unload_after = UNLOAD_AFTER;
    world.limits.survey_interval = Duration::from_millis(500);
    world.restart().await?;
    let many_rows = "CREATE TABLE t AS SELECT generate_series(1, 20000) n";
    let (_cluster, timeline, end) =
        write(&mut world, &[many_rows, "DROP TABLE t"].repeat(3)).await?;
    let mut client = world.connect(timeline, Some(1)).await?;
    let pages = client.range(at(end), PG_CLASS, 0, 4).await??;
    drop(client);
    world.eventually("/v1/status", |status| status["timelines"] == json!([])).await?;
    let stored = |usage: &Value| usage["total"]["stored_bytes"].as_u64();
    let before = stored(&world.ok(Method::GET, "/v1/tenants/acme/usage", None).await?);
    let before = before.context("it is metered")?;

    let history = json!({ "history": { "bytes": 0 } });
    world.ok(Method::PATCH, "/v1/tenants/acme", Some(history)).await?;
    let is_less = |usage: &Value| stored(usage).is_some_and(|now| now * 2 < before);
    world.eventually("/v1/tenants/acme/usage", is_less).await?;
    world.eventually("/v1/status", |status| status["timelines"] == json!([])).await?;
    ensure!(metric(&world, "offshoot_pageserver_surveyed_timelines_total").await? >= 1);

    let mut client = world.connect(timeline, Some(1)).await?;
    let again = client.range(at(end), PG_CLASS, 0, 4).await??;
    ensure!(again == pages, "another page was read afterwards");
    world.stop().await;
    Ok(())
}
