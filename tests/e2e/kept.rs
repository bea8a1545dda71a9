//! What stock Postgres keeps over a restart and no WAL has survives a suspend, too: replication slots,
//! whose readers miss nothing and see nothing twice, and statistics. As with stock Postgres a crash
//! takes the statistics, and a branch begins with neither.

use anyhow::{Context, ensure};
use control_plane::Compute;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    harness::{Database, PATIENCE, eventually},
    projects::Up,
};

/// The compute of a project's branch main, and a superuser's session on its own port.
pub async fn superuser(up: &Up, branch: &str) -> anyhow::Result<(Compute, Database)> {
    up.json(&["endpoint", "start", "acme", branch])?;
    let id = up.json(&["endpoint", "show", "acme", branch])?["endpoint"]["branch_id"].clone();
    let id = id.as_str().context("an id")?;
    let listed = up.json(&["--control-plane", up.control_plane(), "compute", "list"])?;
    let listed: Vec<Compute> = serde_json::from_value(listed)?;
    let is_its = |compute: &Compute| match branch {
        "main" => compute.branch == "main",
        _ => compute.branch.starts_with(id),
    };
    let compute = listed.into_iter().find(is_its).context("it runs")?;
    let database = Database::connect(compute.port).await?;
    Ok((compute, database))
}

/// The values of rows that were inserted since the slot was last read.
async fn changes(database: &Database) -> anyhow::Result<Vec<String>> {
    let query = "SELECT data FROM pg_logical_slot_get_changes('feed', NULL, NULL, 'skip-empty-xacts', \
                 '1', 'include-xids', '0') WHERE data LIKE 'table%'";
    let rows = database.client.query(query, &[]).await?;
    let value = |row: &tokio_postgres::Row| -> anyhow::Result<String> {
        let data: String = row.try_get(0)?;
        Ok(data.rsplit(':').next().unwrap_or_default().to_owned())
    };
    rows.iter().map(value).collect()
}

/// Rows that were inserted into `t`, as the statistics count them.
async fn counted(database: &Database) -> anyhow::Result<i64> {
    database.run("SELECT pg_stat_force_next_flush()").await?;
    let query =
        "SELECT coalesce((SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 't'), 0)";
    database.one(query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slots_reader_misses_nothing_and_statistics_go_on_over_a_suspend() -> anyhow::Result<()> {
    let up = Up::start_with(&["--suspend-after", "2"]).await?;
    up.json(&["project", "create", "acme", "--suspend-after", "never"])?;
    up.json(&["endpoint", "update", "acme", "main", "--set", "wal_level=logical"])?;
    let (_, first) = superuser(&up, "main").await?;
    first.run("CREATE TABLE t (n int)").await?;
    first.run("SELECT pg_create_logical_replication_slot('feed', 'test_decoding')").await?;
    first.run("INSERT INTO t VALUES (1)").await?;
    ensure!(changes(&first).await? == ["1"]);
    first.run("INSERT INTO t VALUES (2); CREATE TABLE other (a text)").await?;
    first.run("INSERT INTO t VALUES (3)").await?;
    ensure!(counted(&first).await? == 3);
    drop(first);
    up.json(&["endpoint", "suspend", "acme", "main"])?;

    // A branch has what its parent had, but for what no WAL has.
    up.json(&["branch", "create", "acme", "try"])?;
    up.json(&["endpoint", "update", "acme", "try", "--set", "wal_level=logical"])?;
    let (_, branch) = superuser(&up, "try").await?;
    ensure!(branch.one::<i64>("SELECT count(*) FROM t").await? == 3);
    ensure!(branch.one::<i64>("SELECT count(*) FROM pg_replication_slots").await? == 0);
    ensure!(counted(&branch).await? == 0, "a branch has its parent's statistics");
    drop(branch);
    up.json(&["endpoint", "suspend", "acme", "try"])?;

    let (compute, second) = superuser(&up, "main").await?;
    ensure!(counted(&second).await? == 3, "{}", counted(&second).await?);
    second.run("INSERT INTO t VALUES (4)").await?;
    ensure!(changes(&second).await? == ["2", "3", "4"]);
    ensure!(changes(&second).await?.is_empty());
    ensure!(counted(&second).await? == 4);

    // A crash: the slot is as the disk had it, the statistics begin anew.
    second.run("INSERT INTO t VALUES (5)").await?;
    let pid = compute.pid.context("it runs")?;
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
    eventually("the killed compute is noticed", PATIENCE, async || {
        let shown = up.json(&["endpoint", "show", "acme", "main"])?;
        ensure!(shown["endpoint"]["current_state"] == "idle", "{shown}");
        Ok(())
    })
    .await?;
    let (_, third) = superuser(&up, "main").await?;
    ensure!(counted(&third).await? == 0, "statistics survived a crash");
    let seen = changes(&third).await?;
    ensure!(seen.last().is_some_and(|last| last == "5"), "{seen:?}");
    drop(third);

    // A slot that nobody reads keeps nobody awake.
    up.json(&["endpoint", "update", "acme", "main", "--suspend-after", "1"])?;
    eventually("a compute with a slot is suspended", PATIENCE, async || {
        let shown = up.json(&["endpoint", "show", "acme", "main"])?;
        ensure!(shown["endpoint"]["current_state"] == "idle", "{shown}");
        Ok(())
    })
    .await?;
    up.json(&["endpoint", "update", "acme", "main", "--suspend-after", "never"])?;
    let (_, fourth) = superuser(&up, "main").await?;
    fourth.run("INSERT INTO t VALUES (6)").await?;
    ensure!(changes(&fourth).await? == ["6"]);
    drop(fourth);
    up.stop()
}
