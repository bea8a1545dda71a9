//! A branch goes back to any moment, in place, and nobody else moves.

use std::time::Duration;

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::harness::{Cluster, Database, amcheck, pgbench, pgbench_balances, pgbench_init};

#[tokio::test(flavor = "multi_thread")]
async fn restore_to_each_of_several_moments_gives_exactly_the_rows_of_that_moment()
-> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int PRIMARY KEY)").await?;
    let mut moments = Vec::new();
    for number in 1..=4i64 {
        database
            .run(&format!("INSERT INTO t SELECT generate_series({number}00, {number}49)"))
            .await?;
        moments.push((database.lsn().await?, number * 50));
    }
    database.run("DELETE FROM t").await?;
    let end = database.lsn().await?;
    drop(database);
    // Backwards: each restore's history still holds the earlier moments.
    for (lsn, rows) in moments.iter().rev() {
        cluster.api.restore("acme", json!({ "lsn": lsn })).await?;
        let (now, database) = cluster.connect("acme", "main").await?;
        assert_eq!(now.port, compute.port, "the port changed with a restore");
        assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, *rows, "at {lsn}");
    }
    let (_, database) = cluster.connect("acme", "main").await?;
    database.run("INSERT INTO t VALUES (1)").await?;
    assert!(!end.is_empty());
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_to_a_timestamp_undoes_a_bad_delete_and_keeps_the_old_state() -> anyhow::Result<()>
{
    let cluster = Cluster::start().await?;
    let (_, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t AS SELECT generate_series(1, 100) n").await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let moment = OffsetDateTime::now_utc().format(&Rfc3339)?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    database.run("DELETE FROM t WHERE n > 3").await?;
    database.run("INSERT INTO t VALUES (1000)").await?;
    drop(database);
    cluster.api.restore("acme", json!({ "timestamp": moment, "keep_as": "before" })).await?;
    let (_, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 100);
    let (_, kept) = cluster.connect("acme", "before").await?;
    assert_eq!(kept.one::<i64>("SELECT sum(n) FROM t").await?, 1 + 2 + 3 + 1000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_one_tenant_while_two_others_run_pgbench_changes_neither() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (_, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t AS SELECT 1 AS n").await?;
    let lsn = database.lsn().await?;
    database.run("DELETE FROM t").await?;
    drop(database);
    let mut others = Vec::new();
    for name in ["left", "right"] {
        let (compute, database) = cluster.tenant(name).await?;
        pgbench_init(compute.port, 1)?;
        others.push((compute, database));
    }
    let loads: Vec<_> = others
        .iter()
        .map(|(compute, _)| {
            let port = compute.port;
            std::thread::spawn(move || pgbench(port, &["-n", "-c", "2", "-t", "300"]))
        })
        .collect();
    for _ in 0..3 {
        cluster.api.restore("acme", json!({ "lsn": lsn })).await?;
        let (_, database) = cluster.connect("acme", "main").await?;
        assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 1);
    }
    for load in loads {
        load.join().map_err(|_| anyhow::anyhow!("pgbench's thread panicked"))??;
    }
    for (compute, database) in others {
        pgbench_balances(&database).await?;
        let rows: i64 = database.one("SELECT count(*) FROM pgbench_history").await?;
        assert_eq!(rows, 600, "transactions of {}", compute.tenant);
        amcheck(compute.port)?;
        drop(database);
        cluster.kill_compute(&compute).await?;
        let (_, database): (_, Database) = cluster.connect(&compute.tenant, "main").await?;
        assert_eq!(database.one::<i64>("SELECT count(*) FROM pgbench_history").await?, 600);
    }
    Ok(())
}
