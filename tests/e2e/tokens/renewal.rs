//! A compute that runs for longer than its token is good.

use std::{fs, path::Path};

use access::Bearer;
use anyhow::{Context, ensure};
use serde_json::Value;

use crate::harness::{
    Api, Database, Process, amcheck, folder, pgbench, pgbench_init, turn, up_arguments,
};

/// How long a compute's token is good here, and how often that passes.
const LIFE: &str = "4s";
const SECONDS: &str = "20";

/// All that the computes below this folder have logged.
pub fn compute_logs(computes: &Path) -> anyhow::Result<String> {
    let mut all = String::new();
    for entry in fs::read_dir(computes)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            all += &fs::read_to_string(path)?;
        }
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_compute_outlives_its_tokens_without_losing_a_connection() -> anyhow::Result<()> {
    let _turn = turn().await;
    let folder = folder()?;
    let data = folder.path().join("data");
    let mut arguments = up_arguments(&data);
    arguments.extend(["--compute-token-life", LIFE].map(str::to_owned));
    let mut up = Process::spawn(&arguments, &folder.path().join("up.log"))?;
    let ready: Value = serde_json::from_str(&up.wait_for_line("\"ready\"")?)?;
    let said = |name: &str| ready[name].as_str().context("it is said");
    let operator = Bearer::file(said("token_file")?.into());
    let api =
        Api::new(said("pageserver_http")?.parse()?, said("control_plane")?.parse()?, operator);
    api.create_tenant("acme").await?;
    // So little memory that pages are read again and again.
    let settings = serde_json::json!({ "shared_buffers": "1MB" });
    let request = serde_json::json!({ "tenant": "acme", "settings": settings });
    let compute = api.start_with(request).await?;
    pgbench_init(compute.port, 5)?;
    let database = Database::connect(compute.port).await?;
    database.run("CHECKPOINT").await?;
    pgbench(compute.port, &["-n", "-c", "2", "-T", SECONDS])?;
    database.run("SELECT pg_sleep(10)").await?;
    let count: i64 = database.one("SELECT count(*) FROM pgbench_accounts").await?;
    ensure!(count == 500_000, "{count} accounts");
    amcheck(compute.port)?;

    let log = compute_logs(&data.join("computes"))?;
    for sign in ["connection to the pageserver lost", "fenced", "safekeeper connection ended"] {
        ensure!(!log.contains(sign), "{sign}:\n{log}");
    }
    let metrics = api.metrics(api.pageserver).await?;
    let mut refused = metrics.lines().filter(|line| line.contains("tokens_refused_total{"));
    ensure!(refused.all(|line| line.ends_with(" 0")), "{metrics}");
    ensure!(up.stop()?.success(), "{}", up.log());
    Ok(())
}
