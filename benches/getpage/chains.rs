//! Pages that take nearly as many records as a chain may have.

use std::time::Instant;

use pageserver::timeline::RECORDS_PER_IMAGE;
use protocol::TenantTimeline;
use serde_json::json;

use crate::{
    Settings,
    client::Client,
    harness::{Cluster, Role, pgbench, pgbench_init},
    median, percentile,
    template::{self, Table},
};

/// Tables for each one that is read: their pages lie between, so that the block of one is not the
/// block of the next.
const SPACING: usize = 8;

/// A page is pruned no more often by so many updates.
const PRUNES_MAX: usize = 8;

/// The timeline, and microseconds for the first read of such a page after a start; the median.
pub async fn measure(
    cluster: &mut Cluster,
    settings: Settings,
) -> anyhow::Result<(TenantTimeline, f64)> {
    let timeline = template::tenant(cluster, "chains", None).await?;
    let tables = write(cluster, settings).await?;
    cluster.stop_role(Role::Pageserver)?;
    cluster.start_role(Role::Pageserver)?;
    let mut client = Client::connect(cluster.pageserver, timeline)?;
    let mut first = Vec::new();
    for table in tables.iter().step_by(SPACING) {
        first.push(read(&mut client, *table)?);
    }
    let mut again = Vec::new();
    for table in tables.iter().step_by(SPACING) {
        again.push(read(&mut client, *table)?);
    }
    for (what, times) in [("longest chains, first read", &first), ("again", &again)] {
        let [p50, p99] = [0.5, 0.99].map(|part| percentile(times, part));
        println!(
            "{}",
            json!({ "what": what, "records_at_least": RECORDS_PER_IMAGE - PRUNES_MAX - 1, "p50_us": p50, "p99_us": p99 })
        );
    }
    Ok((timeline, median(&first)))
}

/// What pgbench loads and does, for more layers than one; then tables of one page, each with a row
/// that was inserted once and then updated until a few more records would make an image.
async fn write(cluster: &Cluster, settings: Settings) -> anyhow::Result<Vec<Table>> {
    let (compute, database) = cluster.connect("chains", "main").await?;
    pgbench_init(compute.port, settings.scale)?;
    pgbench(compute.port, &["-n", "-c", "4", "-t", &settings.transactions.to_string()])?;
    // Each update in a transaction of its own, so that the page is pruned when it is full: a few records more.
    let (count, updates) = (settings.chains * SPACING, RECORDS_PER_IMAGE - PRUNES_MAX - 2);
    database.run("SET synchronous_commit = off").await?;
    database
        .run(&format!(
            "DO $$ BEGIN
               FOR t IN 1..{count} LOOP
                 EXECUTE 'CREATE TABLE chain_' || t || ' (n int, padding text)';
                 EXECUTE 'INSERT INTO chain_' || t || ' VALUES (0, md5(random()::text))';
                 FOR u IN 1..{updates} LOOP
                   EXECUTE 'UPDATE chain_' || t || ' SET n = n + 1, padding = md5(random()::text)';
                   COMMIT;
                 END LOOP;
               END LOOP;
             END $$"
        ))
        .await?;
    let mut tables = Vec::with_capacity(count);
    for number in 1..=count {
        tables.push(template::table(&database, &format!("chain_{number}")).await?);
    }
    drop(database);
    cluster.api.stop("chains", "main").await?;
    Ok(tables)
}

fn read(client: &mut Client, table: Table) -> anyhow::Result<f64> {
    anyhow::ensure!(table.blocks == 1, "the rows of one page went to {} pages", table.blocks);
    let request = client.range(table.fork, 0, 1);
    let began = Instant::now();
    client.ask(&request)?;
    Ok(began.elapsed().as_secs_f64() * 1e6)
}
