//! What merging costs and what it leaves: `cargo bench --bench compaction`, as root. The last line is one JSON object:
//!
//! - `stored_over_logical`: bytes of all layers, the template's with them, over the bytes of all relations, when all is merged and no
//!   history but the newest state is kept;
//! - `write_amplification`: bytes of layers written, by ingest and by merges, over the WAL, until then;
//! - `read_layers_max`: the most runs of stored layers that there were at any time, so the most that a read may have to look into.
//!
//! pgbench fills and then changes a tenant's database through the whole road, while the runs are counted. Then the compute is stopped,
//! and all is merged; a line says how it is with all history. The history is given up, and all is merged again. Before that the pageserver
//! is started again: what a compute may still read is kept for ten minutes after it was last heard of. `--quick` does less.

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use other parts of it")]
mod harness;

#[path = "figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

#[path = "../pageserver/tests/services/page_client.rs"]
#[allow(dead_code, reason = "the page service's own tests use other parts of it")]
mod page_client;

use std::{cell::Cell, time::Duration};

use anyhow::{Context, bail};
use protocol::{TenantTimeline, TimelineId};
use reqwest::Method;
use serde_json::{Value, json};

use self::{
    figures::round,
    harness::{Cluster, Role, eventually, pgbench, pgbench_init, token},
    page_client::PageClient,
};

const TENANT: &str = "tenants/bench";
const BRANCH: &str = "tenants/bench/branches/main";
/// Flushing by age takes half a minute; merging a while more.
const SETTLED_WITHIN: Duration = Duration::from_secs(600);

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Settings {
    /// pgbench's scale: 16 MB each.
    scale: u32,
    /// Of TPC-B.
    seconds: u32,
}

const FULL: Settings = Settings { scale: 50, seconds: 120 };
const QUICK: Settings = Settings { scale: 4, seconds: 20 };

fn main() -> anyhow::Result<()> {
    let settings = figures::chosen(FULL, QUICK);
    let runtime = tokio::runtime::Runtime::new()?;
    println!("{}", runtime.block_on(measure(settings))?);
    Ok(())
}

async fn measure(settings: Settings) -> anyhow::Result<Value> {
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("bench").await?;
    let id = TenantTimeline { tenant: compute.tenant_id, timeline: compute.timeline_id };
    let timeline = compute.timeline_id;
    drop(database);
    let is_over = Cell::new(false);
    let load = async {
        let status = load(&cluster, compute.port, timeline, settings).await;
        is_over.set(true);
        status
    };
    let (status, read_layers_max) = tokio::join!(load, most_runs(&cluster, timeline, &is_over));
    let (status, read_layers_max) = (status?, read_layers_max?);
    say("with all history", &cluster, &status).await?;
    let mut written = written_bytes(&status)?;
    let wal = number(&status, "/written_bytes/wal")?;

    cluster.stop_role(Role::Pageserver)?;
    cluster.start_role(Role::Pageserver)?;
    // Whose reader is there is loaded; one that reads nothing keeps nothing.
    let _reader = PageClient::connect_showing(cluster.pageserver, id, None, token()).await??;
    let nothing = json!({ "history": { "bytes": 0 } });
    cluster.api.storage(Method::PATCH, TENANT, Some(nothing)).await?;
    eventually("history is given up", SETTLED_WITHIN, async || {
        let branch = cluster.api.storage(Method::GET, BRANCH, None).await?;
        if branch["oldest_lsn"] != branch["last_record_lsn"] {
            bail!("not all was given up yet: {branch}");
        }
        Ok(())
    })
    .await?;
    let status = cluster.api.merged(timeline, SETTLED_WITHIN).await?;
    let stored_over_logical = say("without history", &cluster, &status).await?;
    written += written_bytes(&status)?;
    Ok(json!({
        "stored_over_logical": round(stored_over_logical),
        "write_amplification": round(written / wal),
        "read_layers_max": read_layers_max,
    }))
}

/// Prints how it is, and gives the stored bytes over the logical ones.
async fn say(what: &str, cluster: &Cluster, status: &Value) -> anyhow::Result<f64> {
    let branch = cluster.api.storage(Method::GET, BRANCH, None).await?;
    let templates = cluster.api.storage(Method::GET, "templates", None).await?;
    let template = number(&templates, "/templates/0/stored_bytes")?;
    let (own, logical) =
        (number(&branch, "/stored_bytes")?, number(&branch, "/logical_size_bytes")?);
    let ratio = (own + template) / logical;
    println!(
        "{}",
        json!({
            "what": what,
            "stored_over_logical": round(ratio),
            "stored_bytes": own,
            "templates_bytes": template,
            "logical_bytes": logical,
            "runs": status["runs"],
            "written_bytes": status["written_bytes"],
        })
    );
    Ok(ratio)
}

/// Fills and changes the database, stops its compute, and waits until all is merged.
async fn load(
    cluster: &Cluster,
    port: u16,
    timeline: TimelineId,
    settings: Settings,
) -> anyhow::Result<Value> {
    let load = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        pgbench_init(port, settings.scale)?;
        let seconds = settings.seconds.to_string();
        pgbench(port, &["-n", "-M", "prepared", "-j", "2", "-c", "8", "-T", &seconds])?;
        Ok(())
    });
    load.await??;
    cluster.api.stop("bench", "main").await?;
    cluster.api.merged(timeline, SETTLED_WITHIN).await
}

/// The most runs of layers that there were until it is over.
async fn most_runs(
    cluster: &Cluster,
    timeline: TimelineId,
    is_over: &Cell<bool>,
) -> anyhow::Result<u64> {
    let mut most = 0;
    while !is_over.get() {
        let status = cluster.api.timeline_status(timeline).await?;
        let runs = status.context("the timeline is loaded")?["runs"].as_u64();
        most = most.max(runs.context("a number of runs")?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(most)
}

/// Of layers, since the timeline was loaded.
fn written_bytes(status: &Value) -> anyhow::Result<f64> {
    Ok(number(status, "/written_bytes/flushed")? + number(status, "/written_bytes/merged")?)
}

fn number(value: &Value, at: &str) -> anyhow::Result<f64> {
    value.pointer(at).and_then(Value::as_f64).with_context(|| format!("{at} of {value}"))
}
