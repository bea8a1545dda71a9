//! A compute is held to its endpoint's compute units by the kernel, where the machine has control
//! groups, and to new ones without a restart.

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::projects::Up;

/// The control group of a project's Postgres that bounds memory, and the file that says how far.
fn memory_limit(postmaster: u32) -> anyhow::Result<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{postmaster}/cgroup"))?;
    let path =
        |line: &str| line.rsplit(':').next().unwrap_or_default().trim_matches('/').to_owned();
    let is_memory = |line: &&str| line.split(':').nth(1).is_some_and(|names| names == "memory");
    match groups.lines().find(is_memory) {
        Some(line) => Ok(PathBuf::from("/sys/fs/cgroup/memory")
            .join(path(line))
            .join("memory.limit_in_bytes")),
        None => {
            let line = groups.lines().find(|line| line.starts_with("0::")).context("no group")?;
            Ok(PathBuf::from("/sys/fs/cgroup").join(path(line)).join("memory.max"))
        }
    }
}

fn postmaster(up: &Up, project: &str) -> anyhow::Result<u32> {
    let listed = up.json(&["--control-plane", up.control_plane(), "compute", "list"])?;
    let computes = listed.as_array().context("a list")?;
    let id = up.json(&["project", "show", project])?["project"]["id"].clone();
    let compute = computes.iter().find(|compute| compute["tenant"] == id).context("it runs")?;
    let timeline = compute["timeline_id"].as_str().context("an id")?;
    let file = up.data().join("computes").join(&timeline[..16]).join("data/postmaster.pid");
    let pid = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(pid.lines().next().context("a number")?.trim().parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoints_units_bound_its_postgres_and_change_while_it_runs() -> anyhow::Result<()> {
    let up = Up::start_with(&[]).await?;
    for project in ["acme", "shop"] {
        up.json(&["project", "create", project])?;
    }
    let ask = |project: &str, query: &str| {
        let said = up.table(&["psql", project, "--", "-XqAtc", query]);
        said.map(|said| said.trim().to_owned())
    };
    // A unit is a processor and 4 GiB, of which a quarter is for shared buffers.
    ensure!(ask("acme", "SHOW shared_buffers")? == "1GB");
    ensure!(ask("shop", "SHOW shared_buffers")? == "1GB");
    let started = ask("acme", "SELECT pg_postmaster_start_time()")?;

    let status = up.json(&["--control-plane", up.control_plane(), "status"])?;
    let bounds = &status["control_plane"]["bounds"];
    let shown = up.table(&["--control-plane", up.control_plane(), "status"])?;
    if bounds["memory"] == Value::Null {
        ensure!(shown.contains("memory not bounded") && bounds["reason"].is_string(), "{shown}");
        return up.stop();
    }
    ensure!(shown.contains("memory by cgroup v"), "{shown}");

    let files = [memory_limit(postmaster(&up, "acme")?)?, memory_limit(postmaster(&up, "shop")?)?];
    let limits = || -> anyhow::Result<Vec<String>> {
        let read = |file: &PathBuf| -> anyhow::Result<String> {
            let limit = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            Ok(limit.trim().to_owned())
        };
        files.iter().map(read).collect()
    };
    let bytes = |units: u64| (units << 32).to_string();
    ensure!(limits()? == [bytes(1), bytes(1)], "{:?}", limits()?);
    up.json(&["endpoint", "update", "acme", "main", "--max-cu", "2"])?;
    ensure!(limits()? == [bytes(2), bytes(1)], "{:?}", limits()?);
    ensure!(ask("acme", "SELECT pg_postmaster_start_time()")? == started, "it was restarted");
    up.json(&["endpoint", "restart", "acme", "main"])?;
    ensure!(ask("acme", "SHOW shared_buffers")? == "2GB");
    up.json(&["endpoint", "suspend", "acme", "main"])?;
    ensure!(!files[0].exists(), "its control group outlived it");
    ensure!(files[1].exists());
    up.stop()
}
