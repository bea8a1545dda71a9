//! Postgres' own regression suites on a tenant's compute, whose disk is then thrown away:
//! `cargo test --release --test regression_suites -- --nocapture`.
//!
//! The compute has so few shared buffers that its pages are really fetched. After the suite all
//! databases are dumped; a new compute, which has nothing but what the storage gives it, must dump
//! the same, and all its tables and indexes must agree.

#[path = "harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the end-to-end tests use other parts of it")]
mod harness;

use std::{process::Command, time::Instant};

use anyhow::{Context, ensure};
use nix::unistd::User;
use postgres_suites::{Postgres, Server, Suite, Suites};
use serde_json::{Value, json};

use harness::{Cluster, amcheck, program};

/// 2,048 pages: the suites' databases are some ten times that.
const SHARED_BUFFERS: &str = "16MB";
/// How many differing lines are told.
const LINES_TOLD_MAX: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn the_core_suite_passes_and_what_it_made_outlives_the_compute() -> anyhow::Result<()> {
    passes_and_outlives_the_compute(Suite::Core, 217).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_isolation_suite_passes_and_what_it_made_outlives_the_compute() -> anyhow::Result<()> {
    passes_and_outlives_the_compute(Suite::Isolation, 115).await
}

async fn passes_and_outlives_the_compute(suite: Suite, tests: usize) -> anyhow::Result<()> {
    let suites = Suites::prepare()?;
    let cluster = Cluster::start().await?;
    import_template(&cluster).await?;
    let body = json!({ "name": "suites", "template": "plain" });
    cluster.api.storage(reqwest::Method::POST, "tenants", Some(body)).await?;
    let settings = json!({ "shared_buffers": SHARED_BUFFERS, "max_prepared_transactions": "10" });
    let start = async || {
        let request = json!({ "tenant": "suites", "branch": "main", "settings": settings });
        cluster.api.start_with(request).await
    };
    let compute = start().await?;

    let began = Instant::now();
    let server = Server {
        postgres: Postgres::of_this_machine()?,
        host: "127.0.0.1".to_owned(),
        port: compute.port,
        user: "postgres".to_owned(),
        owner: Some(postgres()?),
    };
    let report = suites.run(suite, &server, cluster.folder.path(), |line| println!("{line}"))?;
    println!("{suite:?}: {} tests in {:.0?}", report.tests(), began.elapsed());
    for differences in &report.differences {
        println!("{}", std::fs::read_to_string(differences)?);
    }
    ensure!(report.failed.is_empty(), "failed: {:?}", report.failed);
    ensure!(report.passed.len() == tests, "{} of {tests} tests ran", report.passed.len());

    let before = dump(compute.port)?;
    cluster.kill_compute(&compute).await?;
    let compute = start().await?;
    compare(&before, &dump(compute.port)?)?;
    println!("{suite:?}: {} lines of dump are the same on a new compute", before.lines().count());
    amcheck(compute.port)
}

/// The suites expect databases of the locale C.
async fn import_template(cluster: &Cluster) -> anyhow::Result<Value> {
    let pgdata = cluster.path("plain");
    let status = Command::new("install").args(["-d", "-o", "postgres"]).arg(&pgdata).status()?;
    ensure!(status.success(), "install: {status}");
    let mut initdb = Command::new("runuser");
    initdb.args(["-u", "postgres", "--"]).arg(program("initdb").get_program());
    initdb.args(["--username=postgres", "--auth=trust", "--no-locale", "-E", "UTF8", "-D"]);
    let status = initdb.arg(&pgdata).current_dir("/").status()?;
    ensure!(status.success(), "initdb: {status}");
    let body = json!({ "name": "plain", "pgdata": pgdata });
    cluster.api.storage(reqwest::Method::POST, "templates", Some(body)).await
}

fn postgres() -> anyhow::Result<(u32, u32)> {
    let user = User::from_name("postgres")?.context("there is no user postgres")?;
    Ok((user.uid.as_raw(), user.gid.as_raw()))
}

/// All databases and roles, but for the rows of unlogged tables, which a loss empties.
fn dump(port: u16) -> anyhow::Result<String> {
    let mut command = program("pg_dumpall");
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
    command.args(["--no-unlogged-table-data", "--restrict-key=offshoot"]);
    let output = command.output()?;
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pg_dumpall: {}\n{complained}", output.status);
    // Some tests make rows of bytes that are no UTF-8.
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails where two dumps differ.
fn compare(before: &str, after: &str) -> anyhow::Result<()> {
    let (before, after): (Vec<_>, Vec<_>) = (comparable(before), comparable(after));
    let differing = before.iter().zip(&after).filter(|(before, after)| before != after);
    let told: Vec<String> = differing
        .take(LINES_TOLD_MAX)
        .map(|(before, after)| format!("- {before}\n+ {after}\n"))
        .collect();
    ensure!(told.is_empty(), "the dumps differ:\n{}", told.concat());
    let (before, after) = (before.len(), after.len());
    ensure!(before == after, "the dumps have {before} and {after} lines");
    Ok(())
}

/// A dump's lines without the numbers of sequences: Postgres logs a sequence up to 32 values ahead,
/// and goes on from there after any crash.
fn comparable(dump: &str) -> Vec<&str> {
    dump.lines()
        .map(|line| match line.strip_prefix("SELECT pg_catalog.setval(") {
            Some(rest) => rest.split(',').next().unwrap_or(rest),
            None => line,
        })
        .collect()
}
