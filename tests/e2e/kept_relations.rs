//! What of relations no WAL has survives a suspend as it survives a clean restart of stock Postgres: free
//! space is found again, and unlogged tables have their rows. A crash takes both, and a branch begins
//! without.

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    harness::{Database, PATIENCE, Stock, amcheck, eventually, folder},
    kept::superuser,
    projects::Up,
};

/// A table of which half is free, and an unlogged one with indexes.
async fn fill(database: &Database) -> anyhow::Result<()> {
    for statement in [
        "CREATE EXTENSION pg_freespacemap",
        "CREATE TABLE t AS SELECT n, repeat('x', 200) filler FROM generate_series(1, 20000) n",
        "DELETE FROM t WHERE n % 2 = 0",
        "VACUUM t",
        "CREATE UNLOGGED TABLE u (n int PRIMARY KEY, p point); CREATE INDEX ON u USING gist (p)",
        "INSERT INTO u SELECT n, point(n, n % 7) FROM generate_series(1, 3000) n",
    ] {
        database.run(statement).await?;
    }
    Ok(())
}

/// The free bytes that the map of `t` knows.
async fn free(database: &Database) -> anyhow::Result<i64> {
    database.one("SELECT coalesce(sum(avail), 0)::bigint FROM pg_freespace('t')").await
}

/// How many blocks `t` grows by when as many rows come as were deleted.
async fn growth(database: &Database) -> anyhow::Result<i64> {
    let size = "SELECT pg_relation_size('t') / 8192";
    let before: i64 = database.one(size).await?;
    database
        .run("INSERT INTO t SELECT n, repeat('y', 200) FROM generate_series(1, 10000) n")
        .await?;
    Ok(database.one::<i64>(size).await? - before)
}

/// The rows of `u`, by each of its indexes and by none.
async fn unlogged(database: &Database) -> anyhow::Result<[i64; 3]> {
    let mut counts = [0; 3];
    let queries = ["", "WHERE n > 0", "WHERE p <@ box(point(-1, -1), point(1e9, 1e9))"];
    for (count, condition) in counts.iter_mut().zip(queries) {
        database.run(&format!("SET enable_seqscan = {}", condition.is_empty())).await?;
        *count = database.one(&format!("SELECT count(*) FROM u {condition}")).await?;
    }
    Ok(counts)
}

/// How much stock Postgres' table grows by after a clean restart.
async fn stock_growth() -> anyhow::Result<i64> {
    let folder = folder()?;
    let mut stock = Stock::initdb(folder.path().join("stock"), &[])?;
    stock.start()?;
    fill(&Database::connect_to(stock.port, "postgres").await?).await?;
    stock.stop("fast")?;
    stock.start()?;
    growth(&Database::connect_to(stock.port, "postgres").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn free_space_and_unlogged_rows_are_there_after_a_suspend_and_not_after_a_crash()
-> anyhow::Result<()> {
    let up = Up::start_with(&["--suspend-after", "0"]).await?;
    up.json(&["project", "create", "acme"])?;
    let (_, first) = superuser(&up, "main").await?;
    fill(&first).await?;
    let known = free(&first).await?;
    ensure!(known > 1_000_000 && unlogged(&first).await? == [3000; 3]);
    drop(first);
    up.json(&["endpoint", "suspend", "acme", "main"])?;

    up.json(&["branch", "create", "acme", "try"])?;
    let (_, branch) = superuser(&up, "try").await?;
    ensure!(unlogged(&branch).await? == [0; 3], "a branch has its parent's unlogged rows");
    drop(branch);
    up.json(&["endpoint", "suspend", "acme", "try"])?;

    // Also over a suspend in which nothing was written.
    for _ in 0..2 {
        let (_, again) = superuser(&up, "main").await?;
        ensure!(free(&again).await? == known, "{} of {known} bytes are known", free(&again).await?);
        ensure!(unlogged(&again).await? == [3000; 3], "{:?}", unlogged(&again).await?);
        drop(again);
        up.json(&["endpoint", "suspend", "acme", "main"])?;
    }
    let (compute, second) = superuser(&up, "main").await?;
    let (grown, stock) = (growth(&second).await?, stock_growth().await?);
    ensure!(grown <= stock, "it grows by {grown} blocks, stock Postgres' by {stock}");
    second.run("INSERT INTO u SELECT n, point(n, 0) FROM generate_series(3001, 9000) n").await?;
    ensure!(unlogged(&second).await? == [9000; 3], "{:?}", unlogged(&second).await?);
    amcheck(compute.port)?;

    kill(Pid::from_raw(compute.pid.context("it runs")? as i32), Signal::SIGKILL)?;
    eventually("the killed compute is noticed", PATIENCE, async || {
        let shown = up.json(&["endpoint", "show", "acme", "main"])?;
        ensure!(shown["endpoint"]["current_state"] == "idle", "{shown}");
        Ok(())
    })
    .await?;
    let (compute, third) = superuser(&up, "main").await?;
    ensure!(unlogged(&third).await? == [0; 3], "unlogged rows survived a crash");
    ensure!(third.one::<i64>("SELECT count(*) FROM t").await? == 20000);
    third.run("INSERT INTO u VALUES (1, point(1, 1))").await?;
    ensure!(unlogged(&third).await? == [1; 3]);
    growth(&third).await?;
    amcheck(compute.port)?;
    drop(third);
    up.stop()
}
