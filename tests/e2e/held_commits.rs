//! While a quorum is away, a commit waits, and nothing makes it known before the quorum has it:
//! not a cancel, not a terminate, not the crash of another backend.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::timeout;

use crate::harness::{Cluster, Database, PATIENCE, Role, eventually};

/// A tenant whose insert of 2 waits for the quorum, with two safekeepers stopped.
struct Held {
    cluster: Cluster,
    port: u16,
    writer: tokio::task::JoinHandle<anyhow::Result<()>>,
    writer_pid: i32,
    witness: Database,
}

async fn held() -> anyhow::Result<Held> {
    let mut cluster = Cluster::start().await?;
    let (compute, witness) = cluster.tenant("acme").await?;
    witness.run("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await?;
    let writer = Database::connect(compute.port).await?;
    let writer_pid: i32 = writer.one("SELECT pg_backend_pid()").await?;
    for number in [1, 2] {
        cluster.kill_role(Role::Safekeeper(number));
    }
    let writer = tokio::spawn(async move { writer.run("INSERT INTO t VALUES (2)").await });
    eventually("the writer waits", PATIENCE, async || {
        let event: Option<String> = witness
            .one(&format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {writer_pid}"))
            .await?;
        ensure!(event.as_deref() == Some("WALSync"), "it waits for {event:?}");
        Ok(())
    })
    .await?;
    Ok(Held { cluster, port: compute.port, writer, writer_pid, witness })
}

impl Held {
    /// Nobody knows of the row: not the writer's client, not another.
    async fn assert_unknown(&self) -> anyhow::Result<()> {
        ensure!(!self.writer.is_finished(), "the writer's client heard an answer");
        let count = timeout(PATIENCE, self.witness.one::<i64>("SELECT count(*) FROM t"));
        let rows = count.await??;
        ensure!(rows == 1, "another session sees {rows} rows");
        Ok(())
    }

    async fn release(&mut self) -> anyhow::Result<()> {
        self.cluster.start_role(Role::Safekeeper(1))?;
        self.cluster.start_role(Role::Safekeeper(2))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_commit_is_not_revealed_before_the_quorum_has_it() -> anyhow::Result<()> {
    let mut held = held().await?;
    held.witness.run(&format!("SELECT pg_cancel_backend({})", held.writer_pid)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    held.assert_unknown().await?;
    held.release().await?;
    let _answer = timeout(PATIENCE, &mut held.writer).await??;
    assert_eq!(held.witness.one::<i64>("SELECT count(*) FROM t").await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_commit_is_not_revealed_before_the_quorum_has_it() -> anyhow::Result<()> {
    let mut held = held().await?;
    held.witness.run(&format!("SELECT pg_terminate_backend({})", held.writer_pid)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    held.assert_unknown().await?;
    held.release().await?;
    let _answer = timeout(PATIENCE, &mut held.writer).await??;
    assert_eq!(held.witness.one::<i64>("SELECT count(*) FROM t").await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backends_crash_reveals_no_commit_that_the_quorum_lacks() -> anyhow::Result<()> {
    let mut held = held().await?;
    let victim = Database::connect(held.port).await?;
    let pid: i32 = victim.one("SELECT pg_backend_pid()").await?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // All sessions are gone; a new one, where it is let in at all, does not see the row.
    if let Ok(Ok(early)) = timeout(Duration::from_secs(3), Database::connect(held.port)).await {
        let rows =
            timeout(Duration::from_secs(3), early.one::<i64>("SELECT count(*) FROM t")).await;
        assert!(!matches!(rows, Ok(Ok(2))), "the row was seen before the quorum had it");
    }
    let acknowledged = held.writer.is_finished() && matches!((&mut held.writer).await, Ok(Ok(())));
    assert!(!acknowledged, "the commit was acknowledged without a quorum");
    held.release().await?;
    let cluster = &held.cluster;
    let database = eventually("the compute serves again", PATIENCE, async || {
        let (_, database) = cluster.connect("acme", "main").await?;
        database.one::<i32>("SELECT 1").await?;
        Ok(database)
    })
    .await?;
    let rows: i64 = database.one("SELECT count(*) FROM t").await?;
    assert!(rows == 1 || rows == 2, "{rows} rows");
    drop(database);
    // What is seen now stays.
    let compute = cluster.api.compute("acme", "main").await?;
    cluster.kill_compute(&compute).await?;
    let (_, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, rows);
    Ok(())
}
