//! A scrub of a store that a cluster writes to.

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::harness::{Cluster, OFFSHOOT, pgbench_init};

fn scrub(cluster: &Cluster) -> anyhow::Result<(bool, Value)> {
    let arguments = ["--json", "scrub", "--store", &cluster.store()];
    let output = Command::new(OFFSHOOT).args(arguments).output()?;
    let said = String::from_utf8(output.stdout)?;
    let report = said.lines().next().context("a scrub says something")?;
    Ok((output.status.success(), serde_json::from_str(report)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_beside_a_running_cluster_reads_every_layer_and_names_a_damaged_one()
-> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, _database) = cluster.tenant("acme").await?;
    pgbench_init(compute.port, 1)?;
    let (is_whole, report) = scrub(&cluster)?;
    ensure!(is_whole, "{report}");
    ensure!(report["layers"].as_u64() > Some(0), "{report}");

    let folders = cluster.path("store").join("tenants");
    let layer = find_layer(&folders)?.context("the template has a layer")?;
    let mut bytes = std::fs::read(&layer)?;
    bytes[100] ^= 1;
    std::fs::write(&layer, bytes)?;
    let (is_whole, report) = scrub(&cluster)?;
    ensure!(!is_whole && report["findings"][0]["fault"] == "damaged", "{report}");
    Ok(())
}

fn find_layer(folder: &std::path::Path) -> anyhow::Result<Option<std::path::PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_layer = path.parent().is_some_and(|parent| parent.ends_with("layers"));
        if path.is_file() && is_layer {
            return Ok(Some(path));
        }
        if path.is_dir()
            && let Some(found) = find_layer(&path)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
