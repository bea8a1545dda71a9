//! Endpoints to read only: several of a branch, each a Postgres of its own that follows what is written
//! through the branch's other endpoint, whatever becomes of that one and of the branch.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
};

use anyhow::{Context, ensure};
use control_plane::Compute;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    harness::{PATIENCE, eventually},
    kept::superuser,
    projects::{Said, Up},
};

/// What a statement answers, sent to the branch main of acme or to an endpoint of it.
fn ask(up: &Up, endpoint: Option<&str>, statement: &str) -> anyhow::Result<String> {
    let Said { code, out, err } = say(up, endpoint, statement)?;
    ensure!(code == 0, "{statement}: {err}");
    Ok(out.trim().to_owned())
}

fn say(up: &Up, endpoint: Option<&str>, statement: &str) -> anyhow::Result<Said> {
    let to = endpoint.map(|name| ["--endpoint", name]);
    let to = to.as_ref().map_or(&[][..], |to| &to[..]);
    let psql = ["--", "-XqAtv", "ON_ERROR_STOP=1", "-c", statement];
    up.run(&[&["psql", "acme"], to, &psql].concat())
}

/// Waits until an endpoint answers this; a connection that ends is made anew.
async fn answers(up: &Up, endpoint: &str, statement: &str, answer: &str) -> anyhow::Result<()> {
    eventually("the endpoint follows", PATIENCE, async || {
        let said = ask(up, Some(endpoint), statement)?;
        ensure!(said == answer, "{statement}: {said}, not {answer}");
        Ok(())
    })
    .await
}

fn state(up: &Up, endpoint: &str) -> anyhow::Result<String> {
    let shown = up.json(&["endpoint", "show", "acme", endpoint])?;
    Ok(shown["endpoint"]["current_state"].as_str().unwrap_or_default().to_owned())
}

async fn is_idle(up: &Up, endpoint: &str) -> anyhow::Result<()> {
    eventually("an endpoint that nobody uses is suspended", PATIENCE, async || {
        ensure!(state(up, endpoint)? == "idle", "{endpoint} runs");
        Ok(())
    })
    .await
}

/// The computes that run.
fn computes(up: &Up) -> anyhow::Result<Vec<Compute>> {
    let listed = up.json(&["--control-plane", up.control_plane(), "compute", "list"])?;
    let mut listed: Vec<Compute> = serde_json::from_value(listed)?;
    listed.retain(|compute| compute.pid.is_some());
    Ok(listed)
}

fn create(up: &Up, name: &str, more: &[&str]) -> anyhow::Result<Value> {
    let create = ["endpoint", "create", "acme", "main", "--read-only", "--name", name];
    up.json(&[&create, more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_through_every_other_endpoint_of_the_branch() -> anyhow::Result<()>
{
    let up = Up::start_with(&["--suspend-after", "0"]).await?;
    up.json(&["project", "create", "acme"])?;
    let made = create(&up, "reports", &["--max-cu", "0.5", "--set", "work_mem=7MB"])?;
    ensure!(made["endpoint"]["type"] == "read_only", "{made}");
    create(&up, "others", &[])?;
    let listed = up.json(&["endpoint", "list", "acme"])?;
    ensure!(listed["endpoints"].as_array().is_some_and(|all| all.len() == 3), "{listed}");

    // Nothing has run yet: the branch's own Postgres makes its roles first.
    ensure!(ask(&up, Some("reports"), "SELECT pg_is_in_recovery()")? == "t");
    ensure!(ask(&up, Some("reports"), "SHOW work_mem")? == "7MB");
    ask(&up, None, "CREATE TABLE t AS SELECT generate_series(1, 1000) n")?;
    let sum = "SELECT sum(n) FROM t";
    for endpoint in ["reports", "others"] {
        answers(&up, endpoint, sum, "500500").await?;
        let refused = say(&up, Some(endpoint), "INSERT INTO t VALUES (1)")?;
        let expected = "cannot execute INSERT in a read-only transaction";
        ensure!(refused.code != 0 && refused.err.contains(expected), "{}", refused.err);
    }
    ensure!(ask(&up, None, "SELECT pg_is_in_recovery()")? == "f", "main was named");
    let followers = computes(&up)?.iter().filter(|compute| compute.follows).count();
    ensure!(followers == 2, "{:?}", computes(&up)?);

    // The one that writes sleeps, and wakes; those that read stay, and see a moment of the branch, too.
    up.json(&["endpoint", "suspend", "acme", "main"])?;
    ensure!(ask(&up, Some("reports"), sum)? == "500500" && state(&up, "main")? == "idle");
    ask(&up, None, "DELETE FROM t WHERE n > 10")?;
    answers(&up, "reports", sum, "55").await?;

    // A role that is made while it sleeps comes in by every door, and with a new password by none.
    up.json(&["endpoint", "suspend", "acme", "main"])?;
    up.json(&["role", "create", "acme", "reader"])?;
    let as_reader = ["--endpoint", "others", "--role", "reader"];
    let uri =
        |more: &[&str]| up.table(&[&["connection-string", "acme"], &as_reader[..], more].concat());
    let old = uri(&[])?;
    let psql = |uri: &str| -> anyhow::Result<bool> {
        let mut psql = crate::harness::program("psql");
        Ok(psql.args(["-XqAt", "-d", uri.trim(), "-c", "SELECT 1"]).output()?.status.success())
    };
    eventually("the role comes in", PATIENCE, async || {
        ensure!(psql(&old)?, "it does not");
        Ok(())
    })
    .await?;
    up.json(&["endpoint", "suspend", "acme", "main"])?;
    up.json(&["role", "reset-password", "acme", "reader"])?;
    eventually("the old password is refused", PATIENCE, async || {
        ensure!(!psql(&old)?, "it is not");
        Ok(())
    })
    .await?;
    ensure!(psql(&uri(&[])?)?, "the new password is refused");

    // Where the one that writes takes in more than they have room for, they begin anew.
    up.json(&["endpoint", "update", "acme", "main", "--set", "max_connections=150"])?;
    up.json(&["endpoint", "restart", "acme", "main"])?;
    ask(&up, None, "INSERT INTO t VALUES (100)")?;
    for endpoint in ["reports", "others"] {
        answers(&up, endpoint, sum, "155").await?;
        answers(&up, endpoint, "SHOW max_connections", "150").await?;
    }

    // One that is killed is woken by the next client.
    let id = made["endpoint"]["id"].as_str().context("an id")?;
    let of_reports = |compute: &Compute| compute.branch.ends_with(id);
    let reports = computes(&up)?.into_iter().find(of_reports).context("it runs")?;
    kill(Pid::from_raw(reports.pid.context("it runs")? as i32), Signal::SIGKILL)?;
    answers(&up, "reports", sum, "155").await?;

    let used = up.json(&["project", "usage", "acme"])?.to_string();
    ensure!(used.contains("active_time_seconds"), "{used}");
    up.json(&["endpoint", "delete", "acme", "others"])?;
    ensure!(computes(&up)?.iter().filter(|compute| compute.follows).count() == 1);
    ensure!(say(&up, Some("others"), sum)?.code != 0, "a deleted endpoint answers");
    up.json(&["project", "delete", "acme", "--yes"])?;
    ensure!(computes(&up)?.is_empty(), "a compute outlived its project");
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_to_read_only_stays_with_its_branch_when_that_is_put_back() -> anyhow::Result<()>
{
    let up = Up::start_with(&["--suspend-after", "0"]).await?;
    up.json(&["project", "create", "acme"])?;
    create(&up, "reports", &[])?;
    ask(&up, None, "CREATE TABLE t AS SELECT generate_series(1, 10) n")?;
    let lsn = ask(&up, None, "SELECT pg_current_wal_insert_lsn()")?;
    ask(&up, None, "DELETE FROM t WHERE n > 3")?;
    answers(&up, "reports", "SELECT sum(n) FROM t", "6").await?;

    up.json(&["branch", "restore", "acme", "main", "--lsn", &lsn, "--keep-as", "before"])?;
    answers(&up, "reports", "SELECT sum(n) FROM t", "55").await?;
    ask(&up, None, "INSERT INTO t VALUES (45)")?;
    answers(&up, "reports", "SELECT sum(n) FROM t", "100").await?;
    // Also where nothing of the branch runs.
    up.json(&["endpoint", "suspend", "acme", "main"])?;
    up.json(&["endpoint", "suspend", "acme", "reports"])?;
    up.json(&["branch", "restore", "acme", "main", "--lsn", &lsn])?;
    answers(&up, "reports", "SELECT sum(n) FROM t", "55").await?;

    // A branch may be made with one; a moment of it is read as through the other.
    up.json(&["branch", "create", "acme", "try"])?;
    let branch = up.json(&["branch", "show", "acme", "try"])?["branch"]["id"].clone();
    let made = up.json(&["endpoint", "create", "acme", "try", "--read-only", "--name", "more"])?;
    ensure!(made["endpoint"]["branch_id"] == branch, "{made}");
    ensure!(ask(&up, Some("more"), "SELECT sum(n) FROM t")? == "55");
    let then = ["psql", "acme", "--endpoint", "more", "--lsn", &lsn];
    let read = up.table(&[&then[..], &["--", "-XqAtc", "SELECT sum(n) FROM t"]].concat())?;
    ensure!(read.trim() == "55", "{read}");
    up.json(&["branch", "delete", "acme", "try", "--yes"])?;
    let left = computes(&up)?;
    let name = branch.as_str().context("an id")?;
    ensure!(!left.iter().any(|compute| compute.branch.starts_with(name)), "{left:?}");
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_to_read_only_sleeps_by_itself_and_is_held_to_quotas() -> anyhow::Result<()> {
    let up = Up::start_with(&["--suspend-after", "2"]).await?;
    up.json(&["project", "create", "acme"])?;
    create(&up, "reports", &["--suspend-after", "1"])?;
    ask(&up, None, "CREATE TABLE t AS SELECT generate_series(1, 10) n")?;
    answers(&up, "reports", "SELECT sum(n) FROM t", "55").await?;
    is_idle(&up, "reports").await?;
    is_idle(&up, "main").await?;
    // It begins where the other one stopped, which sleeps on.
    ensure!(ask(&up, Some("reports"), "SELECT sum(n) FROM t")? == "55");
    ensure!(state(&up, "main")? == "idle", "the branch's own Postgres was woken");
    up.json(&["endpoint", "update", "acme", "reports", "--suspend-after", "never"])?;
    ensure!(ask(&up, Some("reports"), "SELECT sum(n) FROM t")? == "55");
    up.json(&["project", "set-quota", "acme", "--active-time", "1s"])?;
    is_idle(&up, "reports").await?;
    let refused = say(&up, Some("reports"), "SELECT 1")?;
    ensure!(refused.err.contains("active_time_seconds"), "{}", refused.err);
    up.json(&["project", "set-quota", "acme", "--active-time", "none"])?;
    up.json(&["endpoint", "update", "acme", "reports", "--disable"])?;
    let refused = say(&up, Some("reports"), "SELECT 1")?;
    ensure!(refused.err.contains("is disabled"), "{}", refused.err);
    up.json(&["endpoint", "update", "acme", "reports", "--enable"])?;
    ensure!(ask(&up, Some("reports"), "SELECT sum(n) FROM t")? == "55");
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_with_tablespaces_is_followed_and_read_as_it_was() -> anyhow::Result<()> {
    let up = Up::start_with(&["--suspend-after", "0"]).await?;
    up.json(&["project", "create", "acme"])?;
    create(&up, "reports", &[])?;
    ask(&up, None, "CREATE TABLE t AS SELECT 7 n")?;
    answers(&up, "reports", "SELECT sum(n) FROM t", "7").await?;
    let (compute, main) = superuser(&up, "main").await?;
    let owner = fs::metadata(&compute.sockets)?.uid();
    let place = up.data().join("place");
    fs::create_dir(&place)?;
    chown(&place, Some(owner), Some(owner))?;
    fs::set_permissions(up.data(), fs::Permissions::from_mode(0o711))?;
    // Who follows has no right to that folder, and begins anew behind it.
    main.run(&format!("CREATE TABLESPACE x LOCATION '{}'", place.display())).await?;
    main.run("ALTER TABLE t SET TABLESPACE x; INSERT INTO t VALUES (8)").await?;
    answers(&up, "reports", "SELECT sum(n) FROM t", "15").await?;
    let lsn = main.lsn().await?;
    main.run("INSERT INTO t VALUES (9)").await?;
    answers(&up, "reports", "SELECT sum(n) FROM t", "24").await?;
    let then = ["psql", "acme", "--lsn", &lsn, "--", "-XqAtc", "SELECT sum(n) FROM t"];
    ensure!(up.table(&then)?.trim() == "15");
    drop(main);
    up.stop()
}
