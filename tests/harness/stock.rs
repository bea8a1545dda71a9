//! A stock Postgres on a data directory of its own, run by the unprivileged user.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::{ports::free_port, postgres::program};

/// A data directory, and its server where one runs: that is stopped with this value.
pub struct Stock {
    data: PathBuf,
    pub port: u16,
    is_running: bool,
}

impl Stock {
    /// Makes this data directory.
    pub fn initdb(data: PathBuf, options: &[&str]) -> anyhow::Result<Stock> {
        std::fs::create_dir(&data)?;
        let owned = Command::new("chown").arg("postgres").arg(&data).status()?;
        ensure!(owned.success(), "chown: {owned}");
        let stock = Stock { data, port: free_port(), is_running: false };
        stock.run("initdb", &[&["-U", "postgres", "--no-sync"], options].concat())?;
        Ok(stock)
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts the server, and waits until it accepts connections.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let options =
            format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories=", self.port);
        let log = self.data.join("log");
        let log = log.to_str().context("a path in UTF-8")?;
        self.run("pg_ctl", &["-s", "-w", "-l", log, "-o", &options, "start"])?;
        self.is_running = true;
        Ok(())
    }

    /// Stops it, `fast` or `immediate`.
    pub fn stop(&mut self, mode: &str) -> anyhow::Result<()> {
        self.is_running = false;
        self.run("pg_ctl", &["-s", "-w", "-m", mode, "stop"])
    }

    fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program(name).get_program());
        command.arg("-D").arg(&self.data).args(arguments);
        let status = command.current_dir(&self.data).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        if self.is_running
            && let Err(error) = self.stop("fast")
        {
            eprintln!("stock Postgres did not stop: {error:#}");
        }
    }
}
