//! A compute that follows another one of its timeline: it sees commits in their order, soon, and only
//! those that a quorum has; it goes on whatever becomes of the other one and of a safekeeper; and
//! nothing can be written through it.

use anyhow::{Context, ensure};
use control_plane::Compute;

use crate::harness::{
    Cluster, Database, PATIENCE, Process, Role, amcheck, eventually, free_port, host, pgbench,
    pgbench_balances, pgbench_init, program,
};

/// A standby of a compute, started behind the control plane's back.
struct Standby {
    process: Process,
    port: u16,
}

impl Standby {
    /// Begins at the primary's checkpoint, where one is named.
    fn spawn(
        cluster: &Cluster,
        primary: &Compute,
        checkpoint: Option<&str>,
    ) -> anyhow::Result<Standby> {
        let port = free_port();
        let options = [
            ("--timeline", format!("{}/{}", primary.tenant_id, primary.timeline_id)),
            ("--pageserver", cluster.pageserver.to_string()),
            ("--safekeepers", cluster.safekeeper_list()),
            ("--folder", cluster.path(&format!("standby-{port}")).display().to_string()),
            ("--listen", format!("127.0.0.1:{port}")),
            ("--auth-token", cluster.path("operator-token").display().to_string()),
        ];
        let mut arguments = ["--json", "compute", "run", "--follow"].map(str::to_owned).to_vec();
        arguments.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        if let Some(checkpoint) = checkpoint {
            arguments.extend(["--checkpoint".to_owned(), checkpoint.to_owned()]);
        }
        let process = Process::spawn(&arguments, &cluster.path(&format!("standby-{port}.log")))?;
        Ok(Standby { process, port })
    }

    /// One that accepts connections.
    async fn start(
        cluster: &Cluster,
        primary: &Compute,
        checkpoint: Option<&str>,
    ) -> anyhow::Result<(Standby, Database)> {
        let mut standby = Standby::spawn(cluster, primary, checkpoint)?;
        standby.process.wait_for_line("\"ready\"")?;
        let database = Database::connect(standby.port).await?;
        Ok((standby, database))
    }
}

/// Has the primary write a checkpoint; where its record begins.
async fn checkpoint(primary: &Database) -> anyhow::Result<String> {
    primary.run("CHECKPOINT").await?;
    primary.one("SELECT checkpoint_lsn::text FROM pg_control_checkpoint()").await
}

/// Waits until the standby has replayed all that the primary has written so far.
async fn has_followed(standby: &Database, primary: &Database) -> anyhow::Result<()> {
    let lsn = primary.lsn().await?;
    let query = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
    eventually("the standby has followed", PATIENCE, async || {
        ensure!(standby.one::<bool>(&query).await?, "it has not come to {lsn}");
        Ok(())
    })
    .await
}

/// pgbench's invariant in one snapshot, as of which it is seen at any moment.
async fn balances(standby: &Database) -> anyhow::Result<i64> {
    standby.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let sum = pgbench_balances(standby).await?;
    standby.run("COMMIT").await?;
    Ok(sum)
}

/// All rows of all tables of the database.
async fn digest(database: &Database) -> anyhow::Result<String> {
    let tables = "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind IN ('r', 'm') \
                  AND relpersistence = 'p' AND relnamespace <> 'pg_toast'::regnamespace \
                  ORDER BY 1";
    let mut digest = String::new();
    for row in database.client.query(tables, &[]).await? {
        let table: String = row.try_get(0)?;
        let rows = format!(
            "SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t"
        );
        digest.push_str(&format!("{table} {}\n", database.one::<String>(&rows).await?));
    }
    Ok(digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_sees_what_is_committed_and_nothing_is_written_through_it() -> anyhow::Result<()>
{
    let cluster = Cluster::start().await?;
    let (compute, primary) = cluster.tenant("acme").await?;
    pgbench_init(compute.port, 1)?;
    primary.run("CREATE EXTENSION amcheck; CREATE UNLOGGED TABLE u (n int)").await?;
    // What runs while the standby starts is seen once it is committed, and not if it never is.
    let (_, other) = cluster.connect("acme", "main").await?;
    other.run("CREATE TABLE late (n int)").await?;
    other.run("BEGIN; INSERT INTO late VALUES (1)").await?;
    let checkpoint = checkpoint(&primary).await?;
    let (mut process, standby) = Standby::start(&cluster, &compute, Some(&checkpoint)).await?;
    ensure!(standby.one::<i64>("SELECT count(*) FROM late").await? == 0);
    other.run("COMMIT; BEGIN; INSERT INTO late VALUES (2)").await?;
    has_followed(&standby, &primary).await?;
    ensure!(standby.one::<i64>("SELECT count(*) FROM late").await? == 1);
    other.run("ROLLBACK").await?;

    for write in ["INSERT INTO late VALUES (3)", "CREATE TABLE x ()", "TRUNCATE late"] {
        let refused = standby.client.batch_execute(write).await.err().context("it was written")?;
        let said = refused.to_string();
        let code = refused.code().map(|code| code.code().to_owned());
        ensure!(code.as_deref() == Some("25006"), "{write}: {said}");
    }

    // While the primary is busy, every snapshot is one of the primary's.
    let port = compute.port;
    let load = std::thread::spawn(move || pgbench(port, &["-n", "-c", "4", "-t", "1000"]));
    while !load.is_finished() {
        balances(&standby).await?;
    }
    load.join().map_err(|_| anyhow::anyhow!("pgbench was not waited for"))??;

    // All kinds of changes, files and whole databases among them.
    for statement in [
        "VACUUM",
        "TRUNCATE pgbench_history; INSERT INTO u VALUES (1)",
        "CREATE TABLE wide AS SELECT g n, repeat(md5(g::text), 200) t FROM generate_series(1, 500) g",
        "CREATE INDEX ON wide USING gin (to_tsvector('simple', t)); CREATE INDEX ON wide (n)",
        "DELETE FROM wide WHERE n % 2 = 0",
        "VACUUM wide",
        "VACUUM FULL pgbench_accounts",
        "ALTER TABLE pgbench_tellers ADD COLUMN more text DEFAULT 'x'",
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM wide",
        "CREATE DATABASE copied TEMPLATE template0 STRATEGY file_copy",
        "CREATE DATABASE logged TEMPLATE template0 STRATEGY wal_log",
    ] {
        primary.run(statement).await?;
    }
    pgbench(compute.port, &["-n", "-c", "2", "-t", "200"])?;
    has_followed(&standby, &primary).await?;
    ensure!(digest(&standby).await? == digest(&primary).await?, "they differ");
    for name in ["copied", "logged"] {
        let there = Database::connect_to(process.port, name).await?;
        ensure!(there.one::<i64>("SELECT count(*) FROM pg_class").await? > 100, "{name} is empty");
    }
    amcheck(compute.port)?;
    has_followed(&standby, &primary).await?;
    let mut check = program("pg_amcheck");
    check.args(["-h", &host(process.port)?, "-U", "postgres", "-p", &process.port.to_string()]);
    let checked = check.args(["-d", "app", "--heapallindexed"]).output()?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    drop(standby);
    ensure!(process.process.stop()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_goes_on_over_its_primarys_restarts_and_lost_safekeepers() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (compute, primary) = cluster.tenant("acme").await?;
    pgbench_init(compute.port, 1)?;
    let checkpoint = checkpoint(&primary).await?;
    let (mut process, standby) = Standby::start(&cluster, &compute, Some(&checkpoint)).await?;
    for number in 1..=3 {
        cluster.kill_role(Role::Safekeeper(number));
        pgbench(compute.port, &["-n", "-c", "2", "-t", "50"])?;
        has_followed(&standby, &primary).await?;
        ensure!(balances(&standby).await? == pgbench_balances(&primary).await?);
        cluster.start_role(Role::Safekeeper(number))?;
        eventually("the safekeeper has caught up", PATIENCE, async || {
            let ends = [1, 2, 3].map(|number| cluster.flushed(number, "acme"));
            let ends = futures::future::try_join_all(ends).await?;
            ensure!(ends.windows(2).all(|pair| pair[0] == pair[1]), "they are at {ends:?}");
            Ok(())
        })
        .await?;
    }

    // The primary crashes in the middle of a transaction, and another compute takes its place.
    primary.run("BEGIN; UPDATE pgbench_branches SET bbalance = 0").await?;
    cluster.kill_compute(&compute).await?;
    let sum = balances(&standby).await?;
    let (compute, primary) = cluster.connect("acme", "main").await?;
    pgbench(compute.port, &["-n", "-c", "2", "-t", "50"])?;
    has_followed(&standby, &primary).await?;
    ensure!(balances(&standby).await? == pgbench_balances(&primary).await?);
    ensure!(sum != balances(&standby).await?, "nothing came of the second compute");

    // Also where it sleeps, and wakes.
    drop(primary);
    cluster.api.stop("acme", "main").await?;
    balances(&standby).await?;
    let (compute, primary) = cluster.connect("acme", "main").await?;
    pgbench(compute.port, &["-n", "-c", "2", "-t", "50"])?;
    has_followed(&standby, &primary).await?;
    ensure!(balances(&standby).await? == pgbench_balances(&primary).await?);
    drop(standby);
    ensure!(process.process.stop()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_begins_where_a_sleeping_primary_stopped_and_refuses_where_one_crashed()
-> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, primary) = cluster.tenant("acme").await?;
    primary.run("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await?;
    drop(primary);
    cluster.kill_compute(&compute).await?;
    let mut refused = Standby::spawn(&cluster, &compute, None)?;
    refused.process.wait_for_line("\"nocheckpoint\"")?;
    ensure!(!refused.process.wait(PATIENCE)?.success());

    let (_, primary) = cluster.connect("acme", "main").await?;
    primary.run("INSERT INTO t VALUES (2)").await?;
    drop(primary);
    cluster.api.stop("acme", "main").await?;
    let (mut process, standby) = Standby::start(&cluster, &compute, None).await?;
    ensure!(standby.one::<i64>("SELECT sum(n) FROM t").await? == 3);
    let (_, primary) = cluster.connect("acme", "main").await?;
    primary.run("INSERT INTO t VALUES (4)").await?;
    has_followed(&standby, &primary).await?;
    ensure!(standby.one::<i64>("SELECT sum(n) FROM t").await? == 7);
    drop(standby);
    ensure!(process.process.stop()?.success());
    Ok(())
}
