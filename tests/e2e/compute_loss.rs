//! A compute is killed at any moment and its folder is gone: nothing that was acknowledged is.

use std::time::Duration;

use crate::harness::{Cluster, Database, amcheck, pgbench, pgbench_balances, pgbench_init};

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_balances_agree_after_the_compute_was_killed_and_its_folder_deleted()
-> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (mut compute, _) = cluster.tenant("acme").await?;
    pgbench_init(compute.port, 2)?;
    let mut acknowledged = 0;
    for round in 0..3 {
        let port = compute.port;
        let load = std::thread::spawn(move || {
            pgbench(port, &["-n", "-c", "4", "-j", "2", "-T", "30", "--progress=1"])
        });
        tokio::time::sleep(Duration::from_millis(2000 + 700 * round)).await;
        let before = Database::connect(port).await?;
        let rows: i64 = before.one("SELECT count(*) FROM pgbench_history").await?;
        cluster.kill_compute(&compute).await?;
        assert!(load.join().is_ok_and(|load| load.is_err()), "pgbench did not notice the kill");

        let (next, database) = cluster.connect("acme", "main").await?;
        compute = next;
        pgbench_balances(&database).await?;
        let kept: i64 = database.one("SELECT count(*) FROM pgbench_history").await?;
        assert!(kept >= rows, "{rows} transactions were seen, {kept} are left");
        assert!(kept > acknowledged, "pgbench did nothing in round {round}");
        acknowledged = kept;
    }
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_row_is_there_after_each_of_many_kills() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (mut compute, mut database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int PRIMARY KEY)").await?;
    let mut acknowledged = 0;
    for round in 0..5 {
        for _ in 0..10 + round * 7 {
            acknowledged += 1;
            database.run(&format!("INSERT INTO t VALUES ({acknowledged})")).await?;
        }
        cluster.kill_compute(&compute).await?;
        (compute, database) = cluster.connect("acme", "main").await?;
        let rows: i64 = database.one("SELECT count(*) FROM t").await?;
        assert_eq!(rows, acknowledged, "after kill {round}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_write_nothing_add_no_wal() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t AS SELECT 1 AS n").await?;
    drop(database);
    cluster.api.stop("acme", "main").await?;
    let (compute, first) = cluster.connect("acme", &compute.branch).await?;
    let start: String =
        first.one("SELECT checkpoint_lsn::text FROM pg_control_checkpoint()").await?;
    drop(first);
    // Killed at once, before it has written anything of its own.
    cluster.kill_compute(&compute).await?;
    let (_, second) = cluster.connect("acme", "main").await?;
    let again: String =
        second.one("SELECT checkpoint_lsn::text FROM pg_control_checkpoint()").await?;
    let moved: i64 =
        second.one(&format!("SELECT ('{again}'::pg_lsn - '{start}'::pg_lsn)::bigint")).await?;
    assert!(moved < 16 << 10, "a start without work wrote {moved} bytes of WAL");
    assert_eq!(second.one::<i32>("SELECT n FROM t").await?, 1);
    Ok(())
}
