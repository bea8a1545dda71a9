//! `offshoot tenant`.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Voice,
    branch::{branch, branch_table},
    list,
    psql::psql,
    text,
};
use crate::{
    api::{Api, milliseconds},
    ask::confirm,
    cli::{HistoryArgs, TenantVerb},
    failure::Failure,
    output::{self, say},
};

const NO_BODY: Option<&()> = None;

/// Carries a verb out.
pub async fn tenant(api: &Api, voice: Voice, verb: TenantVerb) -> Result<(), Failure> {
    match verb {
        TenantVerb::Create { name, template, history } => {
            create(api, voice, name, template, history).await
        }
        TenantVerb::Keep { tenant, history } => keep(api, voice, &tenant, history).await,
        TenantVerb::List => list_all(api, voice).await,
        TenantVerb::Usage { tenant: Some(tenant) } => usage(api, voice, &tenant).await,
        TenantVerb::Usage { tenant: None } => usage_of_all(api, voice).await,
        TenantVerb::Show { tenant } => show(api, voice, &tenant).await,
        TenantVerb::Move { tenant, to } => move_to(api, voice, &tenant, &to).await,
        TenantVerb::Branch(verb) => branch(api, voice, verb).await,
        TenantVerb::Psql(args) => psql(api, args).await,
        TenantVerb::Delete { tenant, yes } => delete(api, voice, &tenant, yes).await,
    }
}

async fn create(
    api: &Api,
    voice: Voice,
    name: String,
    template: Option<String>,
    history: HistoryArgs,
) -> Result<(), Failure> {
    let mut body = json!({ "name": name });
    if let Some(window) = window(history) {
        body["history"] = window;
    }
    if let Some(template) = template {
        body["template"] = template.into();
    }
    let answer = api.pageserver(Method::POST, &["tenants"], Some(&body)).await?;
    if voice.json {
        output::json(&answer.with_time());
        return Ok(());
    }
    say!("tenant {name} created in {} ms", milliseconds(answer.took));
    say!("connect to it: offshoot tenant psql {name}");
    Ok(())
}

async fn keep(api: &Api, voice: Voice, tenant: &str, history: HistoryArgs) -> Result<(), Failure> {
    let window = window(history)
        .ok_or_else(|| Failure::new("say how much history is kept: --days, --wal-bytes or both"))?;
    let body = json!({ "history": window });
    let answer = api.pageserver(Method::PATCH, &["tenants", tenant], Some(&body)).await?;
    if voice.json {
        output::json(&answer.with_time());
    } else {
        say!("tenant {tenant} keeps {}", kept(&answer.value));
    }
    Ok(())
}

/// The window as the API takes it; `None` where nothing was said.
fn window(history: HistoryArgs) -> Option<Value> {
    let HistoryArgs { days, wal_bytes } = history;
    let seconds = days.map(|days| days.saturating_mul(24 * 3600));
    (days.is_some() || wal_bytes.is_some()).then(|| {
        let mut window = json!({});
        if let Some(seconds) = seconds {
            window["seconds"] = seconds.into();
        }
        if let Some(bytes) = wal_bytes {
            window["bytes"] = bytes.into();
        }
        window
    })
}

/// A tenant's window of history, for people.
fn kept(tenant: &Value) -> String {
    let seconds = tenant.pointer("/history/seconds").and_then(Value::as_u64);
    let bytes = tenant.pointer("/history/bytes").and_then(Value::as_u64);
    let days = seconds.map(|seconds| format!("{} days of history", seconds / (24 * 3600)));
    let bytes = bytes.map(|bytes| format!("{} of WAL", output::size(bytes)));
    days.into_iter().chain(bytes).collect::<Vec<_>>().join(" and ")
}

async fn move_to(api: &Api, voice: Voice, tenant: &str, to: &str) -> Result<(), Failure> {
    let body = json!({ "to": to });
    let path = ["tenants", tenant, "move"];
    let answer = api.control_plane(Method::POST, &path, Some(&body)).await?;
    if voice.json {
        output::json(&answer.with_time());
        return Ok(());
    }
    let (from, took) = (text(&answer.value, "/from"), milliseconds(answer.took));
    say!("tenant {tenant} moved from {from} to {to} in {took} ms");
    Ok(())
}

async fn list_all(api: &Api, voice: Voice) -> Result<(), Failure> {
    let tenants = api.pageserver(Method::GET, &["tenants"], NO_BODY).await?.value;
    if voice.json {
        output::json(&tenants);
        return Ok(());
    }
    let rows: Vec<_> = list(&tenants, "tenants")
        .iter()
        .map(|tenant| ["/name", "/id", "/created_at"].map(|field| text(tenant, field)))
        .collect();
    output::text(&output::table(["name", "id", "created"], &rows));
    Ok(())
}

async fn usage(api: &Api, voice: Voice, tenant: &str) -> Result<(), Failure> {
    let path = ["tenants", tenant, "usage"];
    let usage = api.pageserver(Method::GET, &path, NO_BODY).await?.value;
    if voice.json {
        output::json(&usage);
        return Ok(());
    }
    let branches = list(&usage, "branches").iter().map(|branch| usage_row(branch, branch));
    let total = usage.get("total").map(|total| usage_row(&json!({ "name": "total" }), total));
    output::text(&output::table(USAGE_TITLES, &branches.chain(total).collect::<Vec<_>>()));
    Ok(())
}

async fn usage_of_all(api: &Api, voice: Voice) -> Result<(), Failure> {
    let mut all = Vec::new();
    api.pageserver_pages("usage", "tenants", |page| all.extend_from_slice(page)).await?;
    if voice.json {
        output::json(&json!({ "tenants": all }));
        return Ok(());
    }
    let row = |tenant: &Value| usage_row(tenant, tenant.get("total").unwrap_or(&Value::Null));
    output::text(&output::table(USAGE_TITLES, &all.iter().map(row).collect::<Vec<_>>()));
    Ok(())
}

const USAGE_TITLES: [&str; 9] =
    ["name", "size", "stored", "unique", "shared", "inherits", "wal", "reads", "sent"];

fn usage_row(named: &Value, usage: &Value) -> [String; 9] {
    let bytes = |field: &str| output::size(usage[field].as_u64().unwrap_or(0));
    [
        text(named, "/name"),
        bytes("logical_size_bytes"),
        bytes("stored_bytes"),
        bytes("unique_bytes"),
        bytes("shared_bytes"),
        bytes("inherited_bytes"),
        bytes("wal_written_bytes"),
        text(usage, "/pages_read"),
        bytes("bytes_sent"),
    ]
}

async fn show(api: &Api, voice: Voice, tenant: &str) -> Result<(), Failure> {
    let shown = api.pageserver(Method::GET, &["tenants", tenant], NO_BODY).await?.value;
    if voice.json {
        output::json(&shown);
        return Ok(());
    }
    say!("tenant {}, id {}", text(&shown, "/name"), text(&shown, "/id"));
    say!("keeps {}", kept(&shown));
    say!("served by pageserver {}", text(&shown, "/pageserver/name"));
    let branches = api.pageserver(Method::GET, &["tenants", tenant, "branches"], NO_BODY).await?;
    output::text(&branch_table(list(&branches.value, "branches")));
    Ok(())
}

async fn delete(api: &Api, voice: Voice, tenant: &str, yes: bool) -> Result<(), Failure> {
    if !yes {
        let consequence = "with all its branches and their history, and there is no way back";
        confirm(&format!("tenant {tenant}"), consequence, tenant)?;
    }
    // Its computes first: one that runs on would write to a tenant that is gone.
    for compute in running(api, tenant).await? {
        let branch = text(&compute, "/branch");
        let id = text(&compute, "/tenant_id");
        let path = ["computes", &id, &branch, "forget"];
        api.control_plane(Method::POST, &path, NO_BODY).await?;
    }
    let answer = api.pageserver(Method::DELETE, &["tenants", tenant], NO_BODY).await?;
    if voice.json {
        output::json(&json!({ "deleted": tenant, "took_ms": milliseconds(answer.took) }));
    } else {
        say!("tenant {tenant} deleted");
    }
    Ok(())
}

async fn running(api: &Api, tenant: &str) -> Result<Vec<Value>, Failure> {
    let computes = api.control_plane(Method::GET, &["computes"], NO_BODY).await?.value;
    let is_its =
        |compute: &&Value| ["/tenant", "/tenant_id"].iter().any(|at| text(compute, at) == tenant);
    Ok(list(&computes, "computes").iter().filter(is_its).cloned().collect())
}
