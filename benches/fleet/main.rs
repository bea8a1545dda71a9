//! What do 300,000 databases cost that nobody uses? `cargo bench --bench fleet`. The last line is one
//! JSON object.
//!
//! A store has so many tenants, branches of one template, of which every tenth has written. The engine
//! makes them in this process, without waiting for the disk. Then pageservers are started on it, each a
//! process of its own, and each is measured: its start; a survey of all timelines, as fast as it goes and
//! not over six hours, and what that does to those who create tenants meanwhile; the same by a pageserver
//! that owns none of them; what the control plane asks for at its start and each hour, the usage of all;
//! and doing nothing.
//!
//! `--quick` makes fewer. `--store FOLDER` makes the store there, where it is not yet, and leaves it.

#[path = "../figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

mod server;
mod store;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use figures::{cpu_seconds, percentile, round, say, say_yardstick};
use serde_json::json;
use server::Server;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tenants.
    tenants: usize,
    /// Tenants that are created while nothing else goes on.
    creates: usize,
    /// How long nothing is done.
    idle: Duration,
}

const FULL: Settings = Settings { tenants: 300_000, creates: 500, idle: Duration::from_secs(60) };
const QUICK: Settings = Settings { tenants: 20_000, creates: 200, idle: Duration::from_secs(10) };

/// How far apart tenants are created while a survey runs.
const CREATE_EVERY: Duration = Duration::from_millis(20);
/// Objects of the yardstick.
const YARDSTICK: usize = 200;
/// A pageserver that owns none of the tenants.
const STRANGER: &str = "stranger";

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match argument("--serve") {
        Some(store) => {
            let name = argument("--name").unwrap_or(pageserver::NAME_DEFAULT.to_owned());
            runtime.block_on(server::serve(Path::new(&store), name))
        }
        None => runtime.block_on(measure(figures::chosen(FULL, QUICK))),
    }
}

/// What follows this word on the command line.
fn argument(word: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != word);
    arguments.nth(1)
}

async fn measure(settings: Settings) -> anyhow::Result<()> {
    say_yardstick(YARDSTICK)?;
    let temporary = tempfile::tempdir()?;
    let folder = argument("--store").map_or(temporary.path().join("store"), PathBuf::from);
    let made_bytes = match folder.exists() {
        true => None,
        false => {
            let before = memory_bytes(std::process::id())?;
            let began = Instant::now();
            store::make(&folder, settings.tenants).await?;
            let bytes = memory_bytes(std::process::id())?.saturating_sub(before);
            let seconds = round(began.elapsed().as_secs_f64());
            println!("{}", json!({ "what": "the store was made", "s": seconds }));
            Some(bytes / settings.tenants as u64)
        }
    };

    let surveyed = survey(&folder, settings).await?;
    let strange = Server::start(&folder, STRANGER).await?;
    let foreign = Work::begin(&strange)?;
    strange.survey().await?;
    let foreign = foreign.end(&strange, settings)?;
    println!("{}", foreign.json("a survey by a pageserver that owns none"));
    drop(strange);

    let server = Server::start(&folder, pageserver::NAME_DEFAULT).await?;
    let first = Work::begin(&server)?;
    let as_of = server.sweep(None, settings.tenants).await?;
    let first = first.end(&server, settings)?;
    println!("{}", first.json("the usage of all, for the first time"));
    let again = Work::begin(&server)?;
    server.sweep(as_of, 0).await?;
    let again = again.end(&server, settings)?;
    println!("{}", again.json("the usage of all an hour later"));
    let idle = Work::begin(&server)?;
    tokio::time::sleep(settings.idle).await;
    let idle = idle.end(&server, settings)?;
    println!("{}", idle.json("nothing"));

    println!(
        "{}",
        json!({
            "tenants": settings.tenants,
            "made_bytes_per_tenant": made_bytes,
            "start_s": round(surveyed.start_s),
            "survey_s": round(surveyed.work.seconds),
            "survey_cpu_s": round(surveyed.work.cpu_seconds),
            "survey_bytes_per_tenant": surveyed.work.bytes_per_tenant,
            "survey_of_others_cpu_s": round(foreign.cpu_seconds),
            "create_p99_ms": round(percentile(&surveyed.alone_ms, 0.99)),
            "create_during_survey_p99_ms": round(percentile(&surveyed.during_ms, 0.99)),
            "sweep_s": round(first.seconds),
            "sweep_cpu_s": round(first.cpu_seconds),
            "sweep_bytes_per_tenant": first.bytes_per_tenant,
            "next_sweep_s": round(again.seconds),
            "next_sweep_cpu_s": round(again.cpu_seconds),
            "idle_cpu_s": round(idle.cpu_seconds),
        })
    );
    Ok(())
}

/// What a survey by the tenants' owner took.
struct Surveyed {
    start_s: f64,
    work: Work<f64>,
    alone_ms: Vec<f64>,
    during_ms: Vec<f64>,
}

async fn survey(folder: &Path, settings: Settings) -> anyhow::Result<Surveyed> {
    let began = Instant::now();
    let server = Server::start(folder, pageserver::NAME_DEFAULT).await?;
    let start_s = began.elapsed().as_secs_f64();
    println!("{}", json!({ "what": "a start, until it answers", "s": round(start_s) }));

    let mut alone_ms = Vec::new();
    for _ in 0..settings.creates {
        alone_ms.push(server.create().await?);
    }
    say("POST /v1/tenants", &alone_ms);
    let mut during_ms = Vec::new();
    let work = Work::begin(&server)?;
    let mut survey = std::pin::pin!(server.survey());
    loop {
        tokio::select! {
            surveyed = &mut survey => break surveyed?,
            () = tokio::time::sleep(CREATE_EVERY) => {}
        }
        // Not within the select: a request that is dropped half way is not measured.
        during_ms.push(server.create().await?);
    }
    let work = work.end(&server, settings)?;
    say("POST /v1/tenants during a survey", &during_ms);
    println!("{}", work.json("a survey"));
    Ok(Surveyed { start_s, work, alone_ms, during_ms })
}

/// What a pageserver did between two moments; `T` says when it began, then for how many seconds.
struct Work<T> {
    seconds: T,
    cpu_seconds: f64,
    bytes: u64,
    bytes_per_tenant: u64,
}

impl Work<Instant> {
    fn begin(server: &Server) -> anyhow::Result<Work<Instant>> {
        Ok(Work {
            seconds: Instant::now(),
            cpu_seconds: cpu_seconds(server.pid())?,
            bytes: memory_bytes(server.pid())?,
            bytes_per_tenant: 0,
        })
    }

    fn end(self, server: &Server, settings: Settings) -> anyhow::Result<Work<f64>> {
        let bytes = memory_bytes(server.pid())?;
        Ok(Work {
            seconds: self.seconds.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds(server.pid())? - self.cpu_seconds,
            bytes,
            bytes_per_tenant: bytes.saturating_sub(self.bytes) / settings.tenants as u64,
        })
    }
}

impl Work<f64> {
    fn json(&self, what: &str) -> serde_json::Value {
        json!({
            "what": what,
            "s": round(self.seconds),
            "cpu_s": round(self.cpu_seconds),
            "memory_mib": self.bytes >> 20,
            "bytes_per_tenant": self.bytes_per_tenant,
        })
    }
}

/// What of a process is in memory.
fn memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let resident = pages.split(' ').nth(1).unwrap_or_default();
    Ok(resident.parse::<u64>()? * 4096)
}
