//! A pageserver on a local store, and what it takes to ingest a WAL.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use access::Bearer;
use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use protocol::TenantTimeline;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use wal_format::Lsn;

use crate::{
    figures::cpu_seconds,
    harness::{Api, Process, folder, free_port},
    page_client::PageClient,
    pages,
    stock_recovery::{Took, wal::Recorded},
    wal_service::WalService,
};

/// How often the pageserver is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take to get there.
const LONGEST: Duration = Duration::from_secs(600);
/// What `getrusage` counts blocks in.
const BLOCK_BYTES: f64 = 512.0;
/// The tenant that ingests; a new one in each round.
const TENANT: &str = "tenants/bench";

/// The pageserver's store and addresses. It runs only where it is measured or prepared.
pub struct Engine {
    folder: TempDir,
    api: Api,
    page_service: SocketAddr,
    wal_service: WalService,
    imported: usize,
}

/// What one ingest took, and what it made.
pub struct Ingested {
    pub took: Took,
    /// To files.
    pub written_bytes: f64,
    /// Of these, layers from ingest and from merges, as far as they were done before the stop.
    pub flushed_bytes: f64,
    pub merged_bytes: f64,
    /// Pages that were compared with the server's and are equal.
    pub pages_equal: usize,
}

impl Engine {
    pub fn new() -> Result<Engine> {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Ok(Engine {
            folder: folder()?,
            api: Api::new(address(), address(), Bearer::nobody()),
            page_service: address(),
            wal_service: WalService::start()?,
            imported: 0,
        })
    }

    /// Makes a template of the files before the WAL; its name.
    pub async fn import(&mut self, recorded: &Recorded) -> Result<String> {
        let mut pageserver = self.start()?;
        let name = format!("template-{}", self.imported);
        self.imported += 1;
        recorded.copy_with_wal(&recorded.scratch())?;
        let body = json!({ "name": name, "pgdata": recorded.scratch() });
        self.api.storage(Method::POST, "templates", Some(body)).await?;
        fs::remove_dir_all(recorded.scratch())?;
        stop(&mut pageserver)?;
        Ok(name)
    }

    /// Ingests the WAL into a new tenant, and sees to it that it is there after the next start.
    pub async fn ingest(&mut self, recorded: &Recorded, template: &str) -> Result<Ingested> {
        let mut pageserver = self.start()?;
        let body = json!({ "name": "bench", "template": template });
        let tenant = self.api.storage(Method::POST, "tenants", Some(body)).await?;
        let id = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let timeline = TenantTimeline {
            tenant: id(&tenant["id"]).parse()?,
            timeline: id(&tenant["branches"][0]["timeline_id"]).parse()?,
        };
        self.wal_service.hold(timeline, recorded)?;
        // Whose reader is there has its WAL ingested.
        let reader = PageClient::connect(self.page_service, timeline, None).await??;
        self.until_it(timeline, |status| status["ingest"]["state"] == "streaming").await?;

        let end = recorded.end()?;
        let before = Used::by(pageserver.pid())?;
        let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let began = Instant::now();
        self.wal_service.send_to(end);
        let status =
            self.until_it(timeline, |status| is_at(status, "last_record_lsn", end)).await?;
        drop(reader);
        stop(&mut pageserver)?;
        let seconds = began.elapsed().as_secs_f64();
        let used = Used::of(&getrusage(UsageWho::RUSAGE_CHILDREN)?);
        let used = used.since(&Used::of(&children)).since(&before);

        let mut pageserver = self.start()?;
        let pages_equal = pages::compare(self.page_service, timeline, recorded, end).await?;
        let branch = format!("{TENANT}/branches/main");
        let branch = self.api.storage(Method::GET, &branch, None).await?;
        ensure!(is_at(&branch, "last_record_lsn", end), "not all is durable: {branch}");
        self.api.storage(Method::DELETE, TENANT, None).await?;
        stop(&mut pageserver)?;
        let layers = |name: &str| {
            status["written_bytes"][name].as_f64().with_context(|| format!("{name} of {status}"))
        };
        Ok(Ingested {
            took: Took { seconds, cpu_seconds: used.cpu_seconds },
            written_bytes: used.written_bytes,
            flushed_bytes: layers("flushed")?,
            merged_bytes: layers("merged")?,
            pages_equal,
        })
    }

    fn start(&self) -> Result<Process> {
        let options = [
            ("--store", format!("file://{}", self.path("store").display())),
            ("--http", self.api.pageserver.to_string()),
            ("--listen", self.page_service.to_string()),
            ("--safekeepers", self.wal_service.address.to_string()),
        ];
        let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let arguments: Vec<String> =
            ["pageserver", "--no-auth"].map(str::to_owned).into_iter().chain(options).collect();
        let mut process = Process::spawn(&arguments, &self.path("pageserver.log"))?;
        process.wait_for_line(" on ")?;
        Ok(process)
    }

    /// The timeline's status once it is so.
    async fn until_it(
        &self,
        timeline: TenantTimeline,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + LONGEST;
        loop {
            ensure!(Instant::now() < deadline, "it is not so within {LONGEST:?}");
            if let Some(own) = self.api.timeline_status(timeline.timeline).await? {
                ensure!(own["ingest"]["state"] != "stopped", "ingest has stopped: {own}");
                if is_so(&own) {
                    return Ok(own);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn stop(process: &mut Process) -> Result<()> {
    let status = process.stop()?;
    ensure!(status.success(), "the pageserver ended with {status}:\n{}", process.log());
    Ok(())
}

fn is_at(status: &Value, name: &str, end: Lsn) -> bool {
    let at = status[name].as_str().and_then(|lsn| lsn.parse::<Lsn>().ok());
    at.is_some_and(|at| at >= end)
}

/// What a process used since it began.
struct Used {
    cpu_seconds: f64,
    written_bytes: f64,
}

impl Used {
    /// A running process.
    fn by(pid: u32) -> Result<Used> {
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(Used {
            cpu_seconds: cpu_seconds(pid)?,
            written_bytes: written.context("no write_bytes")?.trim().parse()?,
        })
    }

    /// Of processes that have ended.
    fn of(usage: &Usage) -> Used {
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Used {
            cpu_seconds: seconds(usage.user_time()) + seconds(usage.system_time()),
            written_bytes: usage.block_writes() as f64 * BLOCK_BYTES,
        }
    }

    fn since(&self, before: &Used) -> Used {
        Used {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}
