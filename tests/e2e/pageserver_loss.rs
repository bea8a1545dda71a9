//! The pageserver keeps nothing that it cannot have again: it may be killed at any moment.

use std::time::Duration;

use crate::harness::{Cluster, Role, amcheck, pgbench, pgbench_balances, pgbench_init};

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_goes_on_and_balances_agree_after_the_pageserver_was_killed() -> anyhow::Result<()>
{
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    pgbench_init(compute.port, 2)?;
    let port = compute.port;
    let load = std::thread::spawn(move || pgbench(port, &["-n", "-c", "4", "-T", "12"]));
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..2 {
        cluster.kill_role(Role::Pageserver);
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.start_role(Role::Pageserver)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let load = load.join().map_err(|_| anyhow::anyhow!("pgbench's thread panicked"))?;
    load?;
    let before = pgbench_balances(&database).await?;
    drop(database);
    cluster.kill_compute(&compute).await?;
    let (compute, database) = cluster.connect("acme", "main").await?;
    assert_eq!(pgbench_balances(&database).await?, before);
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn pageserver_and_compute_lost_together_lose_nothing() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t AS SELECT generate_series(1, 10000) n").await?;
    drop(database);
    cluster.kill_role(Role::Pageserver);
    cluster.kill_compute(&compute).await?;
    cluster.start_role(Role::Pageserver)?;
    let (compute, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 10_000);
    amcheck(compute.port)
}
