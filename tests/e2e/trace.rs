//! A cold start is taken apart by stage for whoever waited for it.

use anyhow::{Context, ensure};

use crate::projects::Up;

#[tokio::test(flavor = "multi_thread")]
async fn what_waking_a_database_took_is_said_stage_by_stage() -> anyhow::Result<()> {
    let up = Up::start_with(&[]).await?;
    up.json(&["project", "create", "acme"])?;
    let query = ["psql", "acme", "--trace", "--", "-XqAtc", "SELECT 'here'"];
    let said = up.run(&query)?;
    ensure!(said.code == 0 && said.out.trim() == "here", "{} {}", said.out, said.err);
    // In the order in which a client waits for them.
    let mut rest = said.err.as_str();
    for stage in [
        "control plane: look up",
        "control plane: run the compute",
        "compute: elect",
        "compute: base backup",
        "compute: postgres",
        "control plane: apply changes",
        "control plane: look at roles",
        "proxy: connect as the superuser",
        "proxy: ask for the verifier",
        "proxy: the client's proof",
        "proxy: log in",
        "together",
    ] {
        let (_, after) =
            rest.split_once(stage).with_context(|| format!("no {stage:?} in\n{}", said.err))?;
        rest = after;
    }
    // The second client was not waited for by the first.
    ensure!(up.run(&query)?.err == said.err, "another client changed what the start took");

    up.json(&["endpoint", "suspend", "acme", "main"])?;
    let shown = up.table(&["endpoint", "start", "acme", "main", "--trace"])?;
    ensure!(shown.contains("active") && shown.contains("compute: postgres"), "{shown}");
    ensure!(!shown.contains("proxy: "), "nobody came by the proxy: {shown}");
    let traced = up.json(&["endpoint", "start", "acme", "main", "--trace"])?;
    let stages = traced["trace"]["stages"].as_array().context("stages")?;
    let sum: f64 = stages.iter().filter_map(|stage| stage["ms"].as_f64()).sum();
    let total = traced["trace"]["total_ms"].as_f64().context("a total")?;
    ensure!(stages.len() > 8 && (total - sum).abs() < 0.001, "{traced}");

    // Below projects, by the control plane's own API.
    let id = up.json(&["project", "show", "acme"])?["project"]["id"].clone();
    let id = id.as_str().context("an id")?;
    let start = ["--control-plane", up.control_plane(), "compute", "start", id, "main", "--trace"];
    let shown = up.table(&start)?;
    ensure!(shown.contains("postgresql://") && shown.contains("compute: elect"), "{shown}");
    let failing = up.run(&["psql", "acme", "--trace", "--", "-Xc", "SELECT nonsense"])?;
    ensure!(failing.code == 1 && failing.err.contains("together"), "{}", failing.err);
    up.stop()
}
