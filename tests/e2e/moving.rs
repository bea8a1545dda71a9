//! Two pageservers on one bucket: a tenant goes from one to the other while its compute runs, and the
//! one that lost it harms nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use control_plane::Compute;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Database, PATIENCE, Role, amcheck, eventually, pgbench, pgbench_balances, pgbench_init,
};

/// A table of which each page is read once: a page that was read is not asked for again.
const COLD: &str = "
    CREATE TABLE cold (n int, filler text) WITH (fillfactor = 10);
    ALTER TABLE cold ALTER filler SET STORAGE plain;
    INSERT INTO cold SELECT n, repeat('x', 4000) FROM generate_series(0, 7999) n";
const COLD_PAGES: u32 = 8000;

/// The timelines that a pageserver has in memory, of this tenant.
async fn timelines(cluster: &Cluster, http: SocketAddr, of: &Compute) -> anyhow::Result<usize> {
    let (_, status) = cluster.api.ask(http, Method::GET, "status", None).await?;
    let all = status["timelines"].as_array().context("a status has timelines")?;
    let id = of.tenant_id.to_string();
    Ok(all.iter().filter(|timeline| timeline["tenant_id"] == id.as_str()).count())
}

async fn served_by(cluster: &Cluster, http: SocketAddr, tenant: &str) -> anyhow::Result<Value> {
    let path = format!("tenants/{tenant}");
    let (status, shown) = cluster.api.ask(http, Method::GET, &path, None).await?;
    ensure!(status.is_success(), "{shown}");
    Ok(shown["pageserver"]["name"].clone())
}

fn other(cluster: &Cluster) -> anyhow::Result<SocketAddr> {
    Ok(cluster.other_pageserver.context("there are two")?.1)
}

/// What all rows of all tables are, in one number for each.
async fn contents(database: &Database) -> anyhow::Result<Vec<i64>> {
    let mut sums = Vec::new();
    for table in ["pgbench_accounts", "pgbench_history", "pgbench_tellers", "cold"] {
        sums.push(sum_of(database, table).await?);
    }
    Ok(sums)
}

async fn sum_of(database: &Database, table: &str) -> anyhow::Result<i64> {
    let query = format!("SELECT coalesce(sum(hashtext(t::text)), 0)::bigint FROM {table} t");
    database.one(&query).await
}

/// Loses the compute, and finds the same on another.
async fn is_the_same_on_another_compute(
    cluster: &Cluster,
    compute: &Compute,
    database: Database,
) -> anyhow::Result<()> {
    let expected = contents(&database).await?;
    drop(database);
    cluster.kill_compute(compute).await?;
    let (compute, database) = cluster.connect("acme", "main").await?;
    assert_eq!(contents(&database).await?, expected);
    amcheck(compute.port)
}

/// Reads cold pages one by one until it is told to stop; how long each read took.
async fn read_cold(
    port: u16,
    stop: tokio::sync::oneshot::Receiver<()>,
) -> anyhow::Result<Vec<(Instant, Duration)>> {
    let database = Database::connect(port).await?;
    let mut blocks: Vec<u32> = (0..COLD_PAGES).collect();
    blocks.shuffle(&mut StdRng::seed_from_u64(1));
    let mut took = Vec::new();
    tokio::pin!(stop);
    for block in blocks {
        let began = Instant::now();
        let query = format!("SELECT n FROM cold WHERE ctid = '({block},1)'");
        let n: i32 = database.one(&query).await?;
        ensure!(n == block as i32, "page {block} holds row {n}");
        took.push((began, began.elapsed()));
        tokio::select! {
            biased;
            _ = &mut stop => break,
            () = tokio::time::sleep(Duration::from_millis(2)) => {}
        }
    }
    Ok(took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_moves_to_another_pageserver_and_back_under_pgbench() -> anyhow::Result<()> {
    let cluster = Cluster::start_with_two_pageservers().await?;
    let (a, b) = (cluster.api.pageserver, other(&cluster)?);
    let (compute, database) = cluster.tenant("acme").await?;
    pgbench_init(compute.port, 2)?;
    database.run(COLD).await?;
    drop(database);
    // Another compute has none of the pages.
    cluster.api.stop("acme", "main").await?;
    let (compute, database) = cluster.connect("acme", "main").await?;
    let port = compute.port;
    let load = std::thread::spawn(move || pgbench(port, &["-n", "-c", "2", "-T", "10"]));
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(read_cold(port, stopped));

    let mut moves = Vec::new();
    for to in ["b", "a", "b"] {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        let moved = cluster.api.move_tenant("acme", to).await?;
        moves.push((began, began.elapsed()));
        assert_eq!(moved["timelines"], 1, "{moved}");
        assert_eq!(served_by(&cluster, a, "acme").await?, to);
        assert_eq!(served_by(&cluster, b, "acme").await?, to);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Where all pages were read already, nobody listens any more.
    let _ = stop.send(());
    let reads = reading.await??;
    for (began, took) in moves {
        let near = |(at, read): &&(Instant, Duration)| {
            *at + *read >= began && *at <= began + took + Duration::from_millis(500)
        };
        let longest = reads.iter().filter(near).map(|(_, took)| *took).max();
        println!("a move took {took:?}; the longest read of a cold page about it: {longest:?}");
    }
    let longest = reads.iter().map(|(_, took)| *took).max().unwrap_or_default();
    println!("{} cold pages were read, the slowest in {longest:?}", reads.len());
    load.join().map_err(|_| anyhow::anyhow!("pgbench's thread panicked"))??;
    pgbench_balances(&database).await?;
    assert_eq!(timelines(&cluster, a, &compute).await?, 0, "it was dropped");
    is_the_same_on_another_compute(&cluster, &compute, database).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pageserver_that_lost_a_tenant_unawares_publishes_nothing_removes_nothing_and_serves_others()
-> anyhow::Result<()> {
    let mut cluster = Cluster::start_with_two_pageservers().await?;
    let (a, b) = (cluster.api.pageserver, other(&cluster)?);
    let (compute, database) = cluster.tenant("acme").await?;
    let (_, neighbour) = cluster.tenant("other").await?;
    pgbench_init(compute.port, 1)?;
    database.run(COLD).await?;

    // The second takes it, and nobody tells the first.
    let id = compute.tenant_id.to_string();
    let take = json!({ "timelines": [] });
    let (status, taken) =
        cluster.api.ask(b, Method::POST, &format!("tenants/{id}/take"), Some(take)).await?;
    ensure!(status.is_success(), "{taken}");
    let timeline = compute.timeline_id;
    cluster.api.ask(b, Method::GET, &format!("tenants/{id}/branches/{timeline}"), None).await?;
    pgbench(compute.port, &["-n", "-c", "2", "-t", "500"])?;

    // What changes the tenant is refused by the first, which then knows.
    let branch = Some(json!({ "name": "dev" }));
    let path = format!("tenants/{id}/branches");
    let refused = eventually("the first is refused", PATIENCE, async || {
        let (status, refused) = cluster.api.ask(a, Method::POST, &path, branch.clone()).await?;
        assert!(!status.is_success(), "it made a branch of what it had lost");
        ensure!(status == StatusCode::MISDIRECTED_REQUEST, "{refused}");
        Ok(refused)
    })
    .await?;
    assert_eq!(refused["pageserver"]["name"], "b", "{refused}");
    assert_eq!(timelines(&cluster, a, &compute).await?, 0, "it was dropped");
    let (status, made) = cluster.api.ask(b, Method::POST, &path, branch).await?;
    ensure!(status.is_success(), "{made}");

    // Both live, and the compute that runs reads right pages from the second.
    pgbench(compute.port, &["-n", "-c", "2", "-t", "500"])?;
    pgbench_balances(&database).await?;
    neighbour.run("CREATE TABLE t AS SELECT generate_series(1, 1000) n").await?;
    assert_eq!(neighbour.one::<i64>("SELECT count(*) FROM t").await?, 1000);
    for role in [Role::Pageserver, Role::OtherPageserver] {
        assert!(cluster.process(role)?.is_running(), "{role:?} ended");
    }
    is_the_same_on_another_compute(&cluster, &compute, database).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_of_a_pageserver_that_died_goes_on_at_another() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_with_two_pageservers().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    pgbench_init(compute.port, 1)?;
    database.run(COLD).await?;
    drop(database);
    cluster.api.stop("acme", "main").await?;
    let (compute, database) = cluster.connect("acme", "main").await?;
    cluster.kill_role(Role::Pageserver);
    let moved = cluster.api.move_tenant("acme", "b").await?;
    assert_eq!(moved["from"], "a", "{moved}");
    // Pages that the compute does not have: it finds the way by itself.
    let expected = contents(&database).await?;
    pgbench(compute.port, &["-n", "-c", "2", "-t", "200"])?;
    pgbench_balances(&database).await?;
    cluster.start_role(Role::Pageserver)?;
    let again = served_by(&cluster, cluster.api.pageserver, "acme").await?;
    assert_eq!(again, "b", "one that comes back does not take it");
    assert_eq!(expected.last(), Some(&sum_of(&database, "cold").await?));
    amcheck(compute.port)
}
