//! How long a tenant and a branch take to create, over HTTP; a branch of an empty database and of
//! one that was filled.

use std::time::Instant;

use crate::{
    Settings,
    figures::{percentile, say, say_yardstick},
    harness::{Cluster, pgbench_init},
};

/// The slowest of a hundred.
pub struct Provisioning {
    pub create_p99_ms: f64,
    pub branch_p99_ms: f64,
}

pub async fn measure(cluster: &Cluster, settings: Settings) -> anyhow::Result<Provisioning> {
    say_yardstick(settings.creations)?;
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
