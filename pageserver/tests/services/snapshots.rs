//! Snapshots over the admin API, of a real cluster's history.

use anyhow::Result;
use redo_oracle::cluster::Cluster;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::world::World;

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;
const BRANCHES: &str = "/v1/tenants/acme/branches";

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_made_branched_from_restored_to_and_deleted() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    let template = world.import("stock", &cluster.data()).await?;
    world.tenant("acme", "stock").await?;
    let of_main = format!("{BRANCHES}/main/snapshots");
    let body = json!({ "name": "first", "at": { "lsn": template["lsn"] } });
    let made = world.ok(POST, &of_main, Some(body)).await?;
    assert_eq!((&made["name"], &made["branch"]), (&json!("first"), &json!("main")));
    assert_eq!(made["lsn"], template["lsn"]);
    let listed = world.ok(GET, &of_main, None).await?;
    assert_eq!(listed, json!({ "snapshots": [made] }));
    assert_eq!(world.ok(GET, &format!("{of_main}/first"), None).await?, made);

    let again = json!({ "name": "first" });
    world.refused((POST, &of_main), Some(again), 409, "exists").await?;
    let bad = json!({ "name": "Bad Name" });
    world.refused((POST, &of_main), Some(bad), 400, "bad_request").await?;
    let nowhere = json!({ "name": "never", "at": { "snapshot": "nowhere" } });
    world.refused((POST, BRANCHES), Some(nowhere), 404, "not_found").await?;
    let both = json!({ "name": "never", "from": "main", "at": { "snapshot": "first" } });
    world.refused((POST, BRANCHES), Some(both), 400, "bad_request").await?;

    let body = json!({ "name": "dev", "at": { "snapshot": "first" } });
    let dev = world.ok(POST, BRANCHES, Some(body)).await?;
    assert_eq!(dev["branch_point"], template["lsn"]);
    assert_eq!(dev["ancestor"]["name"], "main");
    let of_dev = format!("{BRANCHES}/dev/snapshots");
    let copy = json!({ "name": "copy", "at": { "snapshot": "first" } });
    world.refused((POST, &of_dev), Some(copy.clone()), 400, "bad_request").await?;
    world.ok(POST, &of_main, Some(copy)).await?;

    // Restored twice to the same snapshot, which stays with the first state.
    let restore = format!("{BRANCHES}/main/restore");
    for keep_as in ["before", "between"] {
        let body = json!({ "snapshot": "first", "keep_as": keep_as });
        let restored = world.ok(POST, &restore, Some(body)).await?;
        assert_eq!(restored["branch"]["ancestor"]["name"], "before");
        assert_eq!(restored["kept"]["name"], keep_as);
    }
    let first = format!("{of_main}/first");
    let message = world.refused((DELETE, &first), None, 404, "not_found").await?;
    assert!(message.contains("\"before\""));
    for path in ["first", "copy"].map(|name| format!("{BRANCHES}/before/snapshots/{name}")) {
        assert_eq!(world.api(DELETE, &path, None).await?.0, StatusCode::NO_CONTENT);
        world.refused((GET, &path), None, 404, "not_found").await?;
    }
    world.stop().await;
    Ok(())
}
