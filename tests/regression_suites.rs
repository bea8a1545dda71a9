//! Postgres' own regression suites on a tenant's compute, whose disk is then thrown away:
//! `cargo test --release --test regression_suites -- --nocapture`.
//!
//! The compute has so few shared buffers that its pages are really fetched. After the suite all
//! databases are dumped; a new compute, which has nothing but what the storage gives it, must dump
//! the same, and all its tables and indexes must agree.

#[path = "harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the end-to-end tests use other parts of it")]
mod harness;

use std::{fs, process::Command, time::Instant};

use anyhow::{Context, ensure};
use control_plane::Compute;
use nix::unistd::User;
use postgres_suites::{Postgres, Report, Server, Suite, Suites};
use reqwest::Method;
use serde_json::{Value, json};

use harness::{Cluster, Database, amcheck, host, program};

/// 2,048 pages: the suites' databases are some ten times that.
const SHARED_BUFFERS: &str = "16MB";
/// 256 pages, where a page that a compute has not written comes from the pageserver more often
/// than not.
const FEW_SHARED_BUFFERS: &str = "2MB";
/// After every so many groups of the core suite its dump is kept, with the LSN.
const GROUPS_BETWEEN_MOMENTS: usize = 6;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_suites_of_all_extensions_pass_and_what_they_made_outlives_the_compute()
-> anyhow::Result<()> {
    passes_and_outlives_the_compute(Suite::Contrib, 167).await
}

/// What a compute wrote it reads from its own overlay. So that tests also read what the pageserver
/// made of the WAL of the tests before them, each group has a compute of its own. The template has
/// checksums: Postgres itself verifies each page that it is given.
#[tokio::test(flavor = "multi_thread")]
async fn the_core_suite_passes_where_every_group_of_tests_begins_on_a_new_compute()
-> anyhow::Result<()> {
    let suites = Suites::prepare()?;
    let settings = settings(Suite::Core, FEW_SHARED_BUFFERS);
    let tenant = Tenant::create(&["--data-checksums"], settings).await?;
    let mut compute = tenant.start("main").await?;
    let (mut passed, mut moments) = (0, Vec::new());
    for (number, group) in (1..).zip(suites.groups()?) {
        let server = server(&compute)?;
        let folder = tenant.cluster.folder.path();
        let report = suites.run_group(&group, &server, folder, |line| println!("{line}"))?;
        passed += all_passed(&report)?;
        tenant.cluster.kill_compute(&compute).await?;
        compute = tenant.start("main").await?;
        if number % GROUPS_BETWEEN_MOMENTS == 0 {
            moments.push(Moment::now(&compute).await?);
        }
    }
    ensure!(passed == 217, "{passed} of 217 tests ran");
    amcheck(compute.port)?;
    for (number, moment) in (1..).zip(&moments) {
        moment.is_what_a_branch_has(&tenant, &format!("moment-{number}")).await?;
    }
    no_errors_were_logged(&tenant.cluster)
}

async fn passes_and_outlives_the_compute(suite: Suite, tests: usize) -> anyhow::Result<()> {
    let suites = Suites::prepare()?;
    let tenant = Tenant::create(&[], settings(suite, SHARED_BUFFERS)).await?;
    let compute = tenant.start("main").await?;

    let began = Instant::now();
    let folder = tenant.cluster.folder.path();
    let report = suites.run(suite, &server(&compute)?, folder, |line| println!("{line}"))?;
    println!("{suite:?}: {} tests in {:.0?}", report.tests(), began.elapsed());
    let passed = all_passed(&report)?;
    ensure!(passed == tests, "{passed} of {tests} tests ran");

    let before = dump(compute.port)?;
    tenant.cluster.kill_compute(&compute).await?;
    let compute = tenant.start("main").await?;
    compare(&before, &dump(compute.port)?)?;
    println!("{suite:?}: {} lines of dump are the same on a new compute", before.lines().count());
    amcheck(compute.port)?;
    no_errors_were_logged(&tenant.cluster)
}

/// How many tests passed: all that ran.
fn all_passed(report: &Report) -> anyhow::Result<usize> {
    for differences in &report.differences {
        println!("{}", fs::read_to_string(differences)?);
    }
    ensure!(report.failed.is_empty(), "failed: {:?}", report.failed);
    Ok(report.passed.len())
}

/// What a suite needs of a server's settings, and so few buffers.
fn settings(suite: Suite, shared_buffers: &str) -> Value {
    let lines = suite.settings().lines().filter_map(|line| line.split_once(" = "));
    let mut settings: serde_json::Map<String, Value> =
        lines.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').into())).collect();
    settings.insert("shared_buffers".to_owned(), shared_buffers.into());
    settings.into()
}

/// Fails where a process or a compute has logged an error: a suite's end without a difference may
/// still have had a page that was fetched in vain. What Postgres itself logged is not looked at: the
/// suites ask it for errors.
fn no_errors_were_logged(cluster: &Cluster) -> anyhow::Result<()> {
    for folder in [cluster.path(""), cluster.path("computes")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.ends_with(".log") || name.ends_with(".postgres.log") {
                continue;
            }
            let log = fs::read_to_string(&path)?;
            let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
            ensure!(errors.is_empty(), "{}:\n{}", path.display(), errors.join("\n"));
        }
    }
    Ok(())
}

/// A tenant whose databases are of the locale C, as the suites expect.
struct Tenant {
    cluster: Cluster,
    settings: Value,
}

impl Tenant {
    /// Of a template that `initdb` makes with these options.
    async fn create(options: &[&str], settings: Value) -> anyhow::Result<Tenant> {
        let postgres = Postgres::of_the_suites()?;
        let bin = ("OFFSHOOT_PG_BIN", postgres.bin().display().to_string());
        // The server writes files where pg_regress, another user, reads them.
        let users = ("OFFSHOOT_COMPUTE_USERS", "none".to_owned());
        let cluster = Cluster::start_with(vec![bin, users]).await?;
        let pgdata = cluster.path("plain");
        let status =
            Command::new("install").args(["-d", "-o", "postgres"]).arg(&pgdata).status()?;
        ensure!(status.success(), "install: {status}");
        let mut initdb = Command::new("runuser");
        initdb.args(["-u", "postgres", "--"]).arg(postgres.program("initdb")).args(options);
        initdb.args(["--username=postgres", "--auth=trust", "--no-locale", "-E", "UTF8", "-D"]);
        let status = initdb.arg(&pgdata).current_dir("/").status()?;
        ensure!(status.success(), "initdb: {status}");
        let body = json!({ "name": "plain", "pgdata": pgdata });
        cluster.api.storage(Method::POST, "templates", Some(body)).await?;
        let body = json!({ "name": "suites", "template": "plain" });
        let _tenant: Value = cluster.api.storage(Method::POST, "tenants", Some(body)).await?;
        Ok(Tenant { cluster, settings })
    }

    async fn start(&self, branch: &str) -> anyhow::Result<Compute> {
        let request = json!({ "tenant": "suites", "branch": branch, "settings": self.settings });
        self.cluster.api.start_with(request).await
    }
}

/// What the databases held at an LSN.
struct Moment {
    lsn: String,
    dump: String,
}

impl Moment {
    async fn now(compute: &Compute) -> anyhow::Result<Moment> {
        let database = Database::connect_to(compute.port, "postgres").await?;
        // Everything before it is committed: nobody else writes.
        let lsn = database.lsn().await?;
        Ok(Moment { lsn, dump: dump(compute.port)? })
    }

    async fn is_what_a_branch_has(&self, tenant: &Tenant, branch: &str) -> anyhow::Result<()> {
        tenant.cluster.api.create_branch_at("suites", branch, &self.lsn).await?;
        let compute = tenant.start(branch).await?;
        compare(&self.dump, &dump(compute.port)?)
            .with_context(|| format!("{branch} at {}", self.lsn))?;
        amcheck(compute.port).with_context(|| format!("{branch} at {}", self.lsn))?;
        tenant.cluster.api.stop("suites", branch).await?;
        println!("{branch}: {} lines of dump are the same", self.dump.lines().count());
        Ok(())
    }
}

/// The compute, as the drivers see it.
fn server(compute: &Compute) -> anyhow::Result<Server> {
    let user = User::from_name("postgres")?.context("there is no user postgres")?;
    Ok(Server {
        postgres: Postgres::of_the_suites()?,
        host: host(compute.port)?,
        port: compute.port,
        user: "postgres".to_owned(),
        owner: Some((user.uid.as_raw(), user.gid.as_raw())),
    })
}

/// All databases and roles, but for the rows of unlogged tables, which a loss empties.
fn dump(port: u16) -> anyhow::Result<String> {
    let mut command = program("pg_dumpall");
    command.args(["-h", &host(port)?, "-U", "postgres", "-p", &port.to_string()]);
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
