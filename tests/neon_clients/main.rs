//! Neon's public clients, as their registries have them, against a running `offshoot up`: neonctl,
//! the JavaScript client and Python's.
//!
//! `npm` and Python's `venv` are needed (`.ci/install --tests`); what the registries have is
//! installed below `target/tmp`, once.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other tests use other parts of it")]
mod harness;
mod install;
mod neonctl;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::MutexGuard;

use harness::{Process, folder, free_port, turn, up_arguments};

/// A running `offshoot up`, and how its API is reached.
struct Up {
    process: Process,
    _folder: TempDir,
    api: String,
    key: String,
    token_file: PathBuf,
    control_plane: String,
    proxy_port: u16,
    _turn: MutexGuard<'static, ()>,
}

impl Up {
    async fn start() -> anyhow::Result<Up> {
        Up::start_with(&[]).await
    }

    async fn start_with(more: &[&str]) -> anyhow::Result<Up> {
        let _turn = turn().await;
        let folder = folder()?;
        let data = folder.path().join("data");
        let mut arguments = up_arguments(&data);
        let proxy_port = free_port();
        arguments.extend(["--proxy".to_owned(), format!("127.0.0.1:{proxy_port}")]);
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let mut process = Process::spawn(&arguments, &folder.path().join("up.log"))?;
        let ready: Value = serde_json::from_str(&process.wait_for_line("\"ready\"")?)?;
        let control_plane = ready["control_plane"].as_str().context("no address")?.to_owned();
        let key = fs::read_to_string(data.join("catalog/api-key"))?.trim().to_owned();
        let api = format!("http://{control_plane}/api/v2");
        let token_file = data.join("auth/operator-token");
        Ok(Up { process, _folder: folder, api, key, token_file, control_plane, proxy_port, _turn })
    }

    /// What a project's running first branch answers, as its superuser.
    async fn sql(&self, project: &str, query: &str) -> anyhow::Result<String> {
        let url = format!("http://{}/v1/computes", self.control_plane);
        let token = fs::read_to_string(&self.token_file)?;
        let asked = reqwest::Client::new().get(url).bearer_auth(token.trim()).send().await?;
        let computes: Value = asked.error_for_status()?.json().await?;
        let runs = |compute: &&Value| {
            compute["tenant"] == project && compute["state"] == "running" && {
                let branch = compute["branch"].as_str().unwrap_or_default();
                branch == "main" || branch.starts_with(&format!("br-{project}_"))
            }
        };
        let compute = computes.as_array().into_iter().flatten().find(runs);
        let compute = compute.context("its first branch does not run")?;
        let (sockets, port) = (&compute["sockets"], compute["port"].to_string());
        let sockets = sockets.as_str().context("the folder of its socket")?;
        let output = Command::new("psql")
            .args(["-h", sockets, "-p", &port, "-U", "postgres", "-d", "app", "-qAtc", query])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{query}: {said}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let status = self.process.stop()?;
        ensure!(status.success(), "up ended with {status}:\n{}", self.process.log());
        Ok(())
    }
}

/// Runs a program that must succeed; what it printed.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| shown.clone())?;
    let [out, err] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.success(), "{shown} failed ({}):\n{out}{err}", output.status);
    Ok(out)
}

/// A file of this test.
fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/neon_clients").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn neonctl_runs_every_command() -> anyhow::Result<()> {
    let clients = install::javascript()?;
    let up = Up::start().await?;
    neonctl::tour(&up, &clients).await?;
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn neonctls_connection_strings_lead_to_a_branch_as_it_was() -> anyhow::Result<()> {
    let clients = install::javascript()?;
    let up = Up::start_with(&["--domain", "db.localhost"]).await?;
    neonctl::as_it_was(&up, &clients)?;
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client_makes_a_branch_and_waits_for_its_operations() -> anyhow::Result<()> {
    let clients = install::javascript()?;
    let up = Up::start().await?;
    // Where it finds its packages.
    let here = clients.folder.join("api_client.mjs");
    fs::copy(script("api_client.mjs"), &here)?;
    let mut command = Command::new(&clients.node);
    let said = run(command.arg(&here).env("API", &up.api).env("KEY", &up.key))?;
    ensure!(said.trim_end().ends_with("done"), "{said}");
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_gets_every_field_that_it_demands() -> anyhow::Result<()> {
    let python = install::python()?;
    let up = Up::start().await?;
    let mut command = Command::new(python);
    command.arg(script("neon_api_client.py")).env("API", &up.api).env("KEY", &up.key);
    let said = run(&mut command)?;
    ensure!(said.trim_end().ends_with("done"), "{said}");
    up.stop()
}
