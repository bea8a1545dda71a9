//! How long does a client wait whose database sleeps, and what does the proxy cost one whose database
//! does not? `cargo bench --bench cold_start`, as root. The last line is one JSON object.
//!
//! A client is `psql` with TLS, SCRAM and channel binding, from its start to its first row, through the
//! proxy of `offshoot up` with its object store on a local disk. Beside it in each round: `pg_ctl start`
//! of a stock Postgres on a plain directory and a first `psql`, then ten sleeping databases at once.
//! Last, pgbench's select-only on a compute's own port, through the proxy without TLS, and with TLS.
//! `--quick` does less of all.

#[path = "../../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use other parts of it")]
mod harness;

#[path = "../figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

mod overhead;
#[allow(dead_code, reason = "the bench of the API uses other parts of it")]
mod up;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use figures::{median, percentile, round, say, say_yardstick};
use harness::{Stock, program};
use serde_json::json;
use up::Up;

/// Databases that sleep and are woken together.
const AT_ONCE: usize = 10;
/// Objects of the yardstick.
const YARDSTICK: usize = 200;

/// How often everything is done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Cold starts of ours and of stock, in turn.
    starts: usize,
    /// Rounds of ten at once.
    swarms: usize,
    /// Rounds of pgbench, each way in turn.
    rounds: usize,
    /// How long pgbench runs each time.
    load: Duration,
    /// Its clients.
    clients: u32,
    /// Its scale: 16 MB each.
    scale: u32,
}

const FULL: Settings = Settings {
    starts: 40,
    swarms: 6,
    rounds: 5,
    load: Duration::from_secs(10),
    clients: 8,
    scale: 10,
};

const QUICK: Settings = Settings {
    starts: 8,
    swarms: 2,
    rounds: 2,
    load: Duration::from_secs(4),
    clients: 8,
    scale: 4,
};

fn main() -> anyhow::Result<()> {
    let settings = figures::chosen(FULL, QUICK);
    tokio::runtime::Runtime::new()?.block_on(measure(settings))
}

async fn measure(settings: Settings) -> anyhow::Result<()> {
    say_yardstick(YARDSTICK)?;
    let up = Up::start().await?;
    let mut stock = Stock::initdb(up.folder().join("stock"), &["--auth=trust"])?;
    let names: Vec<String> = (0..AT_ONCE).map(|number| format!("sleeper-{number}")).collect();
    for name in &names {
        up.tenant(name).await?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut stages: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..settings.starts {
        theirs.push(stock_start(&mut stock)?);
        let began = Instant::now();
        first_row(&up, &names[0]).await?;
        let time = milliseconds(began);
        let compute = up.api.compute(&names[0], "main").await?;
        // From the request to the first accepted connection: the child's stages, and what is around.
        let start_ms = compute.start_ms.context("the compute runs")?;
        let own_ms: f64 = compute.stages_ms.values().sum();
        let around = [("process", start_ms - own_ms), ("client", time - start_ms)];
        let around = around.map(|(name, took)| (name.to_owned(), took));
        for (name, took) in compute.stages_ms.into_iter().chain(around) {
            stages.entry(name).or_default().push(took);
        }
        ours.push(time);
        up.api.stop(&names[0], "main").await?;
    }
    say("stock: pg_ctl start, first row", &theirs);
    say("a sleeping database: first row", &ours);
    let mut swarm = Vec::new();
    for _ in 0..settings.swarms {
        let clients = names.iter().map(|name| async {
            let began = Instant::now();
            first_row(&up, name).await.map(|()| milliseconds(began))
        });
        swarm.extend(futures::future::try_join_all(clients).await?);
        for name in &names {
            up.api.stop(name, "main").await?;
        }
    }
    say("ten sleeping databases at once: first row", &swarm);
    let overhead = overhead::measure(&up, settings).await?;
    println!("{}", json!({ "what": "pgbench select-only", "overhead": overhead }));
    let stages: BTreeMap<_, _> =
        stages.into_iter().map(|(name, times)| (name, round(median(&times)))).collect();
    println!(
        "{}",
        json!({
            "p50_ms": round(median(&ours)),
            "p99_ms": round(percentile(&ours, 0.99)),
            "stock_p50_ms": round(median(&theirs)),
            "ten_at_once_p99_ms": round(percentile(&swarm, 0.99)),
            "stages": stages,
            "proxy_overhead": overhead.tls,
            "proxy_overhead_plain": overhead.plain,
        })
    );
    Ok(())
}

/// A client of the proxy, from its start to its first row.
async fn first_row(up: &Up, endpoint: &str) -> anyhow::Result<()> {
    let mut psql = tokio::process::Command::from(program("psql"));
    psql.args(["-XqAt", "-d", &up.url(endpoint, "require"), "-c", "SELECT n FROM t LIMIT 1"]);
    let output = psql.output().await?;
    ensure!(output.stdout == b"1\n", "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A stock server's start and its first client; it is stopped again.
fn stock_start(stock: &mut Stock) -> anyhow::Result<f64> {
    let began = Instant::now();
    stock.start()?;
    let mut psql = program("psql");
    psql.args(["-XqAt", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"]);
    psql.args(["-p", &stock.port.to_string(), "-c", "SELECT relpages FROM pg_class LIMIT 1"]);
    let output = psql.output()?;
    let time = milliseconds(began);
    ensure!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    stock.stop("fast")?;
    Ok(time)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
