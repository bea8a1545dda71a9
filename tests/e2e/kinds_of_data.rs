//! All kinds of state that Postgres has, each after the compute's folder was thrown away.

use serde_json::json;

use crate::harness::{Cluster, Database, amcheck};

/// Loses the compute and connects to the next.
async fn lose(cluster: &Cluster, database: Database) -> anyhow::Result<Database> {
    drop(database);
    let compute = cluster.api.compute("acme", "main").await?;
    cluster.kill_compute(&compute).await?;
    Ok(cluster.connect("acme", "main").await?.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_transactions_survive() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.api.create_tenant("acme").await?;
    let settings = json!({ "max_prepared_transactions": "10" });
    let request = json!({ "tenant": "acme", "settings": settings });
    let compute = cluster.api.start_with(request).await?;
    let database = Database::connect(compute.port).await?;
    database.run("CREATE TABLE t (n int)").await?;
    for (number, name) in [(1, "one"), (2, "two"), (3, "three")] {
        let prepare =
            format!("BEGIN; INSERT INTO t VALUES ({number}); PREPARE TRANSACTION '{name}'");
        database.run(&prepare).await?;
    }
    database.run("COMMIT PREPARED 'three'").await?;
    let database = lose(&cluster, database).await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM pg_prepared_xacts").await?, 2);
    database.run("COMMIT PREPARED 'one'").await?;
    database.run("ROLLBACK PREPARED 'two'").await?;
    let sum: i64 = database.one("SELECT sum(n) FROM t").await?;
    assert_eq!(sum, 1 + 3);
    let database = lose(&cluster, database).await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM pg_prepared_xacts").await?, 0);
    assert_eq!(database.one::<i64>("SELECT sum(n) FROM t").await?, 1 + 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_large_objects_and_unlogged_tables_survive_as_they_should() -> anyhow::Result<()>
{
    let cluster = Cluster::start().await?;
    let (_, database) = cluster.tenant("acme").await?;
    database
        .run(
            "CREATE SEQUENCE s;
             CREATE TABLE kept (n serial PRIMARY KEY, t text);
             INSERT INTO kept (t) SELECT repeat('x', 3000) || i FROM generate_series(1, 200) i;
             CREATE UNLOGGED TABLE lost (n int PRIMARY KEY);
             INSERT INTO lost SELECT generate_series(1, 1000);
             SELECT lo_from_bytea(4711, decode(repeat('ab', 100000), 'hex'));",
        )
        .await?;
    let drawn: i64 = database.one("SELECT max(nextval('s')) FROM generate_series(1, 50)").await?;
    let database = lose(&cluster, database).await?;
    let next: i64 = database.one("SELECT nextval('s')").await?;
    assert!(next > drawn, "sequence gave {next} after {drawn}");
    assert!(next <= drawn + 33, "sequence jumped from {drawn} to {next}");
    let id: i32 = database.one("INSERT INTO kept (t) VALUES ('y') RETURNING n").await?;
    assert!(id > 200, "serial gave {id} again");
    assert_eq!(
        database.one::<i64>("SELECT count(*) FROM lost").await?,
        0,
        "unlogged rows came back"
    );
    database.run("INSERT INTO lost VALUES (1), (2)").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM lost WHERE n = 2").await?, 1);
    let object: i32 = database.one("SELECT length(lo_get(4711))").await?;
    assert_eq!(object, 100_000);
    let toast: i64 = database.one("SELECT sum(length(t)) FROM kept WHERE n <= 200").await?;
    assert!(toast > 600_000, "toasted values are short: {toast}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_made_both_ways_and_dropped_ones_survive() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE seed AS SELECT generate_series(1, 500) n").await?;
    for (name, strategy) in [("copied", "file_copy"), ("logged", "wal_log"), ("gone", "file_copy")]
    {
        let template = format!("CREATE DATABASE {name} TEMPLATE template1 STRATEGY {strategy}");
        database.run(&template).await?;
        let inside = Database::connect_to(compute.port, name).await?;
        inside.run(&format!("CREATE TABLE t AS SELECT '{name}'::text AS made")).await?;
    }
    database.run("DROP DATABASE gone").await?;
    let database = lose(&cluster, database).await?;
    let port = cluster.api.compute("acme", "main").await?.port;
    for name in ["copied", "logged"] {
        let inside = Database::connect_to(port, name).await?;
        assert_eq!(inside.one::<String>("SELECT made FROM t").await?, name);
    }
    assert!(Database::connect_to(port, "gone").await.is_err(), "a dropped database came back");
    assert_eq!(database.one::<i64>("SELECT count(*) FROM seed").await?, 500);
    amcheck(port)
}

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_survive() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    // As stock Postgres has it, the folder must be there, empty, and belong to who runs it.
    let location = cluster.path("space");
    std::fs::create_dir(&location)?;
    std::os::unix::fs::chown(&location, Some(cluster.compute_user(&compute)?), None)?;
    let location = location.display();
    database.run(&format!("CREATE TABLESPACE space LOCATION '{location}'")).await?;
    database
        .run(
            "CREATE TABLE far (n int PRIMARY KEY USING INDEX TABLESPACE space) TABLESPACE space;
             INSERT INTO far SELECT generate_series(1, 5000);
             CREATE TABLE mover AS SELECT generate_series(1, 100) n;
             ALTER TABLE mover SET TABLESPACE space;",
        )
        .await?;
    let database = lose(&cluster, database).await?;
    assert_eq!(database.one::<i64>("SELECT sum(n) FROM far").await?, 12_502_500);
    assert_eq!(database.one::<i64>("SELECT count(*) FROM mover").await?, 100);
    database.run("DROP TABLE far; DROP TABLE mover").await?;
    database.run("DROP TABLESPACE space").await?;
    let database = lose(&cluster, database).await?;
    let left: i64 =
        database.one("SELECT count(*) FROM pg_tablespace WHERE spcname = 'space'").await?;
    assert_eq!(left, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rewritten_catalogs_survive() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (_, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t AS SELECT generate_series(1, 10) n").await?;
    for catalog in ["pg_class", "pg_attribute", "pg_type", "pg_database", "pg_authid"] {
        database.run(&format!("VACUUM FULL {catalog}")).await?;
    }
    database.run("REINDEX TABLE pg_class; CLUSTER pg_proc USING pg_proc_oid_index").await?;
    database.run("CREATE TABLE u AS TABLE t; ALTER TABLE t ADD COLUMN m int DEFAULT 7").await?;
    let database = lose(&cluster, database).await?;
    assert_eq!(database.one::<i64>("SELECT sum(n + m) FROM t").await?, 55 + 70);
    assert_eq!(database.one::<i64>("SELECT count(*) FROM u").await?, 10);
    amcheck(cluster.api.compute("acme", "main").await?.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_tables_indexes_and_changed_types_survive() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (_, database) = cluster.tenant("acme").await?;
    database
        .run(
            "CREATE TABLE t (n int PRIMARY KEY, v text);
             INSERT INTO t SELECT i, 'a' FROM generate_series(1, 3000) i;
             CREATE TABLE rewritten AS SELECT i::int AS n FROM generate_series(1, 3000) i;
             CREATE MATERIALIZED VIEW m AS SELECT count(*) c FROM t;",
        )
        .await?;
    database.run("TRUNCATE t RESTART IDENTITY").await?;
    database.run("INSERT INTO t SELECT i, 'b' FROM generate_series(1, 10) i").await?;
    database.run("ALTER TABLE rewritten ALTER n TYPE bigint; REFRESH MATERIALIZED VIEW m").await?;
    database.run("REINDEX TABLE t; CREATE TEMP TABLE gone AS TABLE t").await?;
    database.run("BEGIN; TRUNCATE t; INSERT INTO t VALUES (99, 'c'); ROLLBACK").await?;
    let database = lose(&cluster, database).await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t WHERE v = 'b'").await?, 10);
    assert_eq!(database.one::<i64>("SELECT sum(n)::bigint FROM rewritten").await?, 4_501_500);
    assert_eq!(database.one::<i64>("SELECT c FROM m").await?, 10);
    database.run("DROP TABLE rewritten; CREATE TABLE rewritten (n int)").await?;
    let database = lose(&cluster, database).await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM rewritten").await?, 0);
    amcheck(cluster.api.compute("acme", "main").await?.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn multixacts_and_subtransactions_survive() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) i").await?;
    // Rows locked by two transactions at once carry a multixact.
    let other = Database::connect(compute.port).await?;
    for _ in 0..3 {
        database.run("BEGIN; SELECT * FROM t FOR SHARE").await?;
        other.run("BEGIN; SELECT * FROM t FOR KEY SHARE; COMMIT").await?;
        database.run("COMMIT").await?;
    }
    // 200 subtransactions, more than the 64 that fit a transaction's own list; half are undone.
    let body: String = (0..200)
        .map(|i| {
            let end = if i % 2 == 0 { "RELEASE" } else { "ROLLBACK TO" };
            format!("SAVEPOINT s; INSERT INTO t VALUES ({}, {i}); {end} s;\n", 100 + i)
        })
        .collect();
    database.run(&format!("BEGIN; {body} COMMIT")).await?;
    drop(other);
    let database = lose(&cluster, database).await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t WHERE n >= 100").await?, 100);
    let odd: i64 = database.one("SELECT count(*) FROM t WHERE n >= 100 AND v % 2 = 1").await?;
    assert_eq!(odd, 0, "an undone subtransaction came back");
    database.run("UPDATE t SET v = v + 1; SELECT * FROM t FOR UPDATE").await?;
    database.run("VACUUM FREEZE t").await?;
    let database = lose(&cluster, database).await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, 120);
    amcheck(cluster.api.compute("acme", "main").await?.port)
}
