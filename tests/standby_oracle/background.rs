//! The pageserver's background work between comparisons: merges of layers, and the end of history.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;
use wal_format::Lsn;

use crate::{
    harness::{Cluster, eventually},
    workload::TENANT,
};

/// An open layer is flushed after half a minute; then it may be merged.
pub const DONE_WITHIN: Duration = Duration::from_secs(180);

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
