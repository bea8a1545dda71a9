//! What is metered, against what others count: Postgres, the folder of the store, LSNs.

use std::{fs, path::Path, process::Command};

use anyhow::Context;
use reqwest::Method;
use serde_json::Value;

use crate::harness::{Cluster, OFFSHOOT, PATIENCE, Role, eventually};

async fn usage(cluster: &Cluster, tenant: &str) -> anyhow::Result<Value> {
    cluster.api.storage(Method::GET, &format!("tenants/{tenant}/usage"), None).await
}

fn number(usage: &Value, field: &str) -> anyhow::Result<u64> {
    usage[field].as_u64().with_context(|| format!("{usage} has no {field}"))
}

/// Bytes of all files in a folder.
fn bytes_in(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_what_postgres_and_the_store_say_and_survives_a_restart() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    cluster.api.create_tenant("zeta").await?;
    let before = usage(&cluster, "acme").await?["total"].clone();

    database
        .run("CREATE TABLE t AS SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n")
        .await?;
    database.run("CHECKPOINT").await?;
    let grown = database.one::<i64>("SELECT pg_relation_size('t')").await?.unsigned_abs();
    cluster.api.stop("acme", "main").await?;

    // The last layer is written within half a minute.
    let layers = cluster
        .path("store/tenants")
        .join(compute.tenant_id.to_string())
        .join("timelines")
        .join(compute.timeline_id.to_string())
        .join("layers");
    let after = eventually("the table is in layers", PATIENCE, async || {
        let after = usage(&cluster, "acme").await?["total"].clone();
        let size = number(&after, "logical_size_bytes")?;
        anyhow::ensure!(size >= number(&before, "logical_size_bytes")? + grown, "{after}");
        anyhow::ensure!(number(&after, "stored_bytes")? == bytes_in(&layers)?, "{after}");
        Ok(after)
    })
    .await?;
    // Beside the table: its free space map, its visibility map, and rows of the catalog.
    let size = number(&after, "logical_size_bytes")? - number(&before, "logical_size_bytes")?;
    assert!(size < grown + (1 << 20), "{size} bytes more for a table of {grown}");
    assert_eq!(after["unique_bytes"], after["stored_bytes"], "nobody made a branch");
    assert!(number(&after, "wal_written_bytes")? > grown, "{after}");
    assert!(number(&after, "pages_read")? > 0, "a compute started without reading: {after}");
    let zeta = usage(&cluster, "zeta").await?["total"].clone();
    assert_eq!(zeta["stored_bytes"], 0);
    assert_eq!(zeta["inherited_bytes"], after["inherited_bytes"], "one template");

    cluster.stop_role(Role::Pageserver)?;
    cluster.start_role(Role::Pageserver)?;
    assert_eq!(usage(&cluster, "acme").await?["total"], after);

    let at = cluster.api.control_plane.to_string();
    let listed = Command::new(OFFSHOOT)
        .args(["--json", "--control-plane", &at, "tenant", "usage", "--token-file"])
        .arg(cluster.path("operator-token"))
        .output()?;
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    let names: Vec<_> = listed["tenants"].as_array().into_iter().flatten().collect();
    assert_eq!(names.len(), 2, "{listed}");
    assert_eq!((&names[0]["name"], &names[0]["total"]), (&"acme".into(), &after));
    Ok(())
}
