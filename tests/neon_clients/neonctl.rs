//! Every command of neonctl that the API serves, in the order of a project's life.

use std::{process::Command, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Up,
    harness::{PATIENCE, eventually},
    install::JavaScript,
    run,
};

/// Asks Postgres for the moment, as neonctl takes one.
const MOMENT: &str =
    "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";

struct Neonctl<'t> {
    up: &'t Up,
    clients: &'t JavaScript,
}

impl Neonctl<'_> {
    /// Runs a command; what it printed.
    fn text(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.clients.node);
        command
            .arg(self.clients.neonctl())
            .args(["--api-host", &self.up.api, "--api-key", &self.up.key])
            .arg("--config-dir")
            .arg(self.clients.folder.join("config"))
            .args(["--no-analytics", "--output", "json"])
            .args(arguments)
            // A file of a project that was chosen in some folder above.
            .current_dir("/");
        run(&mut command)
    }

    /// Runs a command that prints JSON.
    fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let said = self.text(arguments)?;
        serde_json::from_str(&said).with_context(|| format!("{arguments:?}: {said}"))
    }

    /// The ids of all branches, by their names.
    fn branch(&self, name: &str) -> anyhow::Result<Value> {
        let listed = self.json(&["branches", "list"])?;
        let all = listed.as_array().context("no list")?;
        let found = all.iter().find(|branch| branch["name"] == name).cloned();
        found.with_context(|| format!("no branch {name} in {listed}"))
    }

    /// Waits until the first branch's compute runs, and every operation is over.
    async fn is_active(&self, project: &str) -> anyhow::Result<()> {
        let client = reqwest::Client::new();
        let get = async |path: &str| -> anyhow::Result<Value> {
            let url = format!("{}/projects/{project}/{path}", self.up.api);
            Ok(client.get(url).bearer_auth(&self.up.key).send().await?.json().await?)
        };
        eventually("the compute starts", PATIENCE, async || {
            let shown = get(&format!("endpoints/ep-{project}")).await?;
            ensure!(shown["endpoint"]["current_state"] == "active", "{shown}");
            let operations = get("operations").await?;
            let over = |operation: &Value| operation["status"] == "finished";
            let all = operations["operations"].as_array().context("no list")?;
            ensure!(all.iter().all(over), "{operations}");
            Ok(())
        })
        .await
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub async fn tour(up: &Up, clients: &JavaScript) -> anyhow::Result<()> {
    let neonctl = Neonctl { up, clients };
    ensure!(neonctl.json(&["projects", "list"])?["projects"] == serde_json::json!([]));
    let made = neonctl.json(&["projects", "create", "--name", "shop"])?;
    let project = text(&made["project"]["id"]).to_owned();
    let uri = text(&made["connection_uris"][0]["connection_uri"]).to_owned();
    ensure!(uri.contains("@127.0.0.1:") && uri.contains("options=endpoint%3Dep-"), "{uri}");
    ensure!(neonctl.json(&["projects", "get", &project])?["name"] == "shop");
    // The connection string that was printed works, and starts the compute.
    let psql = |query: &str| run(Command::new("psql").args([&uri, "-qAtc", query]));
    ensure!(psql("SELECT current_user || '@' || current_database()")?.trim() == "app@app");
    // From here on there is one project, which need not be named.
    branches(&neonctl, &project).await?;
    contents(&neonctl, &project).await?;
    let operations = neonctl.json(&["operations", "list", "--project-id", &project])?;
    let all = operations.as_array().context("no list")?;
    ensure!(all.len() > 5 && all.iter().all(|o| o["status"] == "finished"), "{operations}");
    neonctl.json(&["projects", "delete", &project])?;
    ensure!(neonctl.json(&["projects", "list"])?["projects"] == serde_json::json!([]));
    Ok(())
}

/// Connection strings of a branch at an LSN and at a moment, with a domain of which every name is a part:
/// here all are at one address, and no port is the usual one.
pub fn as_it_was(up: &Up, clients: &JavaScript) -> anyhow::Result<()> {
    let neonctl = Neonctl { up, clients };
    neonctl.json(&["projects", "create", "--name", "shop"])?;
    let psql = |uri: &str, query: &str| -> anyhow::Result<String> {
        let mut command = Command::new("psql");
        command.args([uri, "-qAtc", query]);
        command.env("PGHOSTADDR", "127.0.0.1").env("PGPORT", up.proxy_port.to_string());
        Ok(run(&mut command)?.trim().to_owned())
    };
    let string = |branch: &str| -> anyhow::Result<String> {
        let said = neonctl.text(&["connection-string", branch])?;
        Ok(said.trim().trim_matches('"').to_owned())
    };
    let now = string("main")?;
    psql(&now, "CREATE TABLE t AS SELECT generate_series(1, 100) n")?;
    let lsn = psql(&now, "SELECT pg_current_wal_insert_lsn()")?;
    std::thread::sleep(Duration::from_millis(1100));
    let moment = psql(&now, MOMENT)?;
    std::thread::sleep(Duration::from_millis(1100));
    psql(&now, "DELETE FROM t WHERE n > 10")?;
    let count = "SELECT count(*), pg_is_in_recovery() FROM t";
    ensure!(psql(&now, count)? == "10|f");
    for then in [format!("main@{lsn}"), format!("main@{moment}")] {
        let uri = string(&then)?;
        ensure!(uri.contains("options=neon_"), "{then}: {uri}");
        let counted = psql(&uri, count)?;
        ensure!(counted == "100|t", "{then} is {uri}: {counted}");
    }
    Ok(())
}

async fn branches(neonctl: &Neonctl<'_>, project: &str) -> anyhow::Result<()> {
    let up = neonctl.up;
    // A diff starts the branch's Postgres, and one at a moment a Postgres of its own.
    let same = neonctl.text(&["branches", "schema-diff", "main", "main"])?;
    ensure!(!same.contains("@@"), "main differs from itself: {same}");
    neonctl.is_active(project).await?;
    up.sql(project, "CREATE TABLE t AS SELECT generate_series(1, 100) n").await?;
    let lsn = up.sql(project, "SELECT pg_current_wal_insert_lsn()").await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let moment = up.sql(project, MOMENT).await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    up.sql(project, "CREATE TABLE later (n int); DELETE FROM t").await?;
    let at_lsn = format!("^self@{lsn}");
    let diff = neonctl.text(&["branches", "schema-diff", "main", &at_lsn])?;
    let removed = diff.lines().any(|line| line.starts_with("-CREATE TABLE public.later"));
    ensure!(removed, "{diff}");
    let changed = |line: &&str| line.starts_with(['-', '+']) && line.contains("restrict");
    ensure!(!diff.lines().any(|line| changed(&line)), "{diff}");

    let made = neonctl.json(&["branches", "create", "--name", "try"])?;
    ensure!(made["endpoints"][0]["type"] == "read_write", "{made}");
    neonctl.json(&["branches", "create", "--name", "at-lsn", "--parent", &lsn])?;
    neonctl.json(&["branches", "create", "--name", "at-moment", "--parent", &moment])?;
    neonctl.json(&["branches", "create", "--name", "bare", "--no-compute"])?;
    ensure!(neonctl.json(&["branches", "get", "try"])?["name"] == "try");
    neonctl.json(&["branches", "rename", "bare", "renamed"])?;
    neonctl.json(&["branches", "add-compute", "renamed", "--type", "read_write"])?;
    let added = neonctl.json(&["branches", "add-compute", "renamed", "--type", "read_only"])?;
    ensure!(added.to_string().contains("read_only"), "{added}");
    neonctl.json(&["branches", "set-default", "renamed"])?;
    ensure!(neonctl.branch("renamed")?["default"] == true);
    neonctl.json(&["branches", "set-default", "main"])?;
    let never = "2999-01-01T00:00:00Z";
    neonctl.json(&["branches", "set-expiration", "renamed", "--expires-at", never])?;
    ensure!(neonctl.branch("renamed")?["expires_at"] == never);
    neonctl.json(&["branches", "delete", "renamed"])?;

    let main = neonctl.branch("main")?["id"].clone();
    // A password that was replaced does not come back with the past.
    let path = format!("projects/{project}/branches/{}/roles/app/reset_password", text(&main));
    let reset = reqwest::Client::new().post(format!("{}/{path}", up.api)).bearer_auth(&up.key);
    ensure!(reset.send().await?.status().is_success());
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
    let today = up.sql(project, verifier).await?;
    neonctl.text(&["branches", "restore", "main", &at_lsn, "--preserve-under-name", "before"])?;
    ensure!(neonctl.branch("main")?["id"] == main, "a restore changed the id");
    ensure!(neonctl.branch("main")?["parent_id"] == neonctl.branch("before")?["id"]);
    ensure!(neonctl.branch("try")?["parent_id"] == neonctl.branch("before")?["id"]);
    neonctl.is_active(project).await?;
    let rows = up.sql(project, "SELECT count(*), to_regclass('later') IS NULL FROM t").await?;
    ensure!(rows == "100|t", "{rows}");
    ensure!(up.sql(project, verifier).await? == today, "an old password is back");
    neonctl.text(&["branches", "reset", "try", "--parent", "--preserve-under-name", "tried"])?;
    // A parent goes, and what was made of it stays.
    neonctl.json(&["branches", "delete", "tried"])?;
    neonctl.json(&["branches", "delete", "before"])?;
    ensure!(neonctl.branch("main")?["parent_id"].is_null());
    Ok(())
}

async fn contents(neonctl: &Neonctl<'_>, project: &str) -> anyhow::Result<()> {
    let up = neonctl.up;
    let role = neonctl.json(&["roles", "create", "--name", "bob"])?;
    ensure!(!text(&role["password"]).is_empty(), "{role}");
    neonctl.json(&["databases", "create", "--name", "orders", "--owner-name", "bob"])?;
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'orders'";
    ensure!(up.sql(project, owner).await? == "bob");
    up.sql(project, "CREATE ROLE by_sql LOGIN PASSWORD 'x'").await?;
    let roles = neonctl.json(&["roles", "list"])?.to_string();
    ensure!(roles.contains("bob") && roles.contains("by_sql"), "{roles}");
    ensure!(neonctl.json(&["databases", "list"])?.to_string().contains("orders"));
    let arguments =
        ["connection-string", "main", "--role-name", "bob", "--database-name", "orders"];
    let uri = neonctl.text(&arguments)?;
    ensure!(uri.contains(text(&role["password"])) && uri.contains("/orders"), "{uri}");
    ensure!(uri.contains("sslmode=require&channel_binding=require"), "{uri}");
    let without = [&arguments[..], &["--ssl", "omit", "--pooled"]].concat();
    ensure!(!neonctl.text(&without)?.contains("sslmode"));
    neonctl.json(&["databases", "delete", "orders"])?;
    neonctl.json(&["roles", "delete", "bob"])?;
    let left = up.sql(project, "SELECT count(*) FROM pg_roles WHERE rolname = 'bob'").await?;
    ensure!(left == "0", "{left}");
    Ok(())
}
