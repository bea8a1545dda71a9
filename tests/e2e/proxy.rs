//! The proxy of `offshoot up`: computes sleep, and wake for whoever connects.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use access::Bearer;
use anyhow::{Context, ensure};
use control_plane::State;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::harness::{
    Api, Database, PATIENCE, Process, eventually, folder, free_port, program, turn, up_arguments,
};

/// Seconds; short, so that the test need not wait for long.
const SUSPEND_AFTER: u64 = 2;

/// `offshoot up` with a proxy.
pub struct Up {
    pub api: Api,
    pub proxy: SocketAddr,
    pub process: Process,
    pub folder: TempDir,
}

impl Up {
    fn start() -> anyhow::Result<Up> {
        let folder = folder()?;
        let data = folder.path().join("data");
        Up::start_in(folder, &data, &[])
    }

    /// Starts it with its data in this folder, which may be below the other, and these arguments.
    pub fn start_in(folder: TempDir, data: &Path, more: &[&str]) -> anyhow::Result<Up> {
        let proxy = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut arguments = up_arguments(data);
        let own = ["--proxy", &proxy.to_string(), "--suspend-after", &SUSPEND_AFTER.to_string()];
        arguments.extend(own.iter().chain(more).map(|argument| (*argument).to_owned()));
        let mut process = Process::spawn(&arguments, &folder.path().join("up.log"))?;
        let ready: Value = serde_json::from_str(&process.wait_for_line("\"ready\"")?)?;
        ensure!(ready["proxy"] == proxy.to_string(), "{ready}");
        let address = |name: &str| -> anyhow::Result<SocketAddr> {
            Ok(ready[name].as_str().context("an address")?.parse()?)
        };
        let token = ready["token_file"].as_str().context("the token's file")?;
        let operator = Bearer::file(token.into());
        let api = Api::new(address("pageserver_http")?, address("control_plane")?, operator);
        Ok(Up { api, proxy, process, folder })
    }

    /// A tenant whose role `app` has the password `secret`, asleep.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<()> {
        self.api.create_tenant(name).await?;
        let settings = serde_json::json!({ "max_connections": "300" });
        let request = serde_json::json!({ "tenant": name, "settings": settings });
        let compute = self.api.start_with(request).await?;
        let database = Database::connect(compute.port).await?;
        database.run("ALTER ROLE app PASSWORD 'secret'").await?;
        drop(database);
        self.api.stop(name, "main").await?;
        Ok(())
    }

    /// psql that runs a statement, or waits for one that nobody writes.
    fn psql(&self, endpoint: &str, statement: Option<&str>) -> anyhow::Result<Child> {
        let url = format!(
            "postgresql://app@{}/app?options=endpoint%3D{endpoint}&sslmode=require\
             &channel_binding=require",
            self.proxy
        );
        let mut command = Command::from(program("psql"));
        command.args(["-XqAt", "-d", &url]).env("PGPASSWORD", "secret");
        command.args(statement.map(|statement| ["-c", statement]).iter().flatten());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.kill_on_drop(true).spawn()?)
    }

    async fn ask(&self, endpoint: &str, statement: &str) -> anyhow::Result<String> {
        said(self.psql(endpoint, Some(statement))?).await
    }

    async fn state(&self, tenant: &str) -> anyhow::Result<State> {
        Ok(self.api.compute(tenant, "main").await?.state)
    }

    pub async fn is_suspended(&self, tenant: &str) -> anyhow::Result<()> {
        eventually("a compute that nobody uses is suspended", PATIENCE, async || {
            let state = self.state(tenant).await?;
            ensure!(state == State::Stopped, "it is {state:?}");
            Ok(())
        })
        .await
    }

    /// Waits for several times of what a compute without work lives.
    pub async fn stays(&self, tenant: &str, why: &str) -> anyhow::Result<()> {
        for _ in 0..4 * SUSPEND_AFTER {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ensure!(self.state(tenant).await? == State::Running, "suspended with {why}");
        }
        Ok(())
    }
}

async fn said(psql: Child) -> anyhow::Result<String> {
    let output = psql.wait_with_output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_sleeps_while_nobody_uses_it_and_wakes_with_all_that_it_had()
-> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = Up::start()?;
    up.tenant("acme").await?;
    up.ask("acme", "CREATE TABLE t AS SELECT generate_series(1, 1000) n").await?;
    up.is_suspended("acme").await?;
    assert_eq!(up.ask("acme", "SELECT count(*) FROM t").await?, "1000");

    // A branch has a name of its own, and the roles of its parent.
    up.api.create_branch("acme", "try").await?;
    assert_eq!(up.ask("acme--try", "DELETE FROM t RETURNING 1").await?.lines().count(), 1000);
    assert_eq!(up.ask("acme", "SELECT count(*) FROM t").await?, "1000");
    let none = up.ask("acme--none", "SELECT 1").await.err().context("there is no such branch")?;
    assert!(none.to_string().contains("endpoint \"acme--none\" does not exist"), "{none}");

    // A client that is connected and says nothing is a client.
    let idler = up.psql("acme", None)?;
    eventually("the client is in", PATIENCE, async || {
        let count =
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'";
        ensure!(up.ask("acme", count).await? == "1", "it is not");
        Ok(())
    })
    .await?;
    up.stays("acme", "a client").await?;
    drop(idler);
    up.is_suspended("acme").await?;
    assert!(up.process.stop()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn work_without_a_client_of_the_proxy_keeps_a_compute_awake() -> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = Up::start()?;
    up.tenant("acme").await?;
    let compute = up.api.start("acme", "main").await?;
    let direct = Database::connect(compute.port).await?;
    up.stays("acme", "a session on its own port").await?;
    drop(direct);
    up.is_suspended("acme").await?;
    assert!(up.process.stop()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_before_a_sleeping_database_makes_one_start_and_all_get_in() -> anyhow::Result<()> {
    const CROWD: usize = 200;
    let _turn = turn().await;
    let mut up = Up::start()?;
    up.tenant("acme").await?;
    let starts = |text: &str| -> anyhow::Result<u32> {
        let name = "offshoot_control_plane_start_seconds_count ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.context("the metric")?.parse()?)
    };
    let before = starts(&up.api.metrics(up.api.control_plane).await?)?;
    let crowd: Vec<Child> =
        (0..CROWD).map(|_| up.psql("acme", Some("SELECT 42"))).collect::<anyhow::Result<_>>()?;
    for (number, client) in crowd.into_iter().enumerate() {
        assert_eq!(said(client).await.with_context(|| format!("client {number}"))?, "42");
    }
    let after = starts(&up.api.metrics(up.api.control_plane).await?)?;
    assert_eq!(after - before, 1, "the crowd made more than one start");

    // A compute that dies is started again for the next client.
    let pid = up.api.compute("acme", "main").await?.pid.context("it runs")?;
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().await?;
    assert!(status.success());
    assert_eq!(up.ask("acme", "SELECT 43").await?, "43");
    assert!(up.process.stop()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_asks_at_once_for_the_pages_that_the_one_before_read() -> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = Up::start()?;
    // Starts for the first time: it finds no list, or one that others left.
    up.tenant("acme").await?;
    let requests = async |kind: &str| -> anyhow::Result<u32> {
        let name = format!("offshoot_pageserver_page_request_seconds_count{{request=\"{kind}\"}} ");
        let metrics = up.api.metrics(up.api.pageserver).await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        Ok(line.map_or(Ok(0), str::parse)?)
    };
    // One that lives long enough to leave a list.
    assert_eq!(up.ask("acme", "SELECT 42").await?, "42");
    up.is_suspended("acme").await?;
    let (ranges, batches) = (requests("range").await?, requests("batch").await?);
    assert_eq!(up.ask("acme", "SELECT 43").await?, "43");
    let batches = requests("batch").await? - batches;
    let ranges = requests("range").await? - ranges;
    assert!(batches > 0, "nothing was asked for early");
    assert!(ranges <= 10, "{ranges} requests beside {batches}");
    assert!(up.process.stop()?.success());
    Ok(())
}
