//! The pageserver's background work between comparisons: merges of layers, and the end of history.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use protocol::TimelineId;
use reqwest::Method;
use serde_json::{Value, json};
use wal_format::Lsn;

use crate::{
    harness::{Cluster, eventually},
    workload::TENANT,
};

/// An open layer is flushed after half a minute; then it may be merged.
const DONE_WITHIN: Duration = Duration::from_secs(180);

/// Waits until all of a loaded timeline is in layers, and no two runs of them are to be merged.
/// Its status then.
pub async fn merged(cluster: &Cluster, timeline: TimelineId) -> Result<Value> {
    eventually("layers are merged", DONE_WITHIN, async || {
        let status = cluster.api.storage(Method::GET, "status", None).await?;
        let timelines = status["timelines"].as_array().context("a list of timelines")?;
        let id = timeline.to_string();
        let of_timeline = timelines.iter().find(|status| status["timeline_id"] == id);
        let status = of_timeline.context("the timeline is loaded")?;
        let is_stored = status["last_record_lsn"] == status["remote_consistent_lsn"];
        if !is_stored || status["is_merged"] != json!(true) {
            bail!("there is more to do: {status}");
        }
        Ok(status.clone())
    })
    .await
}

/// Has the tenant give up what is more than `bytes` of WAL before the end of each timeline, and
/// waits until a branch has; its cutoff.
pub async fn give_up(cluster: &Cluster, branch: &str, bytes: u64) -> Result<Lsn> {
    let tenant = format!("tenants/{TENANT}");
    let window = json!({ "history": { "bytes": bytes } });
    cluster.api.storage(Method::PATCH, &tenant, Some(window)).await?;
    let path = format!("{tenant}/branches/{branch}");
    let cutoff = eventually("history is given up", DONE_WITHIN, async || {
        let branch = cluster.api.storage(Method::GET, &path, None).await?;
        let cutoff = branch["oldest_lsn"].as_str().context("nothing was given up yet")?;
        Ok(cutoff.parse::<Lsn>()?)
    })
    .await?;
    ensure!(cutoff > Lsn::INVALID, "a cutoff of 0 gives up nothing");
    Ok(cutoff)
}
