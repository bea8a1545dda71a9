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
    _process: Process,
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
        Ok(Up { api, proxy, _process: process, folder })
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
