//! Templates of a user's own, from any cleanly stopped data directory.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::ensure;
use serde_json::json;

use crate::harness::{Cluster, Database, amcheck, free_port, program};

/// A data directory of stock Postgres, run by the unprivileged user.
struct Stock {
    folder: PathBuf,
    port: u16,
}

impl Stock {
    fn initdb(folder: PathBuf, options: &[&str]) -> anyhow::Result<Stock> {
        std::fs::create_dir(&folder)?;
        let owned = Command::new("chown").arg("postgres").arg(&folder).status()?;
        ensure!(owned.success());
        let stock = Stock { folder, port: free_port() };
        let data = stock.data()?.to_owned();
        let mut arguments = vec!["-D", &data, "-U", "postgres", "--no-sync"];
        arguments.extend(options);
        stock.run("initdb", &arguments)?;
        Ok(stock)
    }

    fn data(&self) -> anyhow::Result<&str> {
        self.folder.to_str().ok_or_else(|| anyhow::anyhow!("a path in UTF-8"))
    }

    fn start(&self) -> anyhow::Result<()> {
        let options = format!("-p {} -h 127.0.0.1 -k ''", self.port);
        let log = format!("{}/log", self.data()?);
        self.run("pg_ctl", &["-D", self.data()?, "-w", "-l", &log, "-o", &options, "start"])
    }

    fn stop(&self, mode: &str) -> anyhow::Result<()> {
        self.run("pg_ctl", &["-D", self.data()?, "-w", "-m", mode, "stop"])
    }

    fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program(name).get_program()).args(arguments);
        let status = command.current_dir("/").stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(())
    }
}

async fn import(cluster: &Cluster, name: &str, pgdata: &Path) -> anyhow::Result<()> {
    let body = json!({ "name": name, "pgdata": pgdata });
    cluster.api.storage(reqwest::Method::POST, "templates", Some(body)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_with_checksums_extensions_and_data_becomes_a_template()
-> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let stock = Stock::initdb(cluster.path("seed"), &["--data-checksums"])?;
    stock.start()?;
    Database::connect_to(stock.port, "postgres").await?.run("CREATE DATABASE app").await?;
    let seed = Database::connect_to(stock.port, "app").await?;
    seed.run("CREATE EXTENSION pgcrypto; CREATE TABLE t AS SELECT i, md5(i::text) v FROM generate_series(1, 20000) i; CREATE INDEX ON t (v)").await?;
    let digest = "SELECT md5(string_agg(v, '' ORDER BY i)) FROM t";
    let expected: String = seed.one(digest).await?;
    drop(seed);
    stock.stop("fast")?;
    import(&cluster, "shop", &stock.folder).await?;

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
    let stock = Stock::initdb(cluster.path("seed"), &[])?;
    stock.start()?;
    let body = json!({ "name": "bad", "pgdata": stock.folder });
    let (_, said) = cluster.api.refused("templates", body.clone()).await?;
    stock.stop("immediate")?;
    assert!(said.contains("running"), "{said}");
    let (_, said) = cluster.api.refused("templates", body).await?;
    assert!(said.contains("clean"), "{said}");
    Ok(())
}
