//! Endpoints that say by themselves how long nobody may use them before their computes are suspended.

use anyhow::ensure;

use crate::{
    harness::{PATIENCE, eventually},
    projects::Up,
};

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_is_suspended_after_its_own_time_and_never_where_it_says_so()
-> anyhow::Result<()> {
    let up = Up::start_with(&["--suspend-after", "2"]).await?;
    let project = |name: &str, after: &str| {
        up.json(&["project", "create", name, "--suspend-after", after]).map(drop)
    };
    project("always", "never")?;
    project("long", "86400")?;
    project("usual", "default")?;
    let ask = |name: &str| up.table(&["psql", name, "--", "-XqAtc", "SELECT 'here'"]);
    let state = |name: &str| -> anyhow::Result<String> {
        let shown = up.json(&["endpoint", "show", name, "main"])?;
        Ok(shown["endpoint"]["current_state"].as_str().unwrap_or_default().to_owned())
    };
    let is_suspended = async |name: &str| {
        eventually("an endpoint that nobody uses is suspended", PATIENCE, async || {
            let state = state(name)?;
            ensure!(state == "idle", "{name} is {state}");
            let shown = up.table(&["endpoint", "show", name, "main"])?;
            ensure!(
                shown.lines().any(|line| line.starts_with("suspended  ")),
                "it does not say since when: {shown}"
            );
            Ok(())
        })
        .await
    };
    // They are left in the order of their names here: what is suspended last was left last.
    for name in ["always", "long", "usual"] {
        ensure!(ask(name)?.trim() == "here");
    }
    is_suspended("usual").await?;
    for name in ["always", "long"] {
        ensure!(state(name)? == "active", "{name} was suspended with the server's default");
    }
    // A change counts for the compute that runs.
    up.json(&["endpoint", "update", "long", "main", "--suspend-after", "1"])?;
    is_suspended("long").await?;
    ensure!(state("always")? == "active", "one that is never suspended was");
    // What was suspended wakes, and sleeps again.
    ensure!(ask("long")?.trim() == "here");
    up.json(&["endpoint", "update", "always", "main", "--suspend-after", "default"])?;
    is_suspended("always").await?;
    is_suspended("long").await?;
    up.stop()
}
