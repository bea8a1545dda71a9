//! How fast are projects created, and what do many of them cost? `cargo bench --bench api`, as root.
//! The last line is one JSON object.
//!
//! `POST /projects` of `offshoot up` with its object store on a local disk: 1,000 a second are offered
//! on 50 connections, whether the ones before are answered or not. A request's time counts from when it
//! was due, so one that waits for a connection is slow. Then, when the pageserver has the tenants of
//! all, the memory of all processes, and the time from a start to the first answer. Last, what the proxy
//! costs a select-only pgbench. `--quick` does less of all.

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use other parts of it")]
mod harness;

#[path = "figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

#[path = "cold_start/overhead.rs"]
mod overhead;
#[path = "cold_start/up.rs"]
#[allow(dead_code, reason = "cold_start uses other parts of it")]
mod up;

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use figures::{percentile, round, say, say_yardstick};
use harness::eventually;
use serde_json::{Value, json};
use up::Up;

/// Connections that requests go by.
const CONNECTIONS: usize = 50;
/// How far apart requests are due: 1,000 a second.
const EVERY: Duration = Duration::from_millis(1);
/// Objects of the yardstick.
const YARDSTICK: usize = 200;
/// How long the pageserver may take for the tenants of all.
const TENANTS_MAX: Duration = Duration::from_secs(1200);

/// How often everything is done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Projects.
    projects: usize,
    /// Rounds of pgbench, each way in turn.
    rounds: usize,
    /// How long pgbench runs each time.
    load: Duration,
    /// Its clients.
    clients: u32,
    /// Its scale: 16 MB each.
    scale: u32,
}

const FULL: Settings =
    Settings { projects: 10_000, rounds: 5, load: Duration::from_secs(10), clients: 8, scale: 10 };

const QUICK: Settings =
    Settings { projects: 2_000, rounds: 2, load: Duration::from_secs(4), clients: 8, scale: 4 };

fn main() -> anyhow::Result<()> {
    let settings = figures::chosen(FULL, QUICK);
    tokio::runtime::Runtime::new()?.block_on(measure(settings))
}

async fn measure(settings: Settings) -> anyhow::Result<()> {
    say_yardstick(YARDSTICK)?;
    let mut up = Up::start().await?;
    let key = fs::read_to_string(up.folder().join("data/catalog/api-key"))?.trim().to_owned();
    let url = format!("http://{}/api/v2/projects", up.api.control_plane);
    let began = Instant::now();
    let (times, id) = create(&url, &key, settings.projects).await?;
    let creates_per_s = settings.projects as f64 / began.elapsed().as_secs_f64();
    say("POST /projects", &times);

    let names = up.folder().join("data/store/names");
    eventually("all projects have their tenants", TENANTS_MAX, async || {
        let count = fs::read_dir(&names)?.count();
        ensure!(count >= settings.projects, "{count} have theirs");
        Ok(())
    })
    .await?;
    println!(
        "{}",
        json!({ "what": "all have tenants", "s": round(began.elapsed().as_secs_f64()) })
    );
    let rss_mib = up.rss_mib()?;
    println!("{}", json!({ "what": "memory of all processes", "mib": round(rss_mib) }));
    let restart_s = restart(&mut up, &format!("{url}/{id}"), &key).await?;
    println!("{}", json!({ "what": "a start, until one is shown", "s": round(restart_s) }));

    let overhead = overhead::measure(&up, settings).await?;
    println!("{}", json!({ "what": "pgbench select-only", "overhead": overhead }));
    println!(
        "{}",
        json!({
            "create_p50_ms": round(percentile(&times, 0.5)),
            "create_p99_ms": round(percentile(&times, 0.99)),
            "creates_per_s": round(creates_per_s),
            "rss_mib_total": round(rss_mib),
            "restart_s": round(restart_s),
            "proxy_overhead": overhead.tls,
        })
    );
    Ok(())
}

/// Creates so many projects; how long each took in milliseconds, and the id of one. The connections are
/// open before the first is due.
async fn create(url: &str, key: &str, count: usize) -> anyhow::Result<(Vec<f64>, String)> {
    let next = AtomicUsize::new(0);
    let open = async || {
        let http = reqwest::Client::builder().pool_max_idle_per_host(1).build()?;
        let listed = http.get(url).bearer_auth(key).send().await?.error_for_status()?;
        listed.bytes().await?;
        anyhow::Ok(http)
    };
    let connections = futures::future::try_join_all((0..CONNECTIONS).map(|_| open())).await?;
    let begin = Instant::now() + Duration::from_millis(100);
    let requests = async |http: reqwest::Client| {
        let mut times = Vec::new();
        let mut made = Value::Null;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return anyhow::Ok((times, made));
            }
            let due = begin + EVERY * number as u32;
            tokio::time::sleep_until(due.into()).await;
            let body = json!({ "project": { "name": format!("bench-{number}") } });
            let response = http.post(url).bearer_auth(key).json(&body).send().await?;
            let status = response.status();
            let answer = response.bytes().await?;
            times.push(due.elapsed().as_secs_f64() * 1e3);
            ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&answer));
            if made.is_null() {
                made = serde_json::from_slice(&answer)?;
            }
        }
    };
    let all = futures::future::try_join_all(connections.into_iter().map(requests)).await?;
    let id = all.iter().find_map(|(_, made)| made["project"]["id"].as_str());
    let id = id.context("a project has an id")?.to_owned();
    Ok((all.into_iter().flat_map(|(times, _)| times).collect(), id))
}

/// Stops everything and starts it; seconds from the start until a project is shown.
async fn restart(up: &mut Up, project: &str, key: &str) -> anyhow::Result<f64> {
    up.stop()?;
    let began = Instant::now();
    up.again()?;
    let response = reqwest::Client::new().get(project).bearer_auth(key).send().await?;
    ensure!(response.status().is_success(), "{}", response.text().await?);
    Ok(began.elapsed().as_secs_f64())
}
