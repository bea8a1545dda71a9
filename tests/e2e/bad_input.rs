//! What people get wrong, and what breaks: a sentence each, and nothing wrong is served.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Cluster, PATIENCE, Role, amcheck, eventually};

/// The sentence with which a branch at this moment is refused.
async fn refused_at(cluster: &Cluster, at: Value) -> anyhow::Result<String> {
    let body = json!({ "name": "refused", "at": at });
    let (status, said) = cluster.api.refused("tenants/acme/branches", body).await?;
    anyhow::ensure!(status.is_client_error() || status.as_u16() == 503, "{status}: {said}");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lsn_inside_a_record_is_rounded_down_and_that_is_said() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (_, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (v text)").await?;
    let before = database.lsn().await?;
    database.run("INSERT INTO t VALUES (repeat('x', 2000))").await?;
    let query = format!("SELECT ('{before}'::pg_lsn + 8)::text");
    let inside: String = database.one(&query).await?;
    let made = cluster.api.create_branch_at("acme", "inside", &inside).await?;
    assert_eq!(made["rounded_from"], json!(inside), "{made}");
    assert_eq!(made["branch_point"], json!(before), "{made}");
    let (_, branch) = cluster.connect("acme", "inside").await?;
    assert_eq!(branch.one::<i64>("SELECT count(*) FROM t").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_moments_are_refused_with_a_sentence_each() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (_, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t AS SELECT 1 AS n").await?;
    let said = refused_at(&cluster, json!({ "timestamp": "2026-03-01T12:00:00" })).await?;
    assert!(said.contains("zone"), "{said}");
    let said = refused_at(&cluster, json!({ "timestamp": "2999-01-01T00:00:00Z" })).await?;
    assert!(said.contains("future"), "{said}");
    let said = refused_at(&cluster, json!({ "timestamp": "1999-01-01T00:00:00Z" })).await?;
    assert!(said.contains("before"), "{said}");
    let said = refused_at(&cluster, json!({ "lsn": "nonsense" })).await?;
    assert!(said.contains("nonsense"), "{said}");
    let said = refused_at(&cluster, json!({ "lsn": "0/100" })).await?;
    assert!(said.contains("0/100") && said.contains("oldest") || said.contains("begins"), "{said}");
    let beyond = refused_at(&cluster, json!({ "lsn": "FF/0" }));
    let said = timeout(PATIENCE, beyond).await.context("it waits for ever")??;
    assert!(said.contains("FF/0") && said.contains("ingest is at"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_not_exist_or_make_no_sense_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.api.create_tenant("acme").await?;
    for name in ["", "a b", "../x", "ä", &"x".repeat(200)] {
        let (status, said) = cluster.api.refused("tenants", json!({ "name": name })).await?;
        assert_eq!(status.as_u16(), 400, "{name:?}: {said}");
    }
    let (status, said) =
        cluster.api.refused("tenants", json!({ "name": "b", "template": "none" })).await?;
    assert_eq!(status.as_u16(), 404, "{said}");
    let (status, said) =
        cluster.api.refused("tenants/nobody/branches", json!({ "name": "b" })).await?;
    assert_eq!(status.as_u16(), 404, "{said}");
    let body = json!({ "name": "main" });
    let (status, said) = cluster.api.refused("tenants/acme/branches", body).await?;
    assert_eq!(status.as_u16(), 409, "{said}");
    let body = json!({ "name": "b", "from": "nowhere" });
    let (status, said) = cluster.api.refused("tenants/acme/branches", body).await?;
    assert_eq!(status.as_u16(), 404, "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_a_template_is_refused_with_the_reason()
-> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let folder = cluster.path("not-a-cluster");
    fs::create_dir(&folder)?;
    let import = |pgdata: PathBuf| {
        let body = json!({ "name": "bad", "pgdata": pgdata });
        let api = cluster.api.clone();
        async move { api.refused("templates", body).await }
    };
    let (_, said) = import(cluster.path("missing")).await?;
    assert!(said.contains("missing"), "{said}");
    let (_, said) = import(folder.clone()).await?;
    assert!(said.contains("PG_VERSION"), "{said}");
    fs::write(folder.join("PG_VERSION"), "9.6\n")?;
    let (_, said) = import(folder.clone()).await?;
    assert!(said.contains("9.6"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_layer_is_named_and_nothing_wrong_is_served() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database
        .run("CREATE TABLE t AS SELECT i, md5(i::text) v FROM generate_series(1, 20000) i")
        .await?;
    drop(database);
    cluster.api.stop("acme", "main").await?;
    // A clean stop of the pageserver flushes what it has into layers.
    cluster.stop_role(Role::Pageserver)?;
    let folder = cluster
        .path("store/tenants")
        .join(compute.tenant_id.to_string())
        .join(format!("timelines/{}/layers", compute.timeline_id));
    let mut layers: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    layers.sort_by_key(|layer| fs::metadata(layer).map(|metadata| metadata.len()).ok());
    let layer = layers.last().expect("the table's rows are in a layer");
    let mut bytes = Vec::new();
    fs::File::open(layer)?.read_to_end(&mut bytes)?;
    for offset in (0..bytes.len() / 2).step_by(997) {
        bytes[offset] ^= 0x55;
    }
    fs::write(layer, bytes)?;
    cluster.start_role(Role::Pageserver)?;

    let served = async {
        let (_, database) = cluster.connect("acme", "main").await?;
        database.one::<i64>("SELECT count(DISTINCT v) FROM t").await
    };
    let error = timeout(PATIENCE, served).await;
    assert!(!matches!(error, Ok(Ok(_))), "a damaged layer was served");
    let log = fs::read_to_string(cluster.compute_folder(&compute).with_extension("log"))?;
    let name = layer.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    assert!(log.contains(name), "the damaged layer {name} is not named:\n{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_wal_byte_is_named_and_a_safekeeper_that_has_it_whole_is_found()
-> anyhow::Result<()> {
    const ROW: &str = "this row goes through the WAL once, and stays in three journals";
    let mut cluster = Cluster::start().await?;
    let (compute, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (v text); INSERT INTO t VALUES ('first')").await?;
    // From here on the pageserver knows nothing: it will read the WAL from a safekeeper.
    cluster.kill_role(Role::Pageserver);
    database.run(&format!("INSERT INTO t VALUES ('{ROW}')")).await?;
    drop(database);
    cluster.kill_compute(&compute).await?;
    let damaged: Vec<(File, u64)> =
        (1..=3).map(|number| flip(&cluster, number, ROW)).collect::<anyhow::Result<_>>()?;
    cluster.start_role(Role::Pageserver)?;
    let refused = cluster.api.start("acme", "main").await;
    let said = format!("{:#}", refused.err().context("a compute started on damaged WAL")?);
    assert!(said.contains("journal segment 1 is damaged at offset"), "{said}");

    let (journal, place) = &damaged[2];
    journal.write_all_at(&ROW.as_bytes()[..1], *place)?;
    let (compute, database) = eventually("the whole WAL is found", PATIENCE, async || {
        cluster.connect("acme", "main").await
    })
    .await?;
    let found = format!("SELECT count(*) FROM t WHERE v IN ('first', '{ROW}')");
    assert_eq!(database.one::<i64>(&found).await?, 2);
    amcheck(compute.port)
}

/// Changes the first letter of this text in a safekeeper's journal; the file and the place.
fn flip(cluster: &Cluster, number: usize, text: &str) -> anyhow::Result<(File, u64)> {
    let path = cluster.path(&format!("safekeeper-{number}/journal/0000000001.segment"));
    let journal = File::options().read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    (&journal).read_to_end(&mut bytes)?;
    let place = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    let place = place.context("the journal has the text")? as u64;
    journal.write_all_at(b"?", place)?;
    Ok((journal, place))
}
