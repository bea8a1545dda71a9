//! The yardstick: the same stock Postgres on a plain directory with fsync on, and one synchronous
//! standby beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::harness::{Database, folder, free_port, program};

/// A primary and its synchronous standby, each in a folder of its own.
pub struct Stock {
    folder: TempDir,
    pub port: u16,
}

impl Stock {
    /// Makes and starts both.
    pub async fn start() -> anyhow::Result<Stock> {
        let stock = Stock { folder: folder()?, port: free_port() };
        let owner = Command::new("chown").arg("postgres").arg(stock.folder.path()).status()?;
        ensure!(owner.success(), "chown: {owner}");
        let primary = stock.path("primary");
        stock.run(
            "initdb",
            &[
                "--username=postgres",
                "--auth=trust",
                "--locale=C.UTF-8",
                "-E",
                "UTF8",
                "-D",
                text(&primary)?,
            ],
        )?;
        let settings = format!(
            "port={}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nfsync=on\n\
             synchronous_commit=on\nwal_level=replica\nmax_wal_size=4GB\ncheckpoint_timeout=30min\n",
            stock.port
        );
        append(&primary.join("postgresql.conf"), &settings)?;
        stock.pg_ctl(&primary, "start")?;
        Database::connect_to(stock.port, "postgres").await?.run("CREATE DATABASE app").await?;

        let standby = stock.path("standby");
        let port = stock.port.to_string();
        stock.run(
            "pg_basebackup",
            &[
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "postgres",
                "-R",
                "-X",
                "stream",
                "-D",
                text(&standby)?,
            ],
        )?;
        append(&standby.join("postgresql.conf"), &format!("port={}\n", free_port()))?;
        stock.pg_ctl(&standby, "start")?;
        append(&primary.join("postgresql.conf"), "synchronous_standby_names='*'\n")?;
        stock.pg_ctl(&primary, "reload")?;
        let database = Database::connect_to(stock.port, "app").await?;
        let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        crate::harness::eventually(
            "the standby is synchronous",
            std::time::Duration::from_secs(30),
            async || {
                ensure!(database.one::<i64>(synchronous).await? == 1, "it is not");
                Ok(())
            },
        )
        .await?;
        Ok(stock)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pg_ctl(&self, data: &Path, action: &str) -> anyhow::Result<()> {
        let log = self.path("log");
        let mut arguments = vec!["-D", text(data)?, "-s", action];
        match action {
            "start" => arguments.extend(["-w", "-l", text(&log)?]),
            "stop" => arguments.extend(["-w", "-m", "fast"]),
            _ => {}
        }
        self.run("pg_ctl", &arguments)
    }

    fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let executable = program(name);
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(executable.get_program()).args(arguments);
        let status =
            command.current_dir(self.folder.path()).stdout(std::process::Stdio::null()).status()?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        for name in ["primary", "standby"] {
            if let Err(error) = self.pg_ctl(&self.path(name), "stop") {
                eprintln!("the {name} did not stop: {error:#}");
            }
        }
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn append(file: &Path, text: &str) -> anyhow::Result<()> {
    let before = fs::read_to_string(file)?;
    Ok(fs::write(file, format!("{before}\n{text}"))?)
}
