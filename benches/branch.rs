//! What does a branch cost where one parent has ten thousand? `cargo bench --bench branch`, as root. The last line is one JSON object.
//!
//! Branches are created one after the other over HTTP, at an LSN of a parent that pgbench filled, on a local store whose every object is
//! fsynced. Printed too: what the disk takes for the least that a durable object needs, how the time grows with the number of branches,
//! the CPU of all processes and the pageserver's memory for each, what all of them do afterwards while nobody asks for anything, and
//! how long the usage of all of them takes to list.
//! `--quick` creates a tenth.

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use other parts of it")]
mod harness;

#[path = "figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use figures::{percentile, round, say, say_yardstick};
use harness::{Cluster, Role, pgbench_init};
use reqwest::Method;
use serde_json::json;

const BRANCHES: usize = 10_000;
const BRANCHES_QUICK: usize = 1_000;
/// pgbench's scale: 16 MB each.
const SCALE: u32 = 2;
/// How long the pageserver is watched when the last branch is there.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// Objects of the yardstick.
const YARDSTICK: usize = 500;

fn main() -> anyhow::Result<()> {
    let branches = figures::chosen(BRANCHES, BRANCHES_QUICK);
    tokio::runtime::Runtime::new()?.block_on(measure(branches))
}

async fn measure(branches: usize) -> anyhow::Result<()> {
    say_yardstick(YARDSTICK)?;
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("parent").await?;
    pgbench_init(compute.port, SCALE)?;
    let lsn = database.lsn().await?;
    let rows: i64 = database.one("SELECT count(*) FROM pgbench_accounts").await?;
    drop(database);
    cluster.api.stop("parent", "main").await?;

    let mut pids = Vec::new();
    for role in
        [Role::Pageserver, Role::ControlPlane].into_iter().chain([1, 2, 3].map(Role::Safekeeper))
    {
        pids.push(cluster.process(role)?.pid());
    }
    let before = usages(&pids)?;
    let mut times = Vec::with_capacity(branches);
    for number in 0..branches {
        let began = Instant::now();
        cluster.api.create_branch_at("parent", &format!("branch-{number}"), &lsn).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if (number + 1) % (branches / 5) == 0 {
            say(&format!("branches up to {}", number + 1), &times[number + 1 - branches / 5..]);
        }
    }
    let after = usages(&pids)?;
    std::thread::sleep(AFTERWARDS);
    let later = usages(&pids)?;
    let cpu_ms = |from: &[Usage], to: &[Usage]| -> f64 {
        from.iter().zip(to).map(|(from, to)| (to.cpu_seconds - from.cpu_seconds) * 1e3).sum()
    };
    let (pageserver_before, pageserver_after) = (&before[..1], &after[..1]);
    println!(
        "{}",
        json!({
            "what": "all processes, and of them the pageserver",
            "cpu_ms_per_branch": round(cpu_ms(&before, &after) / branches as f64),
            "pageserver_cpu_ms_per_branch": round(cpu_ms(pageserver_before, pageserver_after) / branches as f64),
            "pageserver_memory_bytes_per_branch": after[0].memory_bytes.saturating_sub(before[0].memory_bytes) / branches as u64,
            "afterwards_seconds": AFTERWARDS.as_secs(),
            "afterwards_cpu_ms": round(cpu_ms(&after, &later)),
            "afterwards_pageserver_cpu_ms": round(cpu_ms(&after[..1], &later[..1])),
        })
    );

    let listing_ms = list_usage(&cluster, branches).await?;
    // A branch is what it says, also for a pageserver that reads them all anew.
    cluster.stop_role(Role::Pageserver)?;
    let began = Instant::now();
    cluster.start_role(Role::Pageserver)?;
    let (_, database) = cluster.connect("parent", &format!("branch-{}", branches - 1)).await?;
    let first_row_ms = began.elapsed().as_secs_f64() * 1e3;
    let there: i64 = database.one("SELECT count(*) FROM pgbench_accounts").await?;
    ensure!(there == rows, "the last branch has {there} rows of {rows}");
    println!(
        "{}",
        json!({ "what": "pageserver started anew, a compute on the last branch", "ms": first_row_ms })
    );
    let first_listing_ms = list_usage(&cluster, branches).await?;
    println!(
        "{}",
        json!({
            "what": "the usage of all tenants, and for the first time after a start of the pageserver",
            "ms": listing_ms,
            "first_ms": first_listing_ms,
        })
    );

    println!(
        "{}",
        json!({
            "p50_ms": round(percentile(&times, 0.5)),
            "p99_ms": round(percentile(&times, 0.99)),
            "branches": branches,
        })
    );
    Ok(())
}

/// How long the usage of all tenants takes, in milliseconds.
async fn list_usage(cluster: &Cluster, branches: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    let all = cluster.api.storage(Method::GET, "usage", None).await?;
    let took_ms = began.elapsed().as_secs_f64() * 1e3;
    let of_parent = all["tenants"].as_array().context("a list")?.iter();
    let listed = of_parent.filter_map(|tenant| tenant["branches"].as_array()).map(Vec::len).max();
    ensure!(listed.is_some_and(|listed| listed > branches), "{listed:?} branches are listed");
    Ok(round(took_ms))
}

fn usages(pids: &[u32]) -> anyhow::Result<Vec<Usage>> {
    pids.iter().map(|pid| Usage::of(*pid)).collect()
}

/// What a process used.
struct Usage {
    cpu_seconds: f64,
    memory_bytes: u64,
}

impl Usage {
    /// Reads `/proc/PID/stat`: fields 14 and 15 are ticks of a hundredth of a second, 24 is pages.
    fn of(pid: u32) -> anyhow::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(") ").context("a process has a name")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |field: usize| -> anyhow::Result<u64> {
            Ok(fields.get(field - 3).context("too few fields")?.parse()?)
        };
        Ok(Usage {
            cpu_seconds: (number(14)? + number(15)?) as f64 / 100.0,
            memory_bytes: number(24)? * 4096,
        })
    }
}
