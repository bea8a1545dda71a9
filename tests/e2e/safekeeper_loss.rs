//! One of three safekeepers may be lost, disk and all; two may be away for a while.

use std::time::Duration;

use tokio::time::timeout;

use crate::harness::{
    Cluster, PATIENCE, Role, amcheck, eventually, pgbench, pgbench_balances, pgbench_init,
};

#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_while_each_safekeeper_in_turn_is_away() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    pgbench_init(compute.port, 1)?;
    for number in 1..=3 {
        cluster.kill_role(Role::Safekeeper(number));
        pgbench(compute.port, &["-n", "-c", "2", "-t", "100"])?;
        cluster.start_role(Role::Safekeeper(number))?;
        // The next one may go only when this one has caught up: two of three must have all.
        caught_up(&cluster).await?;
    }
    let sum = pgbench_balances(&database).await?;
    drop(database);
    cluster.kill_compute(&compute).await?;
    let (compute, database) = cluster.connect("acme", "main").await?;
    assert_eq!(pgbench_balances(&database).await?, sum);
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_wait_for_a_quorum_and_none_is_lost() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int)").await?;
    database.run("INSERT INTO t VALUES (1)").await?;
    cluster.kill_role(Role::Safekeeper(1));
    cluster.kill_role(Role::Safekeeper(2));
    {
        let mut waiting = std::pin::pin!(database.run("INSERT INTO t VALUES (2)"));
        let early = timeout(Duration::from_secs(3), &mut waiting).await;
        assert!(early.is_err(), "a commit was acknowledged by one safekeeper of three");
        cluster.start_role(Role::Safekeeper(2))?;
        timeout(PATIENCE, &mut waiting).await??;
    }
    database.run("INSERT INTO t VALUES (3)").await?;
    drop(database);
    cluster.kill_compute(&compute).await?;
    let (_, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i64>("SELECT sum(n) FROM t").await?, 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_safekeeper_is_admitted_again_and_then_carries_the_log() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int)").await?;
    database.run("INSERT INTO t SELECT generate_series(1, 1000)").await?;
    cluster.kill_role(Role::Safekeeper(3));
    cluster.wipe_safekeeper(3)?;
    database.run("INSERT INTO t SELECT generate_series(1001, 2000)").await?;
    cluster.start_role(Role::Safekeeper(3))?;
    // With another one gone, a commit needs the one that was wiped: it must have been admitted.
    caught_up(&cluster).await?;
    cluster.kill_role(Role::Safekeeper(1));
    let commit = database.run("INSERT INTO t SELECT generate_series(2001, 3000)");
    timeout(PATIENCE, commit).await??;
    drop(database);
    cluster.kill_compute(&compute).await?;
    let (compute, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 3000);
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_safekeeper_does_not_make_a_quorum_that_forgets() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int)").await?;
    // Safekeeper 2 misses this; 1 and 3 have it.
    cluster.kill_role(Role::Safekeeper(2));
    database.run("INSERT INTO t SELECT generate_series(1, 1000)").await?;
    drop(database);
    cluster.kill_compute(&compute).await?;
    // 3 forgets, 1 is away: what is left is one that missed it and one that forgot it. Were these
    // two a quorum, the rows would be gone.
    cluster.kill_role(Role::Safekeeper(3));
    cluster.wipe_safekeeper(3)?;
    cluster.kill_role(Role::Safekeeper(1));
    cluster.start_role(Role::Safekeeper(3))?;
    cluster.start_role(Role::Safekeeper(2))?;
    let early = timeout(Duration::from_secs(8), cluster.connect("acme", "main")).await;
    assert!(!matches!(early, Ok(Ok(_))), "a compute started without a quorum that remembers");

    cluster.start_role(Role::Safekeeper(1))?;
    let (_, database) =
        eventually("a quorum is back", PATIENCE, async || cluster.connect("acme", "main").await)
            .await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 1000);
    Ok(())
}

/// Waits until any one of the three may go: each is a member and has all that was written.
async fn caught_up(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("the safekeepers have caught up", PATIENCE, async || {
        let mut ends = Vec::new();
        for number in 1..=3 {
            ends.push(cluster.flushed(number, "acme").await?);
        }
        let alike = ends.windows(2).all(|pair| pair[0] == pair[1]);
        anyhow::ensure!(alike && ends.iter().all(|(_, member)| *member), "they are at {ends:?}");
        Ok(())
    })
    .await
}
