//! A control plane that hangs for longer than its computes' tokens are good.

use std::time::Duration;

use anyhow::ensure;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::renewal::compute_logs;
use crate::harness::{Cluster, Database, PATIENCE, Role, eventually};

/// How long a compute's token is good here, and somewhat longer.
const LIFE: &str = "4s";
const LONGER: Duration = Duration::from_secs(6);

/// A process that does nothing until this is dropped.
struct Hangs(Pid);

impl Hangs {
    fn begin(pid: u32) -> anyhow::Result<Hangs> {
        let pid = Pid::from_raw(pid as i32);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Hangs(pid))
    }
}

impl Drop for Hangs {
    fn drop(&mut self) {
        let _gone = kill(self.0, Signal::SIGCONT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_compute_reads_and_writes_while_its_control_plane_hangs_waits_for_it()
-> anyhow::Result<()> {
    let environment = vec![("OFFSHOOT_COMPUTE_TOKEN_LIFE", LIFE.to_owned())];
    let mut cluster = Cluster::start_with(environment).await?;
    let (_, database) = cluster.tenant("acme").await?;
    let rows = "SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n";
    database.run(&format!("CREATE TABLE t AS {rows}; CREATE TABLE u (n int); CHECKPOINT")).await?;
    drop(database);
    cluster.api.stop("acme", "main").await?;
    let compute = cluster.api.start_with(json!({ "tenant": "acme" })).await?;
    let (reader, writer) =
        (Database::connect(compute.port).await?, Database::connect(compute.port).await?);
    writer.run("INSERT INTO u VALUES (1)").await?;

    let hangs = Hangs::begin(cluster.process(Role::ControlPlane)?.pid())?;
    tokio::time::sleep(LONGER).await;
    let reading = tokio::spawn(async move { reader.one::<i64>("SELECT count(*) FROM t").await });
    let writing = tokio::spawn(async move { writer.run("INSERT INTO u VALUES (2)").await });
    let refused = "tokens_refused_total{door=\"pages\",reason=\"expired\"}";
    eventually("a read comes with a token that has ended", PATIENCE, async || {
        let metrics = cluster.api.metrics(cluster.api.pageserver).await?;
        let line = metrics.lines().find(|line| line.contains(refused)).unwrap_or_default();
        ensure!(line.rsplit(' ').next().is_some_and(|count| count != "0"), "{line:?}");
        Ok(())
    })
    .await?;
    // It is asked again meanwhile, and waits on.
    tokio::time::sleep(LONGER).await;
    ensure!(!reading.is_finished(), "{:?}", reading.await?);
    ensure!(!writing.is_finished(), "a commit that no quorum has");
    drop(hangs);
    ensure!(reading.await?? == 20_000, "rows are missing");
    writing.await??;

    let database = Database::connect(compute.port).await?;
    ensure!(database.one::<i64>("SELECT count(*) FROM u").await? == 2, "a row is missing");
    let log = compute_logs(&cluster.path("computes"))?;
    for said in ["reads wait", "reads go on"] {
        ensure!(log.contains(said), "{said:?} is not said:\n{log}");
    }
    ensure!(!log.contains("Input/output error"), "{log}");
    Ok(())
}
