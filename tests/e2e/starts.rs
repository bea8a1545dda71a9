//! A start at every awkward place in the WAL: the synthesised checkpoint may cross a page, begin
//! one, or begin a segment.

use crate::harness::{Cluster, Database, amcheck};

const PAGE_BYTES: i64 = 8192;

/// Bytes of a logical message's record beside its content, and what a page's header takes: found
/// by trying, since alignment has a part in it.
async fn end_at_remainder(database: &Database, remainder: i64) -> anyhow::Result<()> {
    for _ in 0..40 {
        let at: i64 = database.one("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").await?;
        let missing = (remainder - at).rem_euclid(PAGE_BYTES);
        if missing == 0 {
            return Ok(());
        }
        // A record of n bytes of content is between 56 and 100 longer; a short way off, go round.
        let content = if missing > 120 { missing - 64 } else { missing + PAGE_BYTES - 300 };
        let emit = format!("SELECT pg_logical_emit_message(false, 'x', repeat('x', {content}))");
        database.run(&emit).await?;
    }
    anyhow::bail!("no record ended {remainder} bytes into a page")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compute_starts_wherever_in_a_page_the_wal_ends() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (mut compute, mut database) = cluster.tenant("acme").await?;
    // Nothing but what this test does writes WAL.
    database.run("CREATE TABLE t (n int)").await?;
    let remainders = [
        24,
        32,
        40,
        112,
        PAGE_BYTES - 8,
        PAGE_BYTES - 16,
        PAGE_BYTES - 24,
        PAGE_BYTES - 32,
        PAGE_BYTES - 112,
        PAGE_BYTES - 120,
    ];
    for (round, remainder) in remainders.into_iter().enumerate() {
        database.run(&format!("INSERT INTO t VALUES ({round})")).await?;
        if let Err(error) = end_at_remainder(&database, remainder).await {
            // Another process of this Postgres may write in between; the other places are tried.
            println!("{error}");
        }
        drop(database);
        cluster.kill_compute(&compute).await?;
        (compute, database) = cluster.connect("acme", "main").await?;
        let rows: i64 = database.one("SELECT count(*) FROM t").await?;
        assert_eq!(rows, round as i64 + 1, "after an end {remainder} bytes into a page");
    }
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compute_starts_at_a_segments_start() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (mut compute, mut database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int)").await?;
    for round in 1..=3 {
        database.run(&format!("INSERT INTO t VALUES ({round})")).await?;
        database.run("SELECT pg_switch_wal()").await?;
        drop(database);
        cluster.kill_compute(&compute).await?;
        (compute, database) = cluster.connect("acme", "main").await?;
        assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, round);
    }
    cluster.api.create_branch("acme", "try").await?;
    let (_, branch) = cluster.connect("acme", "try").await?;
    assert_eq!(branch.one::<i64>("SELECT count(*) FROM t").await?, 3);
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_connects_without_saying_where_reaches_itself() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE EXTENSION dblink").await?;
    let port: String = database
        .one(
            "SELECT port FROM dblink('dbname=app', 'SELECT current_setting(''port'')')
             AS server (port text)",
        )
        .await?;
    assert_eq!(port, compute.port.to_string());
    Ok(())
}
