//! What no log may hold.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::harness::{OFFSHOOT, Process, folder, free_port, turn, up_arguments};

/// Every log below a folder.
fn logs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A compute's mounts are no logs, and its folder may go while it is looked at.
        if path.is_dir() && path.file_name().is_some_and(|name| name != "store" && name != "data") {
            found.extend(logs(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_holds_a_password_a_key_or_a_token_however_much_is_logged() -> anyhow::Result<()> {
    let _turn = turn().await;
    let folder = folder()?;
    let data = folder.path().join("state");
    let log = folder.path().join("up.log");
    let mut arguments = up_arguments(&data);
    let more = ["--proxy", &format!("127.0.0.1:{}", free_port()), "--compute-token-life", "2s"];
    arguments.extend(more.map(str::to_owned));
    let loud = vec![("OFFSHOOT_LOG", "trace".to_owned())];
    let mut up = Process::spawn_with(&arguments, loud, &log)?;
    let ready: Value = serde_json::from_str(&up.wait_for_line("\"ready\"")?)?;
    let said = |name: &str| ready[name].as_str().map(str::to_owned).context("it is said");
    let (url, key_file) = (format!("http://{}", said("control_plane")?), said("api_key_file")?);
    let token_file = said("token_file")?;
    let offshoot = |arguments: &[&str]| -> anyhow::Result<Value> {
        let output = Command::new(OFFSHOOT)
            .args(["--json", "--api-url", &url, "--control-plane", &url[7..]])
            .args(["--api-key-file", &key_file, "--token-file", &token_file])
            .args(arguments)
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {complaint}");
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    };
    // A project, its connection, a role, a new password, an API key, a wrong password.
    offshoot(&["project", "create", "acme"])?;
    let uri =
        offshoot(&["connection-string", "acme"])?["uri"].as_str().context("a uri")?.to_owned();
    let password = uri.split(':').nth(2).and_then(|rest| rest.split('@').next()).unwrap_or("");
    offshoot(&["psql", "acme", "--", "-qAtc", "SELECT 1"])?;
    let role = offshoot(&["role", "create", "acme", "reader"])?;
    let reset = offshoot(&["role", "reset-password", "acme", "reader"])?;
    offshoot(&["psql", "acme", "--role", "reader", "--", "-qAtc", "SELECT 1"])?;
    let wrong = uri.replace(password, "not-the-right-one");
    let refused = Command::new("psql").args(["-d", &wrong, "-c", "SELECT 1"]).output()?;
    ensure!(!refused.status.success(), "a wrong password is taken");
    offshoot(&["tenant", "create", "plain"])?;
    offshoot(&["tenant", "psql", "plain", "--", "-qAtc", "SELECT 1"])?;
    // Computes are brought newer tokens meanwhile.
    offshoot(&["tenant", "psql", "plain", "--", "-qAtc", "SELECT pg_sleep(4)"])?;

    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    let middle_of = |pem: String| pem.lines().nth(1).unwrap_or_default().to_owned();
    let text = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut secrets = vec![
        ("the first API key", read(&key_file)?.trim().to_owned()),
        ("the operator's token", read(&token_file)?.trim().to_owned()),
        // The head of every token is the same.
        ("a token", read(&token_file)?.split('.').next().unwrap_or_default().to_owned()),
        ("the signing key", middle_of(read(&data.join("auth/key").display().to_string())?)),
        ("the proxy's key", middle_of(read(&data.join("proxy/proxy.key").display().to_string())?)),
        ("the owner's password", password.to_owned()),
        ("a wrong password", "not-the-right-one".to_owned()),
        ("a verifier", "SCRAM-SHA-256$".to_owned()),
    ];
    for (what, value) in [("a role's password", &role), ("a new password", &reset)] {
        secrets.push((what, text(value, "/role/password")));
    }
    ensure!(up.stop()?.success());
    let logs = logs(folder.path())?;
    ensure!(logs.len() >= 4, "only {logs:?}");
    for log in logs {
        let held = fs::read_to_string(&log)?;
        for (what, secret) in &secrets {
            ensure!(secret.len() > 8, "{what} was not found: {secret:?}");
            let line = held.lines().find(|line| line.contains(secret.as_str()));
            ensure!(line.is_none(), "{what} is in {}: {line:?}", log.display());
        }
    }
    Ok(())
}
