//! The object store over S3: Ceph, a real distributed store, behind its gateway on loopback.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::harness::{
    BadNetwork, Ceph, Database, Network, OFFSHOOT, PATIENCE, Process, amcheck, eventually, folder,
    free_port, turn, up_arguments,
};

type Environment = Vec<(&'static str, String)>;

/// `offshoot up` on the cluster's bucket.
struct Up {
    process: Process,
    control_plane: String,
    token_file: String,
}

impl Up {
    fn start(environment: Environment, arguments: &[String], log: &Path) -> anyhow::Result<Up> {
        let mut process = Process::spawn_with(arguments, environment, log)?;
        let ready: Value = serde_json::from_str(&process.wait_for_line("\"ready\"")?)?;
        let said = |name: &str| ready[name].as_str().map(str::to_owned).context(ready.to_string());
        let (control_plane, token_file) = (said("control_plane")?, said("token_file")?);
        Ok(Up { process, control_plane, token_file })
    }

    fn offshoot(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(OFFSHOOT)
            .args(["--json", "--control-plane", &self.control_plane])
            .args(["--token-file", &self.token_file])
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

    async fn layers_in_the_bucket(&self) -> anyhow::Result<()> {
        let has_layers = async || {
            let said = self.offshoot(&["tenant", "branch", "show", "acme", "main"])?;
            let stored = said["stored_bytes"].as_u64().unwrap_or(0);
            ensure!(stored > 0, "main has nothing in the bucket: {said}");
            Ok(())
        };
        eventually("main's layers in the bucket", PATIENCE, has_layers).await
    }
}

/// The cluster's environment with one variable set otherwise.
fn with(ceph: &Ceph, name: &'static str, value: &str) -> Environment {
    let mut environment = ceph.environment();
    environment.retain(|(known, _)| *known != name);
    environment.push((name, value.to_owned()));
    environment
}

/// Starts a pageserver that must not start, and gives what it says.
fn refusal(program: &[&str], url: &str, environment: Environment) -> anyhow::Result<String> {
    let (page, http) = (free_port(), free_port());
    let output = Command::new(program[0])
        .args(&program[1..])
        .args([
            "pageserver",
            "--no-auth",
            "--store",
            url,
            "--safekeepers",
            "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3",
        ])
        .args(["--listen", &format!("127.0.0.1:{page}"), "--http", &format!("127.0.0.1:{http}")])
        .envs(environment)
        .output()
        .with_context(|| format!("{} does not run", program[0]))?;
    ensure!(!output.status.success(), "it started: {}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8(output.stderr)?;
    let sentence = said.lines().last().context("it said nothing")?;
    Ok(sentence.to_owned())
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
    arguments.extend(["--store", &ceph.url(), "--disk", "256M"].map(str::to_owned));

    let mut up = Up::start(ceph.environment(), &arguments, &log)?;
    up.offshoot(&["tenant", "create", "acme"])?;
    let database = up.database("main").await?;
    database.run("CREATE TABLE t AS SELECT generate_series(1, 20000) n").await?;

    // The store stops answering: what runs goes on, and nothing acknowledged is lost.
    ceph.pause()?;
    database.run("INSERT INTO t SELECT generate_series(20001, 30000)").await?;
    ceph.go_on()?;
    up.offshoot(&["tenant", "branch", "create", "acme", "try"])?;
    database.run("DELETE FROM t WHERE n > 10").await?;
    drop(database);

    up.offshoot(&["compute", "stop", "acme", "main"])?;
    up.layers_in_the_bucket().await?;
    ensure!(up.process.stop()?.success(), "up did not end cleanly:\n{}", up.process.log());

    let up = Up::start(ceph.environment(), &arguments, &log)?;
    let count = "SELECT count(*) FROM t";
    assert_eq!(up.database("main").await?.one::<i64>(count).await?, 10);
    assert_eq!(up.database("try").await?.one::<i64>(count).await?, 30_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_loses_nothing_makes_no_page_wrong_and_lets_work_go_on() -> anyhow::Result<()>
{
    let _turn = turn().await;
    let ceph = Ceph::start()?;
    let network = BadNetwork::start(ceph.address()?, Network::Bad, 7).await?;
    let environment = with(&ceph, "AWS_ENDPOINT_URL", &network.endpoint());
    let folder = folder()?;
    let log = folder.path().join("up.log");
    let mut arguments = up_arguments(&folder.path().join("data"));
    arguments.extend(["--store", &ceph.url(), "--disk", "256M"].map(str::to_owned));

    let mut up = Up::start(environment.clone(), &arguments, &log)?;
    let create = async || up.offshoot(&["tenant", "create", "acme"]);
    eventually("the tenant is made", PATIENCE, create).await?;
    let start = async || up.database("main").await;
    let database = eventually("the compute starts", PATIENCE, start).await?;
    database.run("CREATE TABLE t (n int PRIMARY KEY, filler text)").await?;
    for round in 0..20 {
        let insert = format!(
            "INSERT INTO t SELECT n, md5(n::text) || repeat('x', 300) \
             FROM generate_series({}, {}) n",
            round * 5000 + 1,
            (round + 1) * 5000
        );
        database.run(&insert).await?;
    }
    ensure!(network.faults() > 10, "the network was good: {} faults", network.faults());
    database.run("DELETE FROM t WHERE n % 2 = 0").await?;
    drop(database);
    up.offshoot(&["compute", "stop", "acme", "main"])?;
    up.layers_in_the_bucket().await?;
    ensure!(up.process.stop()?.success(), "up did not end cleanly:\n{}", up.process.log());

    // Everything is read back through the same network.
    let up = Up::start(environment, &arguments, &log)?;
    let start = async || up.database("main").await;
    let database = eventually("the compute starts", PATIENCE, start).await?;
    let right = "SELECT count(*) FROM t WHERE filler = md5(n::text) || repeat('x', 300)";
    assert_eq!(database.one::<i64>(right).await?, 50_000);
    network.mend();
    let compute = up.offshoot(&["compute", "start", "acme", "main"])?;
    amcheck(u16::try_from(compute["port"].as_u64().context("a port")?)?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_used_is_said_at_the_start_with_the_mend() -> anyhow::Result<()> {
    let _turn = turn().await;
    let ceph = Ceph::start()?;
    let offshoot = [OFFSHOOT];

    let said = refusal(&offshoot, &ceph.url(), with(&ceph, "AWS_ACCESS_KEY_ID", "NOBODY"))?;
    assert!(said.contains("correct AWS_ACCESS_KEY_ID"), "{said}");
    let said = refusal(&offshoot, &ceph.url(), with(&ceph, "AWS_SECRET_ACCESS_KEY", "wrong"))?;
    assert!(said.contains("correct AWS_ACCESS_KEY_ID"), "{said}");

    let said = refusal(&offshoot, "s3://not-there/prefix", ceph.environment())?;
    assert!(said.contains("the bucket does not exist; create it"), "{said}");

    // `faketime` gives this process another clock, by an hour.
    let late = ["faketime", "-m", "-f", "-1h", OFFSHOOT];
    let said = refusal(&late, &ceph.url(), with(&ceph, "FAKETIME_DONT_FAKE_MONOTONIC", "1"))?;
    assert!(said.contains("set the clock"), "{said}");

    let nobody = format!("http://127.0.0.1:{}", free_port());
    let said = refusal(&offshoot, &ceph.url(), with(&ceph, "AWS_ENDPOINT_URL", &nobody))?;
    assert!(said.contains("correct AWS_ENDPOINT_URL"), "{said}");

    let network = BadNetwork::start(ceph.address()?, Network::ForgetsCreateOnly, 0).await?;
    let environment = with(&ceph, "AWS_ENDPOINT_URL", &network.endpoint());
    let url = ceph.url();
    let said =
        tokio::task::spawn_blocking(move || refusal(&[OFFSHOOT], &url, environment)).await??;
    assert!(said.contains("ignores If-None-Match"), "{said}");
    Ok(())
}
