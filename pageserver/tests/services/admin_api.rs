//! Every route of the admin API and every error, over HTTP.

use anyhow::{Context, Result};
use redo_oracle::cluster::Cluster;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wal_format::Lsn;

use crate::world::{World, any_timeline};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// A cluster with two moments of history: the end of a first and of a second transaction.
struct History {
    cluster: Cluster,
    /// The start of the template.
    first: Lsn,
    /// Its end.
    end: Lsn,
    /// Between the two transactions, RFC 3339.
    between: String,
}

impl History {
    /// A template `stock`, a tenant `acme`, and its WAL.
    async fn make(world: &World) -> Result<History> {
        let mut cluster = Cluster::create("wal_keep_size = 1GB\n")?;
        let template = world.import("stock", &cluster.data()).await?;
        let first = text(&template["lsn"])?.parse()?;
        let timeline = world.tenant("acme", "stock").await?;
        cluster.start()?;
        cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 100) n")?;
        let now = "SELECT pg_sleep(0.02); \
                   SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'); \
                   SELECT pg_sleep(0.02)";
        let between = cluster.sql("postgres", now)?.trim().to_owned();
        cluster.sql("postgres", "DELETE FROM t")?;
        cluster.stop()?;
        let end = world.serve_wal(timeline, &cluster)?;
        Ok(History { cluster, first, end, between })
    }
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

const BRANCHES: &str = "/v1/tenants/acme/branches";

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_imported_and_listed() -> Result<()> {
    let world = World::new().await?;
    assert_eq!(world.ok(GET, "/v1/templates", None).await?, json!({ "templates": [] }));
    let cluster = Cluster::create("")?;
    let template = world.import("stock", &cluster.data()).await?;
    assert_eq!(template["name"], "stock");
    assert!(template["logical_size_bytes"].as_u64() > Some(1 << 20), "{template}");
    assert!(template["stored_bytes"].as_u64() > Some(100_000), "{template}");
    let listed = world.ok(GET, "/v1/templates", None).await?;
    assert_eq!(listed, json!({ "templates": [template] }));

    let again = json!({ "name": "stock", "pgdata": cluster.data() });
    world.refused((POST, "/v1/templates"), Some(again), 409, "exists").await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_created_shown_listed_and_deleted() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    world.import("default", &cluster.data()).await?;
    let body = json!({ "name": "acme" });
    let (status, acme) = world.api(POST, "/v1/tenants", Some(body.clone())).await?;
    assert_eq!(status, StatusCode::CREATED, "{acme}");
    assert_eq!(acme["branches"][0]["name"], "main");
    assert!(text(&acme["created_at"])?.ends_with('Z'), "{acme}");
    let id = text(&acme["id"])?;
    assert_eq!(world.ok(GET, "/v1/tenants/acme", None).await?, acme);
    assert_eq!(world.ok(GET, &format!("/v1/tenants/{id}"), None).await?, acme);
    world.refused((POST, "/v1/tenants"), Some(body), 409, "exists").await?;
    let other = world.ok(POST, "/v1/tenants", Some(json!({ "name": "a-1_z" }))).await?;
    assert_eq!(world.ok(GET, "/v1/tenants", None).await?, json!({ "tenants": [other, acme] }));

    let (status, body) = world.api(DELETE, "/v1/tenants/acme", None).await?;
    assert_eq!((status, body), (StatusCode::NO_CONTENT, Value::Null));
    world.refused((GET, "/v1/tenants/acme"), None, 404, "not_found").await?;
    world.refused((DELETE, "/v1/tenants/acme"), None, 404, "not_found").await?;
    assert_eq!(world.ok(GET, "/v1/tenants", None).await?, json!({ "tenants": [other] }));
    // The name is free again.
    world.ok(POST, "/v1/tenants", Some(json!({ "name": "acme" }))).await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_says_how_much_history_it_keeps_and_is_told_another_window() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    world.import("default", &cluster.data()).await?;
    let acme = world.ok(POST, "/v1/tenants", Some(json!({ "name": "acme" }))).await?;
    assert_eq!(acme["history"], json!({ "seconds": 7 * 24 * 3600 }));
    let history = json!({ "seconds": 60, "bytes": 1_000_000 });
    let body = json!({ "name": "other", "history": history });
    assert_eq!(world.ok(POST, "/v1/tenants", Some(body)).await?["history"], history);

    let shorter = json!({ "history": { "bytes": 5 } });
    let changed = world.ok(PATCH, "/v1/tenants/acme", Some(shorter.clone())).await?;
    assert_eq!(changed["history"], shorter["history"]);
    assert_eq!(world.ok(GET, "/v1/tenants/acme", None).await?, changed);
    let main = world.ok(GET, &format!("{BRANCHES}/main"), None).await?;
    assert_eq!(main["oldest_lsn"], Value::Null, "nothing was written that could be given up");

    let patch = (PATCH, "/v1/tenants/acme");
    for nothing in [json!({ "history": {} }), json!({ "history": { "days": 1 } }), json!({})] {
        world.refused(patch.clone(), Some(nothing), 400, "bad_request").await?;
    }
    let unknown = (PATCH, "/v1/tenants/nobody");
    world.refused(unknown, Some(shorter), 404, "not_found").await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_made_at_head_at_an_lsn_and_at_a_timestamp() -> Result<()> {
    let world = World::new().await?;
    let history = History::make(&world).await?;
    let create = async |body: Value| {
        let (status, branch) = world.api(POST, BRANCHES, Some(body)).await?;
        anyhow::ensure!(status == StatusCode::CREATED, "{status} {branch}");
        Ok(branch)
    };
    let head = create(json!({ "name": "head" })).await?;
    assert_eq!(head["branch_point"], history.end.to_string());
    assert_eq!(head["last_record_lsn"], history.end.to_string());
    assert_eq!(head["ancestor"]["name"], "main");
    assert_eq!(head["stored_bytes"], 0, "a branch copies nothing");
    assert_eq!(head.get("rounded_from"), None);

    let at = json!({ "lsn": history.first.to_string() });
    let early = create(json!({ "name": "early", "from": "main", "at": at })).await?;
    assert_eq!(early["branch_point"], history.first.to_string());
    assert!(early["logical_size_bytes"].as_u64() < head["logical_size_bytes"].as_u64());

    let inside = history.end.0 - 8;
    let at = json!({ "lsn": Lsn(inside).to_string() });
    let rounded = create(json!({ "name": "rounded", "at": at })).await?;
    assert_eq!(rounded["rounded_from"], Lsn(inside).to_string());
    assert!(text(&rounded["branch_point"])?.parse::<Lsn>()? < Lsn(inside));

    let at = json!({ "timestamp": history.between });
    let between = create(json!({ "name": "between", "from": "head", "at": at })).await?;
    let point: Lsn = text(&between["branch_point"])?.parse()?;
    assert!(history.first < point && point < history.end, "{between}");

    let listed = world.ok(GET, BRANCHES, None).await?;
    let listed = listed["branches"].as_array().context("a list")?;
    let names: Vec<_> = listed.iter().map(|branch| branch["name"].as_str()).collect();
    assert_eq!(names, ["main", "head", "early", "rounded", "between"].map(Some));
    let shown = world.ok(GET, &format!("{BRANCHES}/head"), None).await?;
    assert_eq!(shown, head);
    let by_id = format!("{BRANCHES}/{}", text(&head["timeline_id"])?);
    assert_eq!(world.ok(GET, &by_id, None).await?, head);
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_branch_is_only_an_entry_until_somebody_uses_it() -> Result<()> {
    let world = World::new().await?;
    let history = History::make(&world).await?;
    let loaded = async || {
        let status = world.ok(GET, "/v1/status", None).await?;
        let timelines = status["timelines"].as_array().context("a list")?;
        Ok::<_, anyhow::Error>(
            timelines.iter().map(|it| it["timeline_id"].clone()).collect::<Vec<_>>(),
        )
    };
    let main = world.ok(GET, &format!("{BRANCHES}/main"), None).await?;
    let before = loaded().await?;
    assert!(before.contains(&main["timeline_id"]), "{before:?}");
    let early = json!({ "lsn": history.first.to_string() });
    let mut branches = Vec::new();
    for body in [json!({ "name": "head" }), json!({ "name": "early", "at": early })] {
        branches.push(world.ok(POST, BRANCHES, Some(body)).await?);
    }
    assert_eq!(loaded().await?, before);
    let main = world.ok(GET, &format!("{BRANCHES}/main"), None).await?;
    assert_eq!(branches[0]["logical_size_bytes"], main["logical_size_bytes"]);
    assert!(branches[1]["logical_size_bytes"].as_u64() > Some(1 << 20), "{branches:?}");
    for said in branches {
        let name = text(&said["name"])?;
        // Loaded now, and the same.
        assert_eq!(world.ok(GET, &format!("{BRANCHES}/{name}"), None).await?, said);
        assert!(loaded().await?.contains(&said["timeline_id"]), "{said}");
    }
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_is_not_there_is_refused_with_a_sentence() -> Result<()> {
    let world = World::new().await?;
    let history = History::make(&world).await?;
    let refused = async |at: Value, status, code: &str| {
        let body = json!({ "name": "never", "at": at });
        world.refused((POST, BRANCHES), Some(body), status, code).await
    };
    let bad = "bad_request";
    let message = refused(json!({ "timestamp": "2026-01-01T10:00:00" }), 400, bad).await?;
    assert!(message.contains("zone"), "{message}");
    let message = refused(json!({ "timestamp": "2926-01-01T10:00:00Z" }), 400, bad).await?;
    assert!(message.contains("is in the future"), "{message}");
    let message = refused(json!({ "timestamp": "2016-01-01T10:00:00+02:00" }), 400, bad).await?;
    assert!(message.contains("before the tenant's creation"), "{message}");
    let message = refused(json!({ "lsn": "16B3748" }), 400, bad).await?;
    assert!(message.contains("is not an LSN"), "{message}");
    for at in [json!({}), json!({ "lsn": "0/1", "timestamp": "2026-01-01T10:00:00Z" })] {
        refused(at, 400, bad).await?;
    }
    refused(json!({ "lns": "0/1" }), 400, bad).await?;
    let message = refused(json!({ "lsn": "0/8" }), 410, "gone").await?;
    assert!(message.contains(&history.first.to_string()), "{message}");
    let beyond = (history.end + 8).to_string();
    let message = refused(json!({ "lsn": beyond }), 409, "not_yet").await?;
    assert!(message.contains(&history.end.to_string()), "{message}");

    let timeline = world.tenant("lost", "stock").await?;
    world.heads.0.lock().insert(timeline, Err("no quorum of safekeepers answers".to_owned()));
    let at_head = (POST, "/v1/tenants/lost/branches");
    let body = json!({ "name": "never" });
    let message = world.refused(at_head, Some(body), 503, "unavailable").await?;
    assert!(message.contains("no quorum"), "{message}");
    drop(history.cluster);
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_restored_in_place_and_what_it_was_is_kept() -> Result<()> {
    let world = World::new().await?;
    let history = History::make(&world).await?;
    let main = world.ok(GET, &format!("{BRANCHES}/main"), None).await?;
    let restore = format!("{BRANCHES}/main/restore");
    let body = json!({ "timestamp": history.between, "keep_as": "before" });
    let restored = world.ok(POST, &restore, Some(body)).await?;
    assert_eq!(restored["branch"]["name"], "main");
    assert_eq!(restored["kept"]["name"], "before");
    assert_eq!(restored["kept"]["timeline_id"], main["timeline_id"]);
    assert_ne!(restored["branch"]["timeline_id"], main["timeline_id"]);
    assert_eq!(restored["branch"]["ancestor"]["name"], "before");
    assert_eq!(
        world.ok(GET, &format!("{BRANCHES}/main"), None).await?["timeline_id"],
        restored["branch"]["timeline_id"]
    );

    // The kept branch goes on; restore it again, from an LSN inside a record, without a name.
    let inside = Lsn(history.end.0 - 8).to_string();
    let body = json!({ "lsn": inside });
    let again = world.ok(POST, &format!("{BRANCHES}/before/restore"), Some(body)).await?;
    assert_eq!(again["branch"]["rounded_from"], inside);
    assert!(text(&again["kept"]["name"])?.starts_with("before_old_"), "{again}");

    let post = || (POST, restore.as_str());
    let both = json!({ "lsn": "0/1", "timestamp": history.between });
    world.refused(post(), Some(both), 400, "bad_request").await?;
    world.refused(post(), Some(json!({})), 400, "bad_request").await?;
    let bad_name = json!({ "timestamp": history.between, "keep_as": "Bad Name" });
    world.refused(post(), Some(bad_name), 400, "bad_request").await?;
    let nowhere = format!("{BRANCHES}/nowhere/restore");
    let body = json!({ "timestamp": history.between });
    world.refused((POST, &nowhere), Some(body), 404, "not_found").await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_deleted_unless_others_need_it() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    world.import("stock", &cluster.data()).await?;
    world.tenant("acme", "stock").await?;
    for (name, from) in [("child", "main"), ("grandchild", "child")] {
        let body = json!({ "name": name, "from": from });
        world.ok(POST, BRANCHES, Some(body)).await?;
    }
    let child = format!("{BRANCHES}/child");
    let delete = |path| world.refused((DELETE, path), None, 400, "bad_request");
    let message = delete(&child).await?;
    assert!(message.contains("child"), "{message}");
    delete(&format!("{BRANCHES}/main")).await?;
    for name in ["grandchild", "child"] {
        let path = format!("{BRANCHES}/{name}");
        assert_eq!(world.api(DELETE, &path, None).await?.0, StatusCode::NO_CONTENT);
        world.refused((GET, &path), None, 404, "not_found").await?;
    }
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_checked() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    world.import("stock", &cluster.data()).await?;
    world.tenant("acme", "stock").await?;
    let long = "x".repeat(64);
    let id = "0123456789abcdef0123456789abcdef";
    for name in ["", "Upper", "with space", "slash/", "dot.", "é", &long, id] {
        let tenant = json!({ "name": name, "template": "stock" });
        let message =
            world.refused((POST, "/v1/tenants"), Some(tenant), 400, "bad_request").await?;
        assert!(message.contains("is no name"), "{message}");
        let branch = json!({ "name": name });
        world.refused((POST, BRANCHES), Some(branch), 400, "bad_request").await?;
        let template = json!({ "name": name, "pgdata": cluster.data() });
        world.refused((POST, "/v1/templates"), Some(template), 400, "bad_request").await?;
    }
    let longest = json!({ "name": "x".repeat(63), "template": "stock" });
    world.ok(POST, "/v1/tenants", Some(longest)).await?;
    let none = json!({ "name": "none", "template": "missing" });
    world.refused((POST, "/v1/tenants"), Some(none), 404, "not_found").await?;
    let taken = json!({ "name": "main" });
    world.refused((POST, BRANCHES), Some(taken), 409, "exists").await?;
    world
        .refused((POST, BRANCHES), Some(json!({ "name": "a", "from": "b" })), 404, "not_found")
        .await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none_are_answered_in_json_too() -> Result<()> {
    let world = World::new().await?;
    let post = "/v1/tenants";
    for body in
        ["", "{", "[]", "{\"name\": 7}", "{\"nmae\": \"x\"}", "{\"name\": \"x\", \"more\": 1}"]
    {
        let (status, answer) = world.api_raw(POST, post, Some(body)).await?;
        assert_eq!((status.as_u16(), &answer["code"]), (400, &json!("bad_request")), "{body}");
    }
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
    let (status, answer) = world.api_raw(POST, post, Some(&long)).await?;
    assert_eq!((status.as_u16(), &answer["code"]), (413, &json!("too_large")), "{answer}");
    world.refused((GET, "/v2/tenants"), None, 404, "no_such_path").await?;
    world.refused((GET, "/v1/tenants/nobody"), None, 404, "not_found").await?;
    world.refused((GET, "/v1/tenants/nobody/branches"), None, 404, "not_found").await?;
    world.refused((DELETE, "/v1/status"), None, 405, "method_not_allowed").await?;
    world.refused((Method::PUT, post), None, 405, "method_not_allowed").await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_ingest_does() -> Result<()> {
    let world = World::new().await?;
    let status = world.ok(GET, "/v1/status", None).await?;
    assert_eq!(status["timelines"], json!([]));
    let history = History::make(&world).await?;
    world.ok(GET, &format!("{BRANCHES}/main"), None).await?;
    let streaming = |status: &Value| {
        any_timeline(status, |one| {
            one["ingest"]["state"] == "streaming"
                && one["ingest"]["safekeeper"] == world.wal.address.to_string()
                && one["last_record_lsn"] == history.end.to_string()
                && one["term"] == 1
        })
    };
    world.eventually("/v1/status", streaming).await?;
    world.tenant("silent", "stock").await?;
    world.ok(GET, "/v1/tenants/silent/branches/main", None).await?;
    let waiting = |status: &Value| {
        any_timeline(status, |one| {
            let reason = one["ingest"]["reason"].as_str().unwrap_or_default();
            one["ingest"]["state"] == "waiting" && reason.contains("knows nothing of the timeline")
        })
    };
    world.eventually("/v1/status", waiting).await?;
    world.stop().await;
    Ok(())
}
