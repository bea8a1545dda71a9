//! How long a tenant and a branch take to create, over HTTP; a branch of an empty database and of
//! one that was filled.

use std::{fs::File, io::Write, time::Instant};

use serde_json::json;

use crate::{
    Settings,
    harness::{Cluster, pgbench_init},
    percentile,
};

/// The slowest of a hundred.
pub struct Provisioning {
    pub create_p99_ms: f64,
    pub branch_p99_ms: f64,
}

pub async fn measure(cluster: &Cluster, settings: Settings) -> anyhow::Result<Provisioning> {
    say("the yardstick: a new file of 4 KiB, it and its folder fsynced", &yardstick(settings)?);
    let create = times(settings.creations, async |number| {
        cluster.api.create_tenant(&format!("tenant-{number}")).await.map(drop)
    })
    .await?;
    let (compute, database) = cluster.tenant("parent").await?;
    pgbench_init(compute.port, settings.scale)?;
    let lsn = database.lsn().await?;
    let branch = times(settings.creations, async |number| {
        cluster.api.create_branch_at("parent", &format!("branch-{number}"), &lsn).await.map(drop)
    })
    .await?;
    let head = times(settings.creations, async |number| {
        cluster.api.create_branch("parent", &format!("head-{number}")).await.map(drop)
    })
    .await?;
    drop(database);
    cluster.api.stop("parent", "main").await?;
    say("create a tenant", &create);
    say("branch at an LSN", &branch);
    say("branch at the head of a running compute", &head);
    let branch_p99_ms = percentile(&branch, 0.99).max(percentile(&head, 0.99));
    Ok(Provisioning { create_p99_ms: percentile(&create, 0.99), branch_p99_ms })
}

/// What the disk takes for the least that a durable write of an object needs.
fn yardstick(settings: Settings) -> anyhow::Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let mut times = Vec::with_capacity(settings.creations);
    for number in 0..settings.creations {
        let began = Instant::now();
        let mut file = File::create(folder.path().join(number.to_string()))?;
        file.write_all(&[7; 4096])?;
        file.sync_all()?;
        File::open(folder.path())?.sync_all()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

async fn times(
    count: usize,
    mut create: impl AsyncFnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let began = Instant::now();
        create(number).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn say(what: &str, times: &[f64]) {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| percentile(times, part));
    println!(
        "{}",
        json!({ "what": what, "count": times.len(), "p50_ms": p50, "p99_ms": p99, "max_ms": max })
    );
}
