//! What projects use, against what the wire, the clock and Postgres say; and quotas, which end it.

mod branches;

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use access::Bearer;
use anyhow::{Context, ensure};
use parking_lot::Mutex;
use protocol::TenantTimeline;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_postgres::{Client, NoTls, error::SqlState};
use wal_format::Lsn;

use crate::harness::{
    Management, PATIENCE, Process, eventually, folder, free_port, safekeeper_status, turn,
    up_arguments,
};

/// `offshoot up` whose proxy does without TLS, so that what it sends can be read.
pub struct Up {
    arguments: Vec<String>,
    pub process: Process,
    ready: Value,
    pub api: Management,
    pub folder: tempfile::TempDir,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// A project, and how it is connected to.
pub struct Project {
    pub id: String,
    pub password: String,
}

impl Up {
    pub async fn start() -> anyhow::Result<Up> {
        let turn = turn().await;
        let folder = folder()?;
        let mut arguments = up_arguments(&folder.path().join("data"));
        let proxy = format!("127.0.0.1:{}", free_port());
        arguments.extend(["--proxy", &proxy, "--allow-plain"].map(str::to_owned));
        let (process, ready) = spawn(&arguments, folder.path())?;
        let api = api_of(&ready)?;
        Ok(Up { arguments, process, ready, api, folder, _turn: turn })
    }

    /// Starts it on what the one before left.
    fn again(&mut self) -> anyhow::Result<()> {
        (self.process, self.ready) = spawn(&self.arguments, self.folder.path())?;
        self.api = api_of(&self.ready)?;
        Ok(())
    }

    pub fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        address(&self.ready, name)
    }

    pub async fn project(&self, settings: Value) -> anyhow::Result<Project> {
        let body = json!({ "project": settings });
        let made = self.api.post("projects", body).await?;
        let text = |at: &str| made.pointer(at).and_then(Value::as_str).map(str::to_owned);
        Ok(Project {
            id: text("/project/id").context("no id")?,
            password: text("/roles/0/password").context("no password")?,
        })
    }

    async fn set_quota(&self, project: &Project, quota: &str, bound: u64) -> anyhow::Result<()> {
        let body = json!({ "project": { "settings": { "quota": { quota: bound } } } });
        self.api.done(Method::PATCH, &format!("projects/{}", project.id), body).await.map(drop)
    }

    /// What a project used this month.
    pub async fn month(&self, project: &Project) -> anyhow::Result<Value> {
        self.frames(project, "monthly").await?.pop().context("this month is shown")
    }

    async fn frames(&self, project: &Project, granularity: &str) -> anyhow::Result<Vec<Value>> {
        let id = &project.id;
        let path =
            format!("consumption_history/projects?granularity={granularity}&project_ids={id}");
        let shown = self.api.get(&path).await?;
        let periods = shown["projects"][0]["periods"].as_array().cloned().unwrap_or_default();
        let frames = periods.iter().filter_map(|period| period["consumption"].as_array());
        Ok(frames.flatten().cloned().collect())
    }

    async fn endpoint(&self, project: &Project, id: &str) -> anyhow::Result<Value> {
        let path = format!("projects/{}/endpoints/{id}", project.id);
        Ok(self.api.get(&path).await?["endpoint"].clone())
    }

    pub async fn is_idle(&self, project: &Project) -> anyhow::Result<Value> {
        self.is_suspended(project, &format!("ep-{}", project.id)).await
    }

    async fn is_suspended(&self, project: &Project, id: &str) -> anyhow::Result<Value> {
        eventually("the endpoint is suspended", PATIENCE, async || {
            let endpoint = self.endpoint(project, id).await?;
            ensure!(endpoint["current_state"] == "idle", "{endpoint}");
            Ok(endpoint)
        })
        .await
    }

    /// How many bytes of WAL a safekeeper has of a project's first timeline, since it began.
    async fn written(&self, project: &Project) -> anyhow::Result<u64> {
        self.written_on(project, "main").await
    }

    /// The same of any of its timelines.
    async fn written_on(&self, project: &Project, timeline: &str) -> anyhow::Result<u64> {
        let at = self.address("pageserver_http")?;
        let url = format!("http://{at}/v1/tenants/{}/branches/{timeline}", project.id);
        let file = self.ready["token_file"].as_str().context("the token's file")?;
        let token = Bearer::file(file.into()).token().context("a token")?;
        let asked = reqwest::Client::new().get(url).bearer_auth(token.secret()).send().await?;
        let branch: Value = asked.error_for_status()?.json().await?;
        let text = |name: &str| branch[name].as_str().context("a branch has ids and an LSN");
        let tenant = text("tenant_id")?.parse()?;
        let timeline = TenantTimeline { tenant, timeline: text("timeline_id")?.parse()? };
        let begin: Lsn = text("branch_point")?.parse()?;
        let safekeeper = self.ready["safekeepers"][0].as_str().context("an address")?.parse()?;
        Ok(safekeeper_status(safekeeper, timeline, Some(token)).await?.flush_lsn.0 - begin.0)
    }

    /// Connects by way of `at`.
    async fn connect(
        &self,
        project: &Project,
        at: SocketAddr,
    ) -> Result<Client, tokio_postgres::Error> {
        self.connect_to(project, &format!("endpoint=ep-{}", project.id), at).await
    }

    /// Connects to what these options name.
    async fn connect_to(
        &self,
        project: &Project,
        options: &str,
        at: SocketAddr,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host(at.ip().to_string()).port(at.port()).dbname("app").user("app");
        config.password(&project.password).options(options);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn connect_to_proxy(&self, project: &Project) -> anyhow::Result<Client> {
        Ok(self.connect(project, self.address("proxy")?).await?)
    }
}

fn address(ready: &Value, name: &str) -> anyhow::Result<SocketAddr> {
    Ok(ready[name].as_str().context("an address")?.parse()?)
}

fn api_of(ready: &Value) -> anyhow::Result<Management> {
    let key_file = ready["api_key_file"].as_str().context("no key")?;
    Management::new(address(ready, "control_plane")?, Path::new(key_file))
}

fn spawn(arguments: &[String], folder: &Path) -> anyhow::Result<(Process, Value)> {
    let mut process = Process::spawn(arguments, &folder.join("up.log"))?;
    let ready = serde_json::from_str(&process.wait_for_line("\"ready\"")?)?;
    Ok((process, ready))
}

/// What clients were sent, each connection by itself.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<Vec<u8>>>>);

impl Wire {
    /// Listens, and passes what comes on to an address.
    async fn before(&self, to: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let sent = self.0.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(to).await else { continue };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _passed = tokio::io::copy(&mut from_client, &mut to_server).await;
                    let _told = to_server.shutdown().await;
                });
                let number = {
                    let mut sent = sent.lock();
                    sent.push(Vec::new());
                    sent.len() - 1
                };
                let sent = sent.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                        sent.lock()[number].extend_from_slice(&buffer[..count]);
                        if to_client.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok(at)
    }

    /// How many bytes of sessions there were.
    fn bytes(&self) -> u64 {
        self.0.lock().iter().map(|sent| in_session(sent)).sum()
    }
}

/// How many bytes a client was sent, but for the proof that it knows its password.
pub fn in_session(sent: &[u8]) -> u64 {
    let mut rest = sent;
    while let [b'R' | b'v', a, b, c, d, ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        rest = rest.get(1 + length..).unwrap_or_default();
    }
    rest.len() as u64
}

fn number(frame: &Value, field: &str) -> anyhow::Result<u64> {
    frame[field].as_u64().with_context(|| format!("{frame} has no {field}"))
}

fn is_within(seconds: u64, least: Duration, most: Duration) -> anyhow::Result<()> {
    let bounds = least.as_secs()..=most.as_secs();
    ensure!(bounds.contains(&seconds), "{seconds} s, by the clock {bounds:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn consumption_is_what_the_wire_the_clock_and_the_safekeepers_say_also_after_a_kill()
-> anyhow::Result<()> {
    let mut up = Up::start().await?;
    let settings = json!({ "suspend_timeout_seconds": -1, "autoscaling_limit_max_cu": 2 });
    let project = up.project(json!({ "default_endpoint_settings": settings })).await?;
    let wire = Wire::default();
    let at = wire.before(up.address("proxy")?).await?;

    let asked = Instant::now();
    let client = up.connect(&project, at).await?;
    let connected = Instant::now();
    client
        .batch_execute(
            "CREATE TABLE t AS SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n",
        )
        .await?;
    client.query("SELECT * FROM t", &[]).await?;
    // Whole seconds of it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(client);
    let least = connected.elapsed();
    let path = format!("projects/{0}/endpoints/ep-{0}/suspend", project.id);
    up.api.post(&path, Value::Null).await?;
    up.is_idle(&project).await?;
    let most = asked.elapsed();

    let used = eventually("all is counted", PATIENCE, async || {
        let used = up.month(&project).await?;
        let written = number(&used, "written_data_bytes")?;
        ensure!(written == up.written(&project).await?, "not all WAL is counted: {used}");
        let sent = number(&used, "data_transfer_bytes")?;
        ensure!(sent == wire.bytes(), "{sent} bytes were counted, {} sent", wire.bytes());
        ensure!(sent > 20_000 * 100, "{sent} bytes are less than the rows");
        is_within(number(&used, "active_time_seconds")?, least, most)?;
        is_within(number(&used, "compute_time_seconds")?, 2 * least, 2 * most)?;
        Ok(used)
    })
    .await?;
    let counted = ["active_time_seconds", "compute_time_seconds", "written_data_bytes"];
    for granularity in ["hourly", "daily"] {
        let frames = up.frames(&project, granularity).await?;
        for field in counted.into_iter().chain(["data_transfer_bytes"]) {
            let sum: u64 = frames.iter().filter_map(|frame| frame[field].as_u64()).sum();
            ensure!(sum == number(&used, field)?, "{field} {granularity}: {sum}, {used}");
        }
    }
    let path = format!("projects/{}", project.id);
    let shown = up.api.get(&path).await?["project"].clone();
    for field in counted.into_iter().chain(["data_transfer_bytes"]) {
        ensure!(shown[field] == used[field], "{field}: {shown}");
    }
    // Its one branch used it all.
    let id = format!("br-{}", project.id);
    let shown = up.branch(&project, &id).await?;
    for field in counted.into_iter().chain(["data_transfer_bytes"]) {
        ensure!(shown[field] == used[field], "{field}: {shown}");
    }

    // A stop and a start change nothing.
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    up.again()?;
    let after = up.month(&project).await?;
    for field in counted.into_iter().chain(["data_transfer_bytes"]) {
        ensure!(after[field] == used[field], "{after} after a stop, {used} before");
    }
    branches::is_the_same(&up.branch(&project, &id).await?, &shown)?;

    // Killed in the middle: what was not written down yet is not counted, and nothing twice.
    let began = Instant::now();
    let client = up.connect(&project, at).await?;
    client.query("SELECT * FROM t", &[]).await?;
    client.batch_execute("INSERT INTO t SELECT * FROM t LIMIT 100").await?;
    let before_kill = eventually("some of it is written down", PATIENCE, async || {
        let now = up.month(&project).await?;
        ensure!(number(&now, "active_time_seconds")? > number(&used, "active_time_seconds")?);
        ensure!(number(&now, "data_transfer_bytes")? == wire.bytes());
        Ok(now)
    })
    .await?;
    up.process.kill();
    let lasted = began.elapsed();
    drop(client);
    up.again()?;
    let client = up.connect_to_proxy(&project).await?;
    client.batch_execute("INSERT INTO t VALUES (0, '')").await?;
    let after = eventually("the WAL is counted", PATIENCE, async || {
        let row = client.query_one("SELECT (pg_current_wal_flush_lsn() - '0/0')::float8", &[]);
        let _position: f64 = row.await?.get(0);
        let written = up.written(&project).await?;
        let after = up.month(&project).await?;
        ensure!(written == up.written(&project).await?, "more is written meanwhile");
        ensure!(number(&after, "written_data_bytes")? == written, "{after}, {written} written");
        let shown = up.branch(&project, &id).await?;
        ensure!(shown["written_data_bytes"] == written, "{shown}, {written} written");
        Ok(after)
    })
    .await?;
    ensure!(number(&after, "data_transfer_bytes")? >= number(&before_kill, "data_transfer_bytes")?);
    let seconds = number(&after, "active_time_seconds")? - number(&used, "active_time_seconds")?;
    let most = lasted + began.elapsed();
    ensure!(seconds <= most.as_secs(), "{seconds} s are counted of at most {most:?}");
    drop(client);
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}

/// A client is refused because of a quota, in words and by code.
async fn is_refused(up: &Up, project: &Project, quota: &str) -> anyhow::Result<()> {
    let refused = match up.connect(project, up.address("proxy")?).await {
        Ok(_) => anyhow::bail!("a client was let in above the quota {quota}"),
        Err(error) => error,
    };
    let said = refused.as_db_error().context("the proxy says why")?;
    ensure!(*said.code() == SqlState::CONFIGURATION_LIMIT_EXCEEDED, "{said:?}");
    ensure!(said.message().contains(quota), "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_quota_ends_the_sessions_of_who_used_it_up_says_so_and_lets_in_who_may_use_more()
-> anyhow::Result<()> {
    let mut up = Up::start().await?;
    let settings = json!({ "suspend_timeout_seconds": -1, "autoscaling_limit_max_cu": 4 });
    let project = up.project(json!({ "default_endpoint_settings": settings })).await?;
    let other = up.project(json!({})).await?;
    let other_client = up.connect_to_proxy(&other).await?;
    // The start is used already, so each bound is above what there is by what its work needs.
    let cases = [
        ("active_time_seconds", 3, "SELECT pg_sleep(600)"),
        ("compute_time_seconds", 12, "SELECT pg_sleep(600)"),
        (
            "written_data_bytes",
            20 << 20,
            "DO $$ BEGIN LOOP INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000); \
             DELETE FROM t; COMMIT; END LOOP; END $$",
        ),
        ("data_transfer_bytes", 5 << 20, "SELECT repeat('x', 1000) FROM generate_series(1, 2000)"),
        (
            "logical_size_bytes",
            30 << 20,
            "DO $$ BEGIN LOOP INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000); \
             COMMIT; END LOOP; END $$",
        ),
    ];
    for (quota, more, work) in cases {
        let client = up.connect_to_proxy(&project).await?;
        client.batch_execute("CREATE TABLE IF NOT EXISTS t (x text)").await?;
        let used = up.month(&project).await?;
        up.set_quota(&project, quota, number(&used, quota)? + more).await?;
        // It is at work until it is ended.
        while client.simple_query(work).await.is_ok() {}
        let endpoint = up.is_idle(&project).await?;
        let reason = endpoint["quota_exceeded"].as_str().context("it says why")?.to_owned();
        ensure!(reason.contains(quota), "{reason}");
        is_refused(&up, &project, quota).await?;

        let path = format!("projects/{}", project.id);
        let start = format!("{path}/endpoints/ep-{}/start", project.id);
        let (status, refused) = up.api.ask(Method::POST, &start, Value::Null).await?;
        let code = quota.replace("_seconds", "").replace("_bytes", "").to_uppercase();
        ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
        ensure!(refused["code"] == format!("{code}_QUOTA_EXCEEDED"), "{refused}");
        // It is written down after the compute has stopped.
        let operations = format!("{path}/operations?limit=5");
        eventually("an operation says why it was suspended", PATIENCE, async || {
            let operations = up.api.get(&operations).await?;
            let suspends = operations["operations"].as_array().into_iter().flatten();
            let said = suspends.filter(|it| it["action"] == "suspend_compute").any(|operation| {
                operation["error"].as_str().is_some_and(|error| error.contains(quota))
            });
            ensure!(said, "none does: {operations}");
            Ok(())
        })
        .await?;
        let shown = up.api.get(&path).await?["project"].clone();
        ensure!(shown["quota_states"][0]["exceeded"] == true, "{shown}");
        ensure!(shown["quota_states"][0]["quota"] == quota, "{shown}");

        // Also after a restart.
        if quota == "active_time_seconds" {
            ensure!(up.process.stop()?.success(), "{}", up.process.log());
            up.again()?;
            is_refused(&up, &project, quota).await?;
        }
        up.set_quota(&project, quota, 0).await?;
        up.connect_to_proxy(&project).await?;
    }
    drop(other_client);
    up.connect_to_proxy(&other).await?;
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}
