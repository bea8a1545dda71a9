//! A template with pgbench's tables: as images, every page of them.

use protocol::TenantTimeline;
use reqwest::Method;
use serde_json::json;
use wal_format::{Fork, Relation, RelationFork};

use crate::harness::{Cluster, Database, Stock, pgbench_init};

/// The template's name.
pub const NAME: &str = "pgbench";

/// The table that is read.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub fork: RelationFork,
    pub blocks: u32,
}

/// Makes a data directory with stock Postgres and imports it.
pub async fn import(cluster: &Cluster, scale: u32) -> anyhow::Result<Table> {
    let options = ["--locale=C.UTF-8", "-E", "UTF8", "--auth=trust"];
    let mut stock = Stock::initdb(cluster.path("pgdata"), &options)?;
    stock.start()?;
    let table = fill(stock.port, scale).await?;
    stock.stop("fast")?;
    let body = json!({ "name": NAME, "pgdata": stock.data() });
    cluster.api.storage(Method::POST, "templates", Some(body)).await?;
    Ok(table)
}

async fn fill(port: u16, scale: u32) -> anyhow::Result<Table> {
    Database::connect_to(port, "postgres").await?.run("CREATE DATABASE app").await?;
    pgbench_init(port, scale)?;
    let database = Database::connect_to(port, "app").await?;
    table(&database, "pgbench_accounts").await
}

/// Where a table's pages are.
pub async fn table(database: &Database, name: &str) -> anyhow::Result<Table> {
    let number: i64 =
        database.one(&format!("SELECT pg_relation_filenode('{name}')::bigint")).await?;
    let own = "SELECT oid::bigint FROM pg_database WHERE datname = current_database()";
    let own: i64 = database.one(own).await?;
    let blocks = format!("SELECT pg_relation_size('{name}') / 8192");
    let blocks: i64 = database.one(&blocks).await?;
    let relation = Relation {
        tablespace: 1663,
        database: u32::try_from(own)?,
        number: u32::try_from(number)?,
    };
    Ok(Table { fork: relation.fork(Fork::Main), blocks: u32::try_from(blocks)? })
}

/// Creates a tenant; its timeline.
pub async fn tenant(
    cluster: &Cluster,
    name: &str,
    template: Option<&str>,
) -> anyhow::Result<TenantTimeline> {
    let body = match template {
        Some(template) => json!({ "name": name, "template": template }),
        None => json!({ "name": name }),
    };
    let tenant = cluster.api.storage(Method::POST, "tenants", Some(body)).await?;
    let id = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(TenantTimeline {
        tenant: id(&tenant["id"]).parse()?,
        timeline: id(&tenant["branches"][0]["timeline_id"]).parse()?,
    })
}
