//! Pages that were cut off never come back: extension by zeros is not logged, so a file that grows
//! again brings back page numbers that held something before.

use crate::harness::{Cluster, amcheck};

/// A page's worth of rows, recognised by their text.
const FILL: &str =
    "INSERT INTO t SELECT i, 'old' || repeat('x', 700) FROM generate_series(1, 2000) i";

#[tokio::test(flavor = "multi_thread")]
async fn truncated_pages_do_not_come_back_when_the_table_grows_again() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int, v text)").await?;
    database.run(FILL).await?;
    // VACUUM cuts the tail off the same file; TRUNCATE in its own transaction takes a new one.
    database.run("DELETE FROM t WHERE n > 10").await?;
    database.run("VACUUM t").await?;
    database
        .run("INSERT INTO t SELECT i, 'new' || repeat('y', 700) FROM generate_series(5001, 5500) i")
        .await?;
    cluster.kill_compute(&compute).await?;

    let (compute, database) = cluster.connect("acme", "main").await?;
    let old: i64 = database.one("SELECT count(*) FROM t WHERE v LIKE 'old%'").await?;
    let new: i64 = database.one("SELECT count(*) FROM t WHERE v LIKE 'new%'").await?;
    assert_eq!((old, new), (10, 500));
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_table_that_was_truncated_in_place_do_not_come_back() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    // Made and truncated in one transaction, the table keeps its file.
    database
        .run(&format!(
            "BEGIN; CREATE TABLE t (n int, v text); {FILL}; TRUNCATE t;
             INSERT INTO t VALUES (1, 'new'); COMMIT; CREATE INDEX ON t (n)"
        ))
        .await?;
    let file: String = database.one("SELECT pg_relation_filepath('t')").await?;
    cluster.kill_compute(&compute).await?;

    let (compute, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<String>("SELECT pg_relation_filepath('t')").await?, file);
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 1);
    database.run("INSERT INTO t SELECT i, repeat('z', 700) FROM generate_series(1, 300) i").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t WHERE v LIKE 'old%'").await?, 0);
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_extended_without_wal_are_empty_after_the_compute_is_lost() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int, v text)").await?;
    database.run(FILL).await?;
    database.run("DELETE FROM t").await?;
    database.run("VACUUM t").await?;
    let blocks: i64 = database.one("SELECT pg_relation_size('t') / 8192").await?;
    assert_eq!(blocks, 0, "VACUUM did not cut the file");
    // A bulk insert extends by many pages at once and fills them later; rolled back, it leaves a
    // file that is longer than what WAL says of it.
    database.run(&format!("BEGIN; {FILL}; ROLLBACK")).await?;
    database.run("INSERT INTO t VALUES (1, 'new')").await?;
    cluster.kill_compute(&compute).await?;

    let (compute, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 1);
    database.run("VACUUM t").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 1);
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_tables_rows_do_not_come_back_in_a_new_one() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (mut compute, mut database) = cluster.tenant("acme").await?;
    for round in 0..3 {
        database.run("CREATE TABLE t (n int, v text)").await?;
        database.run(FILL).await?;
        database.run("DROP TABLE t; CHECKPOINT").await?;
        cluster.kill_compute(&compute).await?;
        (compute, database) = cluster.connect("acme", "main").await?;
        database.run("CREATE TABLE u (n int, v text); INSERT INTO u VALUES (1, 'new')").await?;
        let rows: i64 = database.one("SELECT count(*) FROM u").await?;
        assert_eq!(rows, 1, "round {round}");
        database.run("DROP TABLE u").await?;
    }
    amcheck(compute.port)
}
