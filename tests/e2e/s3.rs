//! The object store over S3: Ceph, a real distributed store, behind its gateway on loopback.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::harness::{Ceph, Database, PATIENCE, Process, eventually, folder, turn, up_arguments};

/// `offshoot up` on the cluster's bucket.
struct Up {
    process: Process,
    control_plane: String,
}

impl Up {
    fn start(ceph: &Ceph, arguments: &[String], log: &std::path::Path) -> anyhow::Result<Up> {
        let mut process = Process::spawn_with(arguments, ceph.environment(), log)?;
        let ready: Value = serde_json::from_str(&process.wait_for_line("\"ready\"")?)?;
        let control_plane =
            ready["control_plane"].as_str().context("ready says no address")?.to_owned();
        Ok(Up { process, control_plane })
    }

    fn offshoot(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = std::process::Command::new(crate::harness::OFFSHOOT)
            .args(["--json", "--control-plane", &self.control_plane])
            .args(arguments)
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {complaint}");
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    async fn database(&self, branch: &str) -> anyhow::Result<Database> {
        let compute = self.offshoot(&["compute", "start", "acme", branch])?;
        let port = compute["port"].as_u64().context("a started compute has a port")?;
        Database::connect(u16::try_from(port)?).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_stops_answering_loses_nothing_and_a_restart_reads_it_back()
-> anyhow::Result<()> {
    let _turn = turn().await;
    let ceph = Ceph::start()?;
    let folder = folder()?;
    let data = folder.path().join("data");
    let log = folder.path().join("up.log");
    let mut arguments = up_arguments(&data);
    arguments.extend(["--store".to_owned(), ceph.url()]);

    let mut up = Up::start(&ceph, &arguments, &log)?;
    up.offshoot(&["tenant", "create", "acme"])?;
    let database = up.database("main").await?;
    database.run("CREATE TABLE t AS SELECT generate_series(1, 20000) n").await?;

    // The store stops answering: what runs goes on, and nothing acknowledged is lost.
    ceph.pause()?;
    database.run("INSERT INTO t SELECT generate_series(20001, 30000)").await?;
    ceph.go_on()?;
    up.offshoot(&["branch", "create", "acme", "try"])?;
    database.run("DELETE FROM t WHERE n > 10").await?;
    drop(database);

    up.offshoot(&["compute", "stop", "acme", "main"])?;
    let offloaded = async || {
        let said = up.offshoot(&["branch", "show", "acme", "main"])?;
        let stored = said["stored_bytes"].as_u64().unwrap_or(0);
        ensure!(stored > 0, "main has nothing in the bucket: {said}");
        Ok(())
    };
    eventually("main's layers in the bucket", PATIENCE, offloaded).await?;
    ensure!(up.process.stop()?.success(), "up did not end cleanly:\n{}", up.process.log());

    let up = Up::start(&ceph, &arguments, &log)?;
    let count = "SELECT count(*) FROM t";
    assert_eq!(up.database("main").await?.one::<i64>(count).await?, 10);
    assert_eq!(up.database("try").await?.one::<i64>(count).await?, 30_000);
    Ok(())
}
