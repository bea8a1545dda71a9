//! A pageserver in a process of its own: this program once more.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use access::{Bearer, Guard};
use anyhow::{Context, ensure};
use async_trait::async_trait;
use pageserver::{CacheConfig, Config, HeadSource, Limits, Pageserver};
use protocol::{TenantTimeline, TimelineOrigin};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
};
use wal_format::Lsn;

use crate::store::TEMPLATE;

/// The cache's part of the process' memory: nothing is read here that would fill it.
const CACHE_BYTES: u64 = 64 << 20;
/// Tenants of a page, as many as the control plane asks for.
const PAGE: usize = 256;
/// Numbers of tenants that are created here.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Serves this store, and surveys it whenever a line comes, until there are no more.
pub async fn serve(store: &Path, name: String) -> anyhow::Result<()> {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config {
        store: pageserver::store::open(store.to_str().context("the folder has a name")?).await?,
        name,
        page_listen: anywhere,
        http_listen: anywhere,
        safekeepers: Vec::new(),
        head: Arc::new(NoHead),
        guard: Guard::open(),
        bearer: Bearer::nobody(),
        certificate: None,
        cache: CacheConfig { memory_bytes: CACHE_BYTES, disk: None },
        limits: Limits::default(),
    };
    let pageserver = Pageserver::start(config).await?;
    println!("{}", pageserver.http_addr());
    let next_line = || std::io::stdin().lines().next();
    while tokio::task::spawn_blocking(next_line).await?.is_some() {
        let clock = pageserver::clock::now;
        println!("{}", pageserver.tenants().survey(clock, Duration::ZERO).await?);
    }
    Ok(())
}

/// No branch is made at its parent's head.
struct NoHead;

#[async_trait]
impl HeadSource for NoHead {
    async fn settled_head(&self, _: TenantTimeline, _: TimelineOrigin) -> Result<Lsn, String> {
        Err("there are no safekeepers".to_owned())
    }
}

/// Such a process; it ends with this value.
pub struct Server {
    child: Child,
    pid: u32,
    url: String,
    says: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    http: reqwest::Client,
}

impl Server {
    /// Starts it, and waits until it answers.
    pub async fn start(store: &Path, name: &str) -> anyhow::Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(store)
            .args(["--name", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().context("it runs")?;
        let stdin = child.stdin.take().context("it hears")?;
        let mut lines = BufReader::new(child.stdout.take().context("it speaks")?).lines();
        let address = lines.next_line().await?.context("it says where it is")?;
        let url = format!("http://{address}/v1");
        let server =
            Server { child, pid, url, says: Mutex::new((stdin, lines)), http: Default::default() };
        let status = server.http.get(format!("{}/status", server.url)).send().await?;
        ensure!(status.status().is_success(), "its status is {}", status.status());
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Has it survey everything once.
    pub async fn survey(&self) -> anyhow::Result<()> {
        let (stdin, lines) = &mut *self.says.lock().await;
        stdin.write_all(b"survey\n").await?;
        let worked_on = lines.next_line().await?.context("it ended")?;
        ensure!(worked_on == "0", "{worked_on} timelines had something to do");
        Ok(())
    }

    /// Creates a tenant; how long that took, in milliseconds.
    pub async fn create(&self) -> anyhow::Result<f64> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("new-{}-{number}", self.pid);
        let body = json!({ "name": name, "template": TEMPLATE });
        let began = Instant::now();
        let response = self.http.post(format!("{}/tenants", self.url)).json(&body).send().await?;
        let status = response.status();
        let answer = response.text().await?;
        let took_ms = began.elapsed().as_secs_f64() * 1e3;
        ensure!(status.is_success(), "{status}: {answer}");
        Ok(took_ms)
    }

    /// Asks for the usage of all tenants, as the control plane does, or of what changed since; as of
    /// when that is. There must be so many at least.
    pub async fn sweep(
        &self,
        since: Option<String>,
        at_least: usize,
    ) -> anyhow::Result<Option<String>> {
        let (mut after, mut found) = (String::new(), 0);
        let mut times = Vec::new();
        let mut as_of: Option<String> = None;
        loop {
            let since = since.as_ref().map(|since| format!("&since={since}")).unwrap_or_default();
            let url = format!("{}/usage?served=true&limit={PAGE}&after={after}{since}", self.url);
            let began = Instant::now();
            let response = self.http.get(url).send().await?.error_for_status()?;
            let page: Value = response.json().await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            found += page["tenants"].as_array().context("a list")?.len();
            as_of = as_of.or(page["as_of"].as_str().map(str::to_owned));
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        crate::say("a page of usage", &times);
        ensure!(found >= at_least, "{found} tenants were told of, of {at_least}");
        Ok(as_of)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it has not written is nothing that anybody reads.
        let _ended = self.child.start_kill();
    }
}
