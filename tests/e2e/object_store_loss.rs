//! The object store goes away and comes back.

use std::fs;

use tokio::time::timeout;

use crate::harness::{Cluster, PATIENCE, amcheck, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_object_store_is_gone_commits_go_on_and_nothing_is_lost() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int PRIMARY KEY)").await?;
    database.run("INSERT INTO t SELECT generate_series(1, 1000)").await?;
    // What these statements need is in memory now; what is not there would fail meanwhile.
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 1000);
    fs::rename(cluster.path("store"), cluster.path("store-away"))?;
    fs::write(cluster.path("store"), "no folder, so that nothing can be put there meanwhile")?;
    let commit = database.run("INSERT INTO t SELECT generate_series(1001, 2000)");
    timeout(PATIENCE, commit).await??;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 2000);
    let refused = cluster.api.create_tenant("zeta").await;
    assert!(refused.is_err(), "a tenant was created without an object store");
    fs::remove_file(cluster.path("store"))?;
    fs::rename(cluster.path("store-away"), cluster.path("store"))?;
    eventually("tenants can be created again", PATIENCE, async || {
        cluster.api.create_tenant("zeta").await
    })
    .await?;
    drop(database);
    cluster.kill_compute(&compute).await?;
    let (compute, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 2000);
    amcheck(compute.port)
}
