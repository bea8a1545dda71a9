//! A pageserver on a temporary object store, and what surrounds it.

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Once},
    time::Duration,
};

use access::{Bearer, Guard};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use pageserver::{CacheConfig, Config, HeadSource, Limits, Pageserver};
use parking_lot::Mutex;
use protocol::{TenantTimeline, Term, TimelineOrigin};
use redo_oracle::cluster::Cluster;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use wal_format::{ControlFile, Fork, Lsn, Relation, RelationFork};

use crate::{
    page_client::PageClient,
    wal_server::{Served, WalServer},
};

/// `pg_class` of the database `postgres`.
pub const PG_CLASS: RelationFork = RelationFork {
    relation: Relation { tablespace: 1663, database: 5, number: 1259 },
    fork: Fork::Main,
};

/// Where the quorum is said to stand; a timeline that is not set stands at its origin.
#[derive(Default)]
pub struct Heads(pub Mutex<std::collections::HashMap<TenantTimeline, Result<Lsn, String>>>);

#[async_trait]
impl HeadSource for Heads {
    async fn settled_head(
        &self,
        timeline: TenantTimeline,
        origin: TimelineOrigin,
    ) -> Result<Lsn, String> {
        self.0.lock().get(&timeline).cloned().unwrap_or(Ok(origin.point.lsn))
    }
}

pub struct World {
    store: TempDir,
    server: Option<Pageserver>,
    /// A safekeeper that is asked before the one that has it all.
    pub lagging: WalServer,
    pub wal: WalServer,
    pub heads: Arc<Heads>,
    /// What the pageserver is started with.
    pub cache: CacheConfig,
    pub limits: Limits,
    http: reqwest::Client,
}

/// The log goes to the test's output.
fn log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
    });
}

impl World {
    pub async fn new() -> Result<World> {
        World::with_cache(CacheConfig { memory_bytes: 64 << 20, disk: None }).await
    }

    pub async fn with_cache(cache: CacheConfig) -> Result<World> {
        log();
        let mut world = World {
            store: tempfile::Builder::new().prefix("pageserver-test").tempdir()?,
            server: None,
            lagging: WalServer::start().await?,
            wal: WalServer::start().await?,
            heads: Arc::default(),
            cache,
            limits: Limits::default(),
            http: reqwest::Client::new(),
        };
        world.start().await?;
        Ok(world)
    }

    /// Starts the pageserver again, on the same store, after it was stopped.
    pub async fn restart(&mut self) -> Result<()> {
        self.server().context("it runs")?;
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
        self.start().await
    }

    async fn start(&mut self) -> Result<()> {
        let folder = self.store.path().to_str().context("a plain name")?;
        // The first safekeeper is down.
        let down = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = Config {
            name: "pageserver".to_owned(),
            store: pageserver::store::open(folder).await?,
            page_listen: "127.0.0.1:0".parse()?,
            http_listen: "127.0.0.1:0".parse()?,
            safekeepers: vec![down, self.lagging.address, self.wal.address],
            head: self.heads.clone(),
            guard: Guard::open(),
            bearer: Bearer::nobody(),
            certificate: None,
            cache: self.cache.clone(),
            limits: self.limits.clone(),
        };
        self.server = Some(Pageserver::start(config).await?);
        Ok(())
    }

    /// The pageserver is stopped; what it left is in the store's folder.
    pub async fn stop(mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    /// The store's folder.
    pub fn store(&self) -> &Path {
        self.store.path()
    }

    fn server(&self) -> Option<&Pageserver> {
        self.server.as_ref()
    }

    pub fn page_addr(&self) -> SocketAddr {
        self.server().expect("the pageserver runs").page_addr()
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.server().expect("the pageserver runs").http_addr()
    }

    /// A request to the admin API; its status and body.
    pub async fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value)> {
        let body = body.map(|body| body.to_string());
        self.api_raw(method, path, body.as_deref()).await
    }

    /// The same with a body that may be no JSON.
    pub async fn api_raw(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> Result<(StatusCode, Value)> {
        let address = self.server().context("the pageserver runs")?.http_addr();
        let mut request = self.http.request(method, format!("http://{address}{path}"));
        if let Some(body) = body {
            request = request.body(body.to_owned());
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
        Ok((status, body))
    }

    /// A request that must succeed.
    pub async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.api(method.clone(), path, body).await?;
        ensure!(status.is_success(), "{method} {path}: {status} {answer}");
        Ok(answer)
    }

    /// A request that must fail so; its message.
    pub async fn refused(
        &self,
        (method, path): (Method, &str),
        body: Option<Value>,
        status: u16,
        code: &str,
    ) -> Result<String> {
        let (found, answer) = self.api(method.clone(), path, body).await?;
        ensure!(
            found.as_u16() == status && answer["code"] == code,
            "{method} {path}: {found} {answer} instead of {status} {code}"
        );
        let message = answer["message"].as_str().context("an error has a sentence")?;
        Ok(message.to_owned())
    }

    /// Imports a stopped data directory.
    pub async fn import(&self, name: &str, pgdata: &Path) -> Result<Value> {
        let body = json!({ "name": name, "pgdata": pgdata });
        self.ok(Method::POST, "/v1/templates", Some(body)).await
    }

    /// A tenant of a template, and the timeline of its first branch.
    pub async fn tenant(&self, name: &str, template: &str) -> Result<TenantTimeline> {
        let body = json!({ "name": name, "template": template });
        let tenant = self.ok(Method::POST, "/v1/tenants", Some(body)).await?;
        let timeline = &tenant["branches"][0]["timeline_id"];
        Ok(TenantTimeline {
            tenant: serde_json::from_value(tenant["id"].clone())?,
            timeline: serde_json::from_value(timeline.clone())?,
        })
    }

    /// A connection of a reader, or of a compute with a term, that is not refused.
    pub async fn connect(&self, timeline: TenantTimeline, term: Option<u64>) -> Result<PageClient> {
        let connected = PageClient::connect(self.page_addr(), timeline, term.map(Term)).await?;
        Ok(connected?)
    }

    /// Serves the WAL of a stopped cluster up to its end as the timeline's; that end.
    pub fn serve_wal(&self, timeline: TenantTimeline, cluster: &Cluster) -> Result<Lsn> {
        let end = wal_end(&cluster.data())?;
        self.serve_wal_until(timeline, cluster, end);
        Ok(end)
    }

    pub fn serve_wal_until(&self, timeline: TenantTimeline, cluster: &Cluster, end: Lsn) {
        let wal = cluster.data().join("pg_wal");
        let served = Served { wal, commit_lsn: end, term: Term(1), damaged_at: None };
        self.wal.serve(timeline, served);
        self.heads.0.lock().insert(timeline, Ok(end));
    }

    /// Asks until the answer is so, for at most two minutes.
    pub async fn eventually(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut answer = Value::Null;
        for _ in 0..1200 {
            answer = self.ok(Method::GET, path, None).await?;
            if is_so(&answer) {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("{path} stayed {answer}")
    }
}

/// Whether a status has a timeline that is so.
pub fn any_timeline(status: &Value, is_it: impl Fn(&Value) -> bool) -> bool {
    status["timelines"].as_array().is_some_and(|all| all.iter().any(is_it))
}

/// The control file of a stopped cluster.
pub fn control_file(data: &Path) -> Result<ControlFile> {
    Ok(ControlFile::decode(&fs::read(data.join("global/pg_control"))?)?)
}

/// The end of a stopped cluster's WAL: of its shutdown checkpoint, of 114 bytes.
pub fn wal_end(data: &Path) -> Result<Lsn> {
    const RECORD_BYTES: u64 = 114;
    const SHORT_HEADER: u64 = 24;
    let start = control_file(data)?.checkpoint;
    let mut end = start + RECORD_BYTES;
    if end.page_start() != start.page_start() && end.page_offset() != 0 {
        ensure!(end.segment_offset(16 << 20) >= 8192, "it crosses into another segment");
        end += SHORT_HEADER;
    }
    Ok(end.max_align())
}

/// Gives a stopped cluster data checksums.
pub fn enable_checksums(cluster: &Cluster) -> Result<()> {
    let owner = fs::metadata(cluster.data())?;
    let status = Command::new("/usr/lib/postgresql/15/bin/pg_checksums")
        .args(["--enable", "-D"])
        .arg(cluster.data())
        .current_dir("/")
        .stdout(Stdio::null())
        .uid(owner.uid())
        .gid(owner.gid())
        .status()?;
    ensure!(status.success(), "pg_checksums: {status}");
    Ok(())
}

/// Kills a cluster's server; its other processes end by themselves.
pub fn kill(cluster: &Cluster) -> Result<()> {
    let pid = fs::read_to_string(cluster.data().join("postmaster.pid"))?;
    let pid = pid.lines().next().context("a process id")?.to_owned();
    let status = Command::new("kill").args(["-9", &pid]).status()?;
    ensure!(status.success(), "kill: {status}");
    while Path::new("/proc").join(&pid).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A folder beside a cluster's data directory that its server may write to.
pub fn folder_beside(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    let owner = fs::metadata(cluster.data())?;
    let folder = cluster.data().with_file_name(name);
    fs::create_dir(&folder)?;
    std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid()))?;
    Ok(folder)
}
