//! Which data directories become templates, and which do not.

use std::fs;

use anyhow::Result;
use redo_oracle::cluster::Cluster;
use reqwest::Method;
use serde_json::json;

use crate::world::{World, enable_checksums, kill};

/// Tries to import the cluster, which is refused with this in the sentence.
async fn refused(world: &World, cluster: &Cluster, with: &str) -> Result<()> {
    let body = json!({ "name": "refused", "pgdata": cluster.data() });
    let post = (Method::POST, "/v1/templates");
    let message = world.refused(post, Some(body), 400, "bad_request").await?;
    assert!(message.contains(with), "{message:?} does not say {with:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_not_at_rest_is_refused_with_the_reason() -> Result<()> {
    let world = World::new().await?;
    let mut cluster = Cluster::create("max_prepared_transactions = 1\n")?;
    let data = cluster.data();

    cluster.start()?;
    refused(&world, &cluster, "a server is running").await?;
    let prepare =
        "CREATE TABLE t (a int); BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'p'";
    cluster.sql("postgres", prepare)?;
    cluster.stop()?;
    refused(&world, &cluster, "prepared transaction").await?;
    cluster.start()?;
    cluster.sql("postgres", "COMMIT PREPARED 'p'")?;
    cluster.stop()?;

    fs::write(data.join("standby.signal"), "")?;
    refused(&world, &cluster, "standby.signal").await?;
    fs::remove_file(data.join("standby.signal"))?;

    let control = fs::read(data.join("global/pg_control"))?;
    let mut damaged = control.clone();
    damaged[40] ^= 1;
    fs::write(data.join("global/pg_control"), damaged)?;
    refused(&world, &cluster, "checksum").await?;
    fs::write(data.join("global/pg_control"), &control)?;

    fs::write(data.join("PG_VERSION"), "13\n")?;
    refused(&world, &cluster, "\"13\"").await?;
    fs::write(data.join("PG_VERSION"), "15\n")?;

    world.import("taken", &data).await?;
    let templates = world.ok(Method::GET, "/v1/templates", None).await?;
    assert_eq!(templates["templates"].as_array().map(Vec::len), Some(1), "{templates}");
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_was_killed_is_refused() -> Result<()> {
    let world = World::new().await?;
    let mut cluster = Cluster::create("")?;
    cluster.start()?;
    kill(&cluster)?;
    refused(&world, &cluster, "not cleanly stopped (pg_control says in production)").await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_refused_by_file_and_block() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    enable_checksums(&cluster)?;
    let path = cluster.data().join("base/5/1259");
    let mut bytes = fs::read(&path)?;
    bytes[3 * 8192 + 5000] ^= 1;
    fs::write(&path, &bytes)?;
    refused(&world, &cluster, "base/5/1259 is damaged at block 3: checksum").await?;
    fs::write(&path, &bytes[..100])?;
    refused(&world, &cluster, "whole pages").await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_data_directory_is_refused() -> Result<()> {
    let world = World::new().await?;
    let post = |pgdata: &str| {
        let body = json!({ "name": "refused", "pgdata": pgdata });
        world.refused((Method::POST, "/v1/templates"), Some(body), 400, "bad_request")
    };
    assert!(post("/").await?.contains("has no PG_VERSION"));
    assert!(post("relative/path").await?.contains("absolute"));
    assert!(post("/nonexistent/folder").await?.contains("has no PG_VERSION"));
    world.stop().await;
    Ok(())
}
