//! What a page costs: `cargo bench --bench getpage`, as root. The last line is one JSON object:
//!
//! - `p50_us`, `p99_us`: one client, one page at a time, of images that are cached;
//! - `echo_p50_us`: the same bytes there and back between two plain threads, in the same rounds;
//! - `pages_per_s_core`: pages a second of the pageserver's CPU time, user and system, when ranges
//!   or batches are asked for with many in flight; of the two, the one that costs more;
//! - `longest_chain_us`: the first read of a page that takes the most records that a chain may
//!   have, after a start of the pageserver: layers from the store, then redo; the median;
//! - `base_backup_ms`: a whole base backup, of images or of layers that were not compacted,
//!   whichever takes longer; the median.
//!
//! The pageserver is a process of its own, as in production. `--quick` is shorter.

#[path = "../../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use other parts of it")]
mod harness;

#[path = "../figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

mod chains;
mod client;
mod echo;
mod template;

use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::{TenantTimeline, page_service::Request};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use self::{
    client::Client,
    echo::Echo,
    figures::{cpu_seconds, median, percentile, round},
    template::Table,
};
use crate::harness::{Cluster, Role};

/// How long and how often everything is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// pgbench's scale of the template: 16 MB each.
    pub scale: u32,
    /// Rounds of the echo and of single pages in turn.
    pub rounds: usize,
    /// Pages in each.
    pub pages: usize,
    /// How long many requests are in flight.
    pub batched: Duration,
    /// pgbench's transactions of each of four clients, on a tenant whose layers are not compacted.
    pub transactions: u32,
    /// Pages with the longest chains.
    pub chains: usize,
    /// Base backups of each kind.
    pub backups: usize,
}

const FULL: Settings = Settings {
    scale: 10,
    rounds: 7,
    pages: 10_000,
    batched: Duration::from_secs(6),
    transactions: 5_000,
    chains: 60,
    backups: 15,
};

const QUICK: Settings = Settings {
    scale: 1,
    rounds: 3,
    pages: 2_000,
    batched: Duration::from_secs(2),
    transactions: 500,
    chains: 10,
    backups: 5,
};

/// Requests in flight on one connection.
const IN_FLIGHT: usize = 16;
/// Pages of a range: what the kernel reads ahead at once.
const RANGE_PAGES: u32 = 128;
/// Pages of a batch, each anywhere.
const BATCH_PAGES: usize = 64;

fn main() -> Result<()> {
    let settings = figures::chosen(FULL, QUICK);
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(measure(settings))?;
    println!("{result}");
    Ok(())
}

async fn measure(settings: Settings) -> Result<Value> {
    let mut cluster = harness::Cluster::start().await?;
    let table = template::import(&cluster, settings.scale).await?;
    let images = template::tenant(&cluster, "images", Some(template::NAME)).await?;
    let single = single_pages(&cluster, images, table, settings)?;
    let pages_per_s_core = batched(&mut cluster, images, table, settings)?;
    let of_images = base_backup("of images", &cluster, images, settings)?;
    let (deltas, longest_chain_us) = chains::measure(&mut cluster, settings).await?;
    let of_deltas = base_backup("of layers as they were flushed", &cluster, deltas, settings)?;
    Ok(json!({
        "p50_us": round(single.p50_us),
        "p99_us": round(single.p99_us),
        "echo_p50_us": round(single.echo_p50_us),
        "pages_per_s_core": round(pages_per_s_core),
        "longest_chain_us": round(longest_chain_us),
        "base_backup_ms": round(of_images.max(of_deltas)),
    }))
}

struct Single {
    p50_us: f64,
    p99_us: f64,
    echo_p50_us: f64,
}

/// One page at a time; medians of the rounds.
fn single_pages(
    cluster: &Cluster,
    timeline: TenantTimeline,
    table: Table,
    settings: Settings,
) -> Result<Single> {
    let mut client = Client::connect(cluster.pageserver, timeline)?;
    // Everything is cached from here on.
    for first in (0..table.blocks).step_by(RANGE_PAGES as usize) {
        client.ask(&client.range(table.fork, first, RANGE_PAGES))?;
    }
    let mut random = StdRng::seed_from_u64(1);
    let mut next =
        |client: &Client| client.range(table.fork, random.random_range(0..table.blocks), 1);
    let frame = client.frame(&next(&client))?;
    let mut echo = Echo::start(frame.len(), client.ask(&next(&client))?.frame_bytes)?;
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        let echoes = times(settings.pages, || echo.ask())?;
        let pages = times(settings.pages, || client.ask(&next(&client)).map(drop))?;
        let round = Single {
            p50_us: percentile(&pages, 0.5),
            p99_us: percentile(&pages, 0.99),
            echo_p50_us: percentile(&echoes, 0.5),
        };
        println!(
            "{}",
            json!({
                "what": "single pages",
                "p50_us": round.p50_us,
                "p99_us": round.p99_us,
                "echo_p50_us": round.echo_p50_us,
                "echo_p99_us": percentile(&echoes, 0.99),
            })
        );
        rounds.push(round);
    }
    let median_of = |part: fn(&Single) -> f64| median(&rounds.iter().map(part).collect::<Vec<_>>());
    Ok(Single {
        p50_us: median_of(|round| round.p50_us),
        p99_us: median_of(|round| round.p99_us),
        echo_p50_us: median_of(|round| round.echo_p50_us),
    })
}

/// Pages a second of the server's CPU time; of ranges and batches the lower.
fn batched(
    cluster: &mut Cluster,
    timeline: TenantTimeline,
    table: Table,
    settings: Settings,
) -> Result<f64> {
    let pid = cluster.process(Role::Pageserver)?.pid();
    let mut lowest = f64::INFINITY;
    for what in ["ranges", "batches"] {
        let mut client = Client::connect(cluster.pageserver, timeline)?;
        let mut random = StdRng::seed_from_u64(2);
        let mut next = |client: &Client| match what {
            "ranges" => {
                let first = random.random_range(0..table.blocks - RANGE_PAGES);
                (client.range(table.fork, first, RANGE_PAGES), RANGE_PAGES as usize)
            }
            _ => {
                let block = |_| random.random_range(0..table.blocks);
                let blocks = (0..BATCH_PAGES).map(block).map(|block| table.fork.block(block));
                (client.batch(blocks.collect()), BATCH_PAGES)
            }
        };
        for _ in 0..IN_FLIGHT {
            let request = next(&client).0;
            client.send(&request)?;
        }
        let (began, cpu_before) = (Instant::now(), cpu_seconds(pid)?);
        let mut pages = 0;
        while began.elapsed() < settings.batched {
            client.receive()?;
            let (request, count) = next(&client);
            client.send(&request)?;
            pages += count;
        }
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu_before);
        let per_core = pages as f64 / cpu;
        let per_second = pages as f64 / elapsed;
        println!(
            "{}",
            json!({ "what": what, "pages_per_s_core": per_core, "pages_per_s": per_second })
        );
        lowest = lowest.min(per_core);
    }
    Ok(lowest)
}

/// Milliseconds; the median.
fn base_backup(
    what: &str,
    cluster: &Cluster,
    timeline: TenantTimeline,
    settings: Settings,
) -> Result<f64> {
    let mut client = Client::connect(cluster.pageserver, timeline)?;
    let request = Request::BaseBackup { lsn: client.last_record_lsn() };
    let times = times(settings.backups, || client.base_backup(&request))?;
    let times: Vec<f64> = times.iter().map(|us| us / 1e3).collect();
    let [p50, max] = [0.5, 1.0].map(|part| percentile(&times, part));
    let layers = layers(cluster, timeline)?;
    println!(
        "{}",
        json!({
            "what": format!("base backup {what}"),
            "layers": layers,
            "p50_ms": p50,
            "max_ms": max,
        })
    );
    Ok(p50)
}

/// How many layers the timeline has of its own.
fn layers(cluster: &Cluster, TenantTimeline { tenant, timeline }: TenantTimeline) -> Result<usize> {
    let folder = format!("store/tenants/{tenant}/timelines/{timeline}/layers");
    match std::fs::read_dir(cluster.folder.path().join(folder)) {
        Ok(layers) => Ok(layers.count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Microseconds that each call takes.
pub fn times(count: usize, mut call: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        call()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}
