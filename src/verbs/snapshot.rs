//! `offshoot snapshot`.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Voice,
    branch::{moment, say_rounding},
    list, text,
};
use crate::{
    api::{Api, milliseconds},
    cli::SnapshotVerb,
    failure::Failure,
    output::{self, say},
};

const NO_BODY: Option<&()> = None;

/// Carries a verb out.
pub async fn snapshot(api: &Api, voice: Voice, verb: SnapshotVerb) -> Result<(), Failure> {
    match verb {
        SnapshotVerb::Create { tenant, branch, name, at } => {
            let mut body = json!({ "name": name });
            if let Some(at) = at {
                body["at"] = moment(&at);
            }
            let path = ["tenants", &tenant, "branches", &branch, "snapshots"];
            let answer = api.pageserver(Method::POST, &path, Some(&body)).await?;
            if voice.json {
                output::json(&answer.with_time());
                return Ok(());
            }
            let (of, lsn) = (text(&answer.value, "/branch"), text(&answer.value, "/lsn"));
            say!("snapshot {name} of {of} at {lsn} made in {} ms", milliseconds(answer.took));
            say_rounding(&answer.value, "/lsn");
            Ok(())
        }
        SnapshotVerb::List { tenant, branch } => {
            let path = ["tenants", &tenant, "branches", &branch, "snapshots"];
            let snapshots = api.pageserver(Method::GET, &path, NO_BODY).await?.value;
            if voice.json {
                output::json(&snapshots);
            } else {
                output::text(&snapshot_table(list(&snapshots, "snapshots")));
            }
            Ok(())
        }
        SnapshotVerb::Delete { tenant, branch, name } => {
            let path = ["tenants", &tenant, "branches", &branch, "snapshots", &name];
            let answer = api.pageserver(Method::DELETE, &path, NO_BODY).await?;
            if voice.json {
                output::json(&json!({ "deleted": name, "took_ms": milliseconds(answer.took) }));
            } else {
                say!("snapshot {name} deleted");
            }
            Ok(())
        }
    }
}

fn snapshot_table(snapshots: &[Value]) -> String {
    let row =
        |snapshot: &Value| ["/name", "/branch", "/lsn", "/created_at"].map(|f| text(snapshot, f));
    let rows: Vec<_> = snapshots.iter().map(row).collect();
    output::table(["name", "of", "at", "created"], &rows)
}
