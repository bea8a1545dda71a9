//! One run: the workload, the standby, the comparisons, what they found.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use protocol::{TenantTimeline, TimelineId};
use reqwest::Method;
use serde_json::{Value, json};
use wal_format::Lsn;

use crate::{
    background,
    damage::Damage,
    harness::{Cluster, Role},
    oracle::Oracle,
    report::{Report, Subject},
    served::{Served, connect},
    standby::Standby,
    stock::Stock,
    stock_state::StockState,
    wal::Wal,
    workload::{self, Scale, TENANT},
};

/// The most mismatches of one comparison that are printed.
const PRINTED_MAX: usize = 100;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    scale: Scale,
    /// LSNs that are spread evenly, beside those at turning points.
    spread: usize,
    /// LSNs at which a branch and a restored timeline are compared, too.
    of_branches: usize,
    checksums: bool,
}

/// For every day.
pub const MODERATE: Settings = Settings {
    scale: Scale { losses: 1, transactions: 100 },
    spread: 4,
    of_branches: 3,
    checksums: false,
};

/// For when there is time.
pub const LONG: Settings = Settings {
    scale: Scale { losses: 8, transactions: 1500 },
    spread: 40,
    of_branches: 12,
    checksums: true,
};

/// Runs it all and prints what was found; whether nothing differs.
pub async fn run(settings: Settings) -> Result<bool> {
    let began = Instant::now();
    // Postgres writes its archive and its tablespaces where the stock standby, another user, reads.
    let users = ("OFFSHOOT_COMPUTE_USERS", "none".to_owned());
    let mut cluster = Cluster::start_with(vec![users]).await?;
    let stock = Stock::new(cluster.path("stock"))?;
    for folder in ["archive", "kept-space", "dropped-space"] {
        stock.create_folder(&stock.path(folder))?;
    }
    let base = stock.make_base(settings.checksums)?;
    let main = make_history(&mut cluster, &base, &stock.path(""), settings.scale).await?;
    say(began, "the computes are done");

    let origin = connect(cluster.pageserver, main).await?.welcome.origin;
    let archive = stock.path("archive");
    let wal = Wal::fetch(&cluster.safekeepers, main, &origin, &base, &archive).await?;
    say(began, &format!("{} records of WAL are archived", wal.len()));
    let turning_points = wal.turning_points();
    let missing: Vec<_> = turning_points.iter().filter(|(_, count)| *count == 0).collect();
    ensure!(missing.is_empty(), "the workload made no {missing:?}");
    let mut states = BTreeMap::from([(origin.point.lsn, StockState::of_base(&base)?)]);
    let mut standby = Standby::new(stock, &base, archive)?;
    for stop in wal.stops(settings.spread) {
        states.insert(stop.end, standby.advance(stop)?);
    }
    say(began, &format!("the standby has stopped at {} LSNs", states.len()));

    let clog_truncations = wal.clog_truncations.clone();
    let oracle = Oracle { page_service: cluster.pageserver, states, clog_truncations };
    let mut all = Report::default();
    for &lsn in oracle.states.keys() {
        let report = oracle.compare(lsn, main).await?;
        say_found(&format!("main at {lsn}, after {}", wal.name_before(lsn)), &report);
        all.add(report);
    }
    must_be_able_to_fail(&oracle, main).await?;
    say(began, "main is compared");
    let merged = cluster.api.merged(main.timeline, background::DONE_WITHIN).await?;
    ensure!(merged["written_bytes"]["merged"].as_u64() > Some(0), "nothing was merged: {merged}");
    all.add(compare_some(&oracle, "merged main", main, Lsn::MAX, settings.of_branches).await?);
    say(began, &format!("main is compared again in {} runs of merged layers", merged["runs"]));
    let others = make_others(&mut cluster, &oracle, main).await?;
    all.add(compare_others(&oracle, &others, settings.of_branches).await?);
    say(began, "a branch, a restored timeline and a pageserver that was killed are compared");
    all.add(compare_what_is_kept(&mut cluster, &oracle, &others).await?);
    say(began, "what is kept of a history that was given up is compared");
    print(&wal, &all, oracle.states.len());
    Ok(all.mismatches.is_empty())
}

/// A tenant made from the base, and all that its computes do; its timeline.
async fn make_history(
    cluster: &mut Cluster,
    base: &Path,
    folder: &Path,
    scale: Scale,
) -> Result<TenantTimeline> {
    let template = json!({ "name": "base", "pgdata": base });
    cluster.api.storage(Method::POST, "templates", Some(template)).await?;
    let tenant = json!({ "name": TENANT, "template": "base" });
    cluster.api.storage(Method::POST, "tenants", Some(tenant)).await?;
    let compute = workload::run(cluster, folder, scale).await?;
    Ok(TenantTimeline { tenant: compute.tenant_id, timeline: compute.timeline_id })
}

/// Timelines with what main did up to some LSN.
struct Others {
    main: TenantTimeline,
    /// A branch, and where it begins.
    branch: (TenantTimeline, Lsn),
    /// What a restore of main made, and the moment.
    restored: (TenantTimeline, Lsn),
}

/// What main is called after it was restored.
const BEFORE: &str = "before";

/// Makes a branch of main and restores main, changes both, and kills the pageserver.
async fn make_others(
    cluster: &mut Cluster,
    oracle: &Oracle,
    main: TenantTimeline,
) -> Result<Others> {
    let lsns: Vec<Lsn> = oracle.states.keys().copied().collect();
    let (middle, back) = (lsns[lsns.len() / 2], lsns[lsns.len() * 3 / 4]);
    let branch = cluster.api.create_branch_at(TENANT, "old", &middle.to_string()).await?;
    let branch = TenantTimeline { timeline: timeline_of(&branch)?, ..main };
    change(cluster, "old").await?;
    let restored = cluster.api.restore(TENANT, json!({ "lsn": back, "keep_as": BEFORE })).await?;
    let restored = TenantTimeline { timeline: timeline_of(&restored)?, ..main };
    ensure!(restored.timeline != main.timeline, "the restore gave no new timeline");
    change(cluster, "main").await?;
    // What comes now is read from the object store, and ingested again.
    cluster.kill_role(Role::Pageserver);
    cluster.start_role(Role::Pageserver)?;
    Ok(Others { main, branch: (branch, middle), restored: (restored, back) })
}

/// Compares all of them at some of the LSNs of each.
async fn compare_others(oracle: &Oracle, others: &Others, count: usize) -> Result<Report> {
    let mut all = Report::default();
    let timelines = [("branch", others.branch), ("restored", others.restored)];
    for (name, (timeline, until)) in timelines {
        all.add(compare_some(oracle, name, timeline, until, count).await?);
    }
    all.add(compare_some(oracle, "main", others.main, Lsn::MAX, count).await?);
    Ok(all)
}

/// Compares a timeline at some of the LSNs up to one.
async fn compare_some(
    oracle: &Oracle,
    name: &str,
    timeline: TenantTimeline,
    until: Lsn,
    count: usize,
) -> Result<Report> {
    let mut all = Report::default();
    let before: Vec<Lsn> = oracle.states.keys().copied().filter(|lsn| *lsn <= until).collect();
    for &lsn in before.iter().rev().step_by(before.len().div_ceil(count)) {
        let report = oracle.compare(lsn, timeline).await?;
        say_found(&format!("{name} at {lsn}"), &report);
        all.add(report);
    }
    Ok(all)
}

/// Gives up most of main's history and compares what is kept: what comes after the cutoff, and what
/// the branch and the restored timeline began as. The rest must be refused.
async fn compare_what_is_kept(
    cluster: &mut Cluster,
    oracle: &Oracle,
    others: &Others,
) -> Result<Report> {
    let lsns: Vec<Lsn> = oracle.states.keys().copied().collect();
    let (oldest, end) = (lsns[lsns.len() - lsns.len() / 8 - 1], lsns[lsns.len() - 1]);
    // What was read until now is leased for a while, by readers that are gone.
    cluster.stop_role(Role::Pageserver)?;
    cluster.start_role(Role::Pageserver)?;
    let _loaded = connect(cluster.pageserver, others.main).await?;
    let cutoff = background::give_up(cluster, BEFORE, end.0 - oldest.0).await?;
    let main = cluster.api.merged(others.main.timeline, background::DONE_WITHIN).await?;
    println!("main gave up what is before {cutoff}: {main}");
    let mut all = Report::default();
    for &lsn in lsns.iter().filter(|lsn| **lsn >= cutoff) {
        let report = oracle.compare(lsn, others.main).await?;
        say_found(&format!("main at {lsn}, after the cutoff"), &report);
        all.add(report);
    }
    ensure!(all.blocks > 0, "no state is behind the cutoff {cutoff}");
    for (timeline, point) in [others.branch, others.restored] {
        ensure!(point < cutoff, "a branch begins at {point}, behind the cutoff {cutoff}");
        let report = oracle.compare(point, timeline).await?;
        say_found(&format!("{} at {point}, which is kept", timeline.timeline), &report);
        all.add(report);
    }
    for &lsn in lsns.iter().filter(|lsn| **lsn < cutoff) {
        let refused = Served::ask(oracle.page_service, others.main, lsn).await;
        let sentence = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(sentence.contains(&cutoff.to_string()), "{lsn} is before {cutoff}: {sentence:?}");
    }
    Ok(all)
}

/// Starts a branch's compute, changes what the tables hold, and stops it.
async fn change(cluster: &Cluster, branch: &str) -> Result<()> {
    let (_, database) = cluster.connect(TENANT, branch).await?;
    database.run("CREATE TABLE of_branch AS SELECT n FROM generate_series(1, 1000) n").await?;
    database.run("DELETE FROM h; INSERT INTO h SELECT n FROM generate_series(1, 3000) n").await?;
    drop(database);
    cluster.api.stop(TENANT, branch).await?;
    Ok(())
}

/// Of the answer to a branch's creation, or to a restore.
fn timeline_of(answer: &Value) -> Result<TimelineId> {
    let branch = answer.get("branch").unwrap_or(answer);
    let id = branch["timeline_id"].as_str().context("a branch's timeline")?;
    Ok(id.parse()?)
}

/// Damages what is served, a thing of each kind, and expects the comparison to find that and nothing else.
async fn must_be_able_to_fail(oracle: &Oracle, timeline: TenantTimeline) -> Result<()> {
    let (&lsn, _) = oracle.states.last_key_value().context("a state")?;
    let seen = oracle.compare(lsn, timeline).await?;
    let served = Served::ask(oracle.page_service, timeline, lsn).await?;
    let damage = Damage::of_everything(&seen, &served);
    let subjects = |report: &Report| -> BTreeSet<Subject> {
        report.mismatches.iter().map(|mismatch| mismatch.subject.clone()).collect()
    };
    let before = subjects(&seen);
    let after = subjects(&oracle.compare_damaged(lsn, timeline, &damage).await?);
    let found: BTreeSet<Subject> = after.difference(&before).cloned().collect();
    let expected = damage.expected();
    let text = |subject: &Subject| subject.to_string();
    let missed: Vec<String> = expected.difference(&found).map(text).collect();
    let invented: Vec<String> = found.difference(expected).map(text).collect();
    ensure!(
        missed.is_empty() && invented.is_empty(),
        "damage that was not found: {missed:?}; found without damage: {invented:?}"
    );
    let found: Vec<String> = found.iter().map(text).collect();
    println!("damage of each kind was found: {}", found.join(", "));
    Ok(())
}

fn say_found(what: &str, report: &Report) {
    println!("{what}: {} blocks, {} mismatches", report.blocks, report.mismatches.len());
    for mismatch in report.mismatches.iter().take(PRINTED_MAX) {
        println!("  MISMATCH {mismatch}");
    }
}

fn print(wal: &Wal, all: &Report, lsns: usize) {
    println!("\nrecords of turning points:");
    for (name, count) in wal.turning_points() {
        println!("  {count:>8}  {name}");
    }
    println!("\nclasses:");
    for (class, count) in &all.classes {
        println!("  {count:>8}  {class}");
    }
    let (blocks, mismatches) = (all.blocks, all.mismatches.len());
    println!("{}", json!({ "lsns": lsns, "blocks_compared": blocks, "mismatches": mismatches }));
}

fn say(began: Instant, what: &str) {
    println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
}
