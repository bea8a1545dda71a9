//! `offshoot tenant branch`.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Voice, bytes, list, text};
use crate::{
    api::{Api, milliseconds},
    cli::TenantBranchVerb,
    failure::Failure,
    output::{self, say},
};

const NO_BODY: Option<&()> = None;

/// Carries a verb out.
pub async fn branch(api: &Api, voice: Voice, verb: TenantBranchVerb) -> Result<(), Failure> {
    match verb {
        TenantBranchVerb::Create { tenant, name, from, at } => {
            create(api, voice, &tenant, name, from, at.as_deref()).await
        }
        TenantBranchVerb::List { tenant } => {
            let path = ["tenants", &tenant, "branches"];
            let branches = api.pageserver(Method::GET, &path, NO_BODY).await?.value;
            if voice.json {
                output::json(&branches);
            } else {
                output::text(&branch_table(list(&branches, "branches")));
            }
            Ok(())
        }
        TenantBranchVerb::Show { tenant, branch } => {
            let path = ["tenants", &tenant, "branches", &branch];
            let shown = api.pageserver(Method::GET, &path, NO_BODY).await?.value;
            if voice.json {
                output::json(&shown);
            } else {
                output::text(&branch_table(std::slice::from_ref(&shown)));
                let ids = [text(&shown, "/tenant_id"), text(&shown, "/timeline_id")];
                say!("timeline {}", ids.join("/"));
            }
            Ok(())
        }
        TenantBranchVerb::Restore { tenant, branch, at, keep_as } => {
            restore(api, voice, &tenant, &branch, &at, keep_as).await
        }
        TenantBranchVerb::Delete { tenant, branch } => delete(api, voice, &tenant, &branch).await,
    }
}

/// What `--at` says: a snapshot where it says so, an LSN where it looks like one, a timestamp
/// otherwise. Whether it is a good one, the pageserver says.
pub(super) fn moment(at: &str) -> Value {
    if let Some(name) = at.strip_prefix("snapshot:") {
        return json!({ "snapshot": name });
    }
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    match at.split_once('/') {
        Some((high, low)) if is_hex(high) && is_hex(low) => json!({ "lsn": at }),
        _ => json!({ "timestamp": at }),
    }
}

async fn create(
    api: &Api,
    voice: Voice,
    tenant: &str,
    name: String,
    from: Option<String>,
    at: Option<&str>,
) -> Result<(), Failure> {
    let mut body = json!({ "name": name });
    if let Some(from) = from {
        body["from"] = from.into();
    }
    if let Some(at) = at {
        body["at"] = moment(at);
    }
    let path = ["tenants", tenant, "branches"];
    let answer = api.pageserver(Method::POST, &path, Some(&body)).await?;
    if voice.json {
        output::json(&answer.with_time());
        return Ok(());
    }
    let (point, took) = (text(&answer.value, "/branch_point"), milliseconds(answer.took));
    let from = text(&answer.value, "/ancestor/name");
    say!("branch {name} made of {from} at {point} in {took} ms");
    say_rounding(&answer.value, "/branch_point");
    say!("connect to it: offshoot tenant psql {tenant} {name}");
    Ok(())
}

async fn restore(
    api: &Api,
    voice: Voice,
    tenant: &str,
    branch: &str,
    at: &str,
    keep_as: Option<String>,
) -> Result<(), Failure> {
    let mut body = moment(at);
    if let Some(name) = keep_as {
        body["keep_as"] = name.into();
    }
    let path = ["tenants", tenant, "branches", branch, "restore"];
    let answer = api.pageserver(Method::POST, &path, Some(&body)).await?;
    let path = ["computes", tenant, branch, "follow"];
    let followed = api.control_plane(Method::POST, &path, NO_BODY).await?;
    let runs = !followed.value.is_null();
    if voice.json {
        let took = milliseconds(answer.took + followed.took);
        let mut value = answer.value;
        value["compute"] = followed.value;
        value["took_ms"] = took.into();
        output::json(&value);
        return Ok(());
    }
    let restored = &answer.value["branch"];
    let point = text(restored, "/branch_point");
    say!("branch {branch} stands at {point} again, in {} ms", milliseconds(answer.took));
    say_rounding(restored, "/branch_point");
    say!("the state before is branch {}", text(&answer.value, "/kept/name"));
    if runs {
        let (port, took) = (text(&followed.value, "/port"), milliseconds(followed.took));
        say!("its compute was started anew on port {port}, in {took} ms");
    }
    Ok(())
}

/// A moment inside a record is rounded down; whoever asked must know.
pub(super) fn say_rounding(made: &Value, point: &str) {
    if let Some(asked) = made.get("rounded_from").and_then(Value::as_str) {
        let point = text(made, point);
        say!("{asked} lies inside a WAL record: rounded down to {point}");
    }
}

async fn delete(api: &Api, voice: Voice, tenant: &str, branch: &str) -> Result<(), Failure> {
    // Refused where there is no such branch, before anything is stopped.
    let path = ["tenants", tenant, "branches", branch];
    api.pageserver(Method::GET, &path, NO_BODY).await?;
    let forget = ["computes", tenant, branch, "forget"];
    match api.control_plane(Method::POST, &forget, NO_BODY).await {
        Err(failure) if failure.is_not_found() => {}
        forgotten => {
            forgotten?;
        }
    }
    let answer = api.pageserver(Method::DELETE, &path, NO_BODY).await?;
    if voice.json {
        output::json(&json!({ "deleted": branch, "took_ms": milliseconds(answer.took) }));
    } else {
        say!("branch {branch} deleted");
    }
    Ok(())
}

/// Branches with their sizes and ancestry.
pub(super) fn branch_table(branches: &[Value]) -> String {
    let rows: Vec<_> = branches
        .iter()
        .map(|branch| {
            [
                text(branch, "/name"),
                text(branch, "/ancestor/name"),
                text(branch, "/branch_point"),
                text(branch, "/last_record_lsn"),
                bytes(branch, "/logical_size_bytes"),
                bytes(branch, "/stored_bytes"),
                text(branch, "/created_at"),
            ]
        })
        .collect();
    output::table(["name", "made of", "at", "now at", "size", "stored", "created"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_looks_like_an_lsn_is_one() {
        assert_eq!(moment("0/16B3748"), json!({ "lsn": "0/16B3748" }));
        assert_eq!(moment("snapshot:0/16B3748"), json!({ "snapshot": "0/16B3748" }));
        for timestamp in ["2026-03-01T12:00:00Z", "yesterday", "1/2/2026", "/"] {
            assert_eq!(moment(timestamp), json!({ "timestamp": timestamp }));
        }
    }
}
