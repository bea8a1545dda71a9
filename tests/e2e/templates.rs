//! Templates of a user's own, from any cleanly stopped data directory.

use std::path::Path;

use serde_json::json;

use crate::harness::{Cluster, Database, Stock, amcheck};

async fn import(cluster: &Cluster, name: &str, pgdata: &Path) -> anyhow::Result<()> {
    let body = json!({ "name": name, "pgdata": pgdata });
    cluster.api.storage(reqwest::Method::POST, "templates", Some(body)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_with_checksums_extensions_and_data_becomes_a_template()
-> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mut stock = Stock::initdb(cluster.path("seed"), &["--data-checksums"])?;
    stock.start()?;
    Database::connect_to(stock.port, "postgres").await?.run("CREATE DATABASE app").await?;
    let seed = Database::connect_to(stock.port, "app").await?;
    seed.run("CREATE EXTENSION pgcrypto; CREATE TABLE t AS SELECT i, md5(i::text) v FROM generate_series(1, 20000) i; CREATE INDEX ON t (v)").await?;
    let digest = "SELECT md5(string_agg(v, '' ORDER BY i)) FROM t";
    let expected: String = seed.one(digest).await?;
    drop(seed);
    stock.stop("fast")?;
    import(&cluster, "shop", stock.data()).await?;

    // Two tenants of it, each its own; Postgres itself checks every page's checksum.
    for name in ["acme", "zeta"] {
        let body = json!({ "name": name, "template": "shop" });
        cluster.api.storage(reqwest::Method::POST, "tenants", Some(body)).await?;
        let (compute, database) = cluster.connect(name, "main").await?;
        assert_eq!(database.one::<String>("SHOW data_checksums").await?, "on");
        assert_eq!(database.one::<String>(digest).await?, expected);
        let hash: i32 = database.one("SELECT length(digest('x', 'sha256'))").await?;
        assert_eq!(hash, 32);
        database.run(&format!("UPDATE t SET v = '{name}' WHERE i % 3 = 0")).await?;
        drop(database);
        cluster.kill_compute(&compute).await?;
        let (compute, database) = cluster.connect(name, "main").await?;
        let changed = format!("SELECT count(*) FROM t WHERE v = '{name}'");
        assert_eq!(database.one::<i64>(&changed).await?, 6666);
        amcheck(compute.port)?;
        drop(database);
        cluster.api.stop(name, "main").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_or_crashed_data_directory_is_refused_with_the_reason() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mut stock = Stock::initdb(cluster.path("seed"), &[])?;
    stock.start()?;
    let body = json!({ "name": "bad", "pgdata": stock.data() });
    let (_, said) = cluster.api.refused("templates", body.clone()).await?;
    stock.stop("immediate")?;
    assert!(said.contains("running"), "{said}");
    let (_, said) = cluster.api.refused("templates", body).await?;
    assert!(said.contains("clean"), "{said}");
    Ok(())
}
