//! Templates of a user's own: from any cleanly stopped data directory, and from any moment of a branch.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{
    harness::{Cluster, Database, Stock, amcheck, program},
    projects::{Up, rows},
};

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

/// The running computes' folders, in the order of their names.
fn computes(up: &Up) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(up.data().join("computes"))? {
        let folder = entry?.path();
        if folder.join("socket").is_dir() {
            found.insert(folder);
        }
    }
    Ok(found)
}

/// What the superuser of a compute is answered, a line each.
fn superuser(compute: &Path, sql: &str) -> anyhow::Result<Vec<String>> {
    let socket = fs::read_dir(compute.join("socket"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find_map(|name| name.strip_prefix(".s.PGSQL.")?.parse::<u16>().ok())
        .context("a compute has a socket")?;
    let mut psql = program("psql");
    psql.args(["-XqAt", "-U", "postgres", "-d", "app", "-p", &socket.to_string(), "-c", sql]);
    let output = psql.arg("-h").arg(compute.join("socket")).output()?;
    ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

/// Which of these texts stand anywhere in the pages that a compute's Postgres has: in rows that are
/// dead, and between rows, too.
fn found_in_pages(compute: &Path, texts: &[String]) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![compute.join("data/base"), compute.join("data/global")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = fs::read(entry.path())?;
            for text in texts {
                if memmem(&bytes, text.as_bytes()) {
                    found.insert(text.clone());
                }
            }
        }
    }
    Ok(found)
}

fn memmem(bytes: &[u8], text: &[u8]) -> bool {
    let first = text.first().copied().unwrap_or_default();
    let places = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
    places.into_iter().any(|(place, _)| bytes[place..].starts_with(text))
}

/// What lets in, of a role whose password was changed often, and elsewhere.
fn plant_secrets(compute: &Path) -> anyhow::Result<Vec<String>> {
    let mut secrets = Vec::new();
    superuser(compute, "CREATE ROLE other LOGIN")?;
    for number in 0..8 {
        superuser(compute, &format!("ALTER ROLE other PASSWORD 'secret-{number}'"))?;
        let verifiers = "SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL";
        secrets.extend(superuser(compute, verifiers)?);
    }
    superuser(compute, "CREATE EXTENSION postgres_fdw")?;
    superuser(compute, "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw")?;
    let mapping = "CREATE USER MAPPING FOR app SERVER far OPTIONS (password 'of-a-mapping')";
    superuser(compute, mapping)?;
    let subscription = "CREATE SUBSCRIPTION far CONNECTION 'host=127.0.0.1 port=1 \
                        password=of-a-subscription' PUBLICATION p WITH (connect = false)";
    superuser(compute, subscription)?;
    secrets.extend(["of-a-mapping", "of-a-subscription"].map(str::to_owned));
    secrets.sort_unstable();
    secrets.dedup();
    // Statistics have samples of what a column holds.
    superuser(compute, "ANALYZE pg_authid")?;
    superuser(compute, "CHECKPOINT")?;
    Ok(secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_of_a_branch_becomes_a_template_that_knows_nobodys_password() -> anyhow::Result<()>
{
    let up = Up::start_with(&[]).await?;
    let made = up.json(&["project", "create", "acme", "--suspend-after", "never"])?;
    let source = made["project"]["id"].as_str().context("an id")?.to_owned();
    let sql = |project: &str, sql: &str| up.table(&["psql", project, "--", "-XqAtc", sql]);
    sql("acme", "CREATE TABLE t AS SELECT n, md5(n::text) v FROM generate_series(1, 20000) n")?;
    let digest = "SELECT count(*), md5(string_agg(v, '' ORDER BY n)) FROM t";
    let expected = sql("acme", digest)?;
    let compute = computes(&up)?.into_iter().next().context("it runs")?;
    let secrets = plant_secrets(&compute)?;
    let lsn = sql("acme", "SELECT pg_current_wal_flush_lsn()")?.trim().to_owned();
    sql("acme", "INSERT INTO t VALUES (0, 'too late')")?;
    let found = found_in_pages(&compute, &secrets)?;
    for secret in &secrets[secrets.len() - 2..] {
        ensure!(found.contains(secret), "{secret} is nowhere: the search finds nothing");
    }
    ensure!(found.len() > 4, "old verifiers are nowhere: {found:?}");
    ensure!(!superuser(&compute, "SELECT 1 FROM pg_statistic WHERE starelid = 1260")?.is_empty());

    let made = up.json(&["template", "create", "shop", "--project", "acme", "--lsn", &lsn])?;
    ensure!(made["operations"][0]["action"] == "publish_template", "{made}");
    ensure!(made["operations"][0]["status"] == "finished", "{made}");
    let shown = up.json(&["template", "show", "shop"])?["template"].clone();
    ensure!(shown["current_state"] == "ready" && shown["project_id"] == source, "{shown}");
    let listed = up.table(&["template", "list"])?;
    ensure!(rows(&listed, "shop").len() == 1 && rows(&listed, "default").len() == 1, "{listed}");
    // Nothing is left of how it was made, and none of its objects speaks of the project.
    ensure!(computes(&up)?.len() == 1, "a compute is left");
    let template = shown["id"].as_str().context("an id")?;
    let tenant: Value =
        up.json(&["--control-plane", up.control_plane(), "tenant", "show", &source])?;
    let tenant = tenant["id"].as_str().context("a tenant has an id")?.to_owned();
    let mut folders = vec![up.data().join("store/tenants").join(template)];
    let mut objects = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            objects += 1;
            ensure!(
                !memmem(&fs::read(&path)?, tenant.as_bytes()),
                "{} speaks of it",
                path.display()
            );
        }
    }
    ensure!(objects > 2, "a template of {objects} objects");

    up.json(&["project", "create", "zeta", "--template", "shop", "--suspend-after", "never"])?;
    ensure!(sql("zeta", digest)? == expected, "it is not as it was at {lsn}");
    let before = BTreeSet::from([compute.clone()]);
    let new = computes(&up)?.difference(&before).next().cloned().context("it runs")?;
    superuser(&new, "CHECKPOINT")?;
    let found = found_in_pages(&new, &secrets)?;
    ensure!(found.is_empty(), "the template tells {found:?}");
    let roles = "SELECT rolname FROM pg_authid WHERE rolname = 'other' AND rolpassword IS NULL";
    ensure!(superuser(&new, roles)?.len() == 1, "the role itself is there");
    ensure!(superuser(&new, "SELECT subname FROM pg_subscription")?.is_empty());

    // The next version is another template; the first is used, and stays.
    sql("acme", "DELETE FROM t")?;
    let (code, said) = up.refused(&["template", "create", "shop", "--project", "acme"])?;
    ensure!(code == 5 && said.contains("another name"), "{said}");
    up.json(&["template", "create", "shop-2", "--project", "acme"])?;
    ensure!(sql("zeta", digest)? == expected);
    let zeta = up.json(&["project", "show", "zeta"])?["project"]["id"].clone();
    let (code, said) = up.refused(&["template", "delete", "shop"])?;
    ensure!(code == 5 && said.contains(zeta.as_str().unwrap_or_default()), "{said}");
    up.table(&["project", "delete", "zeta", "--yes"])?;
    let (code, said) = up.refused(&["template", "delete", "shop"])?;
    ensure!(code == 5 && said.contains("recovered"), "{said}");
    up.table(&["project", "restore", "zeta"])?;
    ensure!(sql("zeta", digest)? == expected);
    up.table(&["template", "delete", "shop-2"])?;
    ensure!(rows(&up.table(&["template", "list"])?, "shop-2").is_empty());
    let (_, said) = up.refused(&["project", "create", "late", "--template", "shop-2"])?;
    ensure!(said.contains("there is no template"), "{said}");
    let (_, said) = up.refused(&["template", "delete", "default"])?;
    ensure!(said.contains("begin as this one"), "{said}");

    let schema = up.table(&["branch", "schema", "acme", "main"])?;
    ensure!(schema.contains("CREATE TABLE public.t"), "{schema}");
    let before = ["branch", "schema", "zeta", "main", "--database", "app", "--lsn", "0/1"];
    let (_, said) = up.refused(&before)?;
    ensure!(!said.is_empty());
    up.stop()
}
