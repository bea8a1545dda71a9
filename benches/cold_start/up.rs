//! `offshoot up` with a proxy.

use std::{net::SocketAddr, path::Path};

use access::Bearer;
use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;

use super::harness::{Api, Database, Process, folder, free_port, up_arguments};

/// All roles in one process, and the proxy.
pub struct Up {
    pub api: Api,
    pub proxy: SocketAddr,
    arguments: Vec<String>,
    process: Process,
    folder: TempDir,
}

impl Up {
    /// Starts it. Computes are stopped by the bench alone.
    pub async fn start() -> anyhow::Result<Up> {
        let folder = folder()?;
        let proxy = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut arguments = up_arguments(&folder.path().join("data"));
        let more = ["--proxy", &proxy.to_string(), "--suspend-after", "0", "--allow-plain"];
        arguments.extend(more.map(str::to_owned));
        let mut process = Process::spawn(&arguments, &folder.path().join("up.log"))?;
        let ready: Value = serde_json::from_str(&process.wait_for_line("\"ready\"")?)?;
        let address = |name: &str| -> anyhow::Result<SocketAddr> {
            Ok(ready[name].as_str().context("an address")?.parse()?)
        };
        let token = ready["token_file"].as_str().context("the token's file")?;
        let operator = Bearer::file(token.into());
        let api = Api::new(address("pageserver_http")?, address("control_plane")?, operator);
        Ok(Up { api, proxy, arguments, process, folder })
    }

    /// Stops all roles.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let status = self.process.stop()?;
        anyhow::ensure!(status.success(), "it ended with {status}:\n{}", self.process.log());
        Ok(())
    }

    /// Starts them on what is there, and waits until they are ready.
    pub fn again(&mut self) -> anyhow::Result<()> {
        self.process = Process::spawn(&self.arguments, &self.folder.path().join("up.log"))?;
        self.process.wait_for_line("\"ready\"")?;
        Ok(())
    }

    /// Memory of the process and of all that it started.
    pub fn rss_mib(&self) -> anyhow::Result<f64> {
        let mut family = std::collections::BTreeSet::from([self.process.pid()]);
        let mut kib = 0;
        let mut statuses = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            // One that ends meanwhile takes nothing.
            let Ok(status) = std::fs::read_to_string(entry?.path().join("status")) else {
                continue;
            };
            let number = |name: &str| -> Option<u32> {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse().ok()
            };
            if let (Some(pid), Some(parent)) = (number("Pid:"), number("PPid:")) {
                statuses.push((pid, parent, number("VmRSS:").unwrap_or_default()));
            }
        }
        // Children have higher numbers than their parents, unless numbers began anew: then again.
        for _ in 0..2 {
            for (pid, parent, _) in &statuses {
                if family.contains(parent) {
                    family.insert(*pid);
                }
            }
        }
        for (pid, _, rss) in statuses {
            kib += if family.contains(&pid) { u64::from(rss) } else { 0 };
        }
        Ok(kib as f64 / 1024.0)
    }

    /// The folder that everything is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A sleeping tenant with a table, whose role `app` has the password `secret`.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<()> {
        self.api.create_tenant(name).await?;
        let compute = self.api.start(name, "main").await?;
        let database = Database::connect(compute.port).await?;
        database.run("ALTER ROLE app PASSWORD 'secret'; SET ROLE app").await?;
        database.run("CREATE TABLE t AS SELECT generate_series(1, 1000) n").await?;
        drop(database);
        self.api.stop(name, "main").await?;
        Ok(())
    }

    /// A connection string through the proxy; `require` is with channel binding.
    pub fn url(&self, endpoint: &str, sslmode: &str) -> String {
        let bound = if sslmode == "require" { "&channel_binding=require" } else { "" };
        let options = format!("endpoint%3D{endpoint}");
        let proxy = self.proxy;
        format!("postgresql://app:secret@{proxy}/app?sslmode={sslmode}&options={options}{bound}")
    }
}
