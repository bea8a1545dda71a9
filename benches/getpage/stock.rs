//! A stock Postgres with a data directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use crate::harness::{free_port, program};

/// It runs until it is stopped or dropped.
pub struct Stock {
    data: PathBuf,
    pub port: u16,
    is_running: bool,
}

impl Stock {
    /// Makes and starts one in `pgdata` in this folder.
    pub fn start(folder: &Path) -> anyhow::Result<Stock> {
        let mut stock = Stock { data: folder.join("pgdata"), port: free_port(), is_running: false };
        fs::create_dir(&stock.data)?;
        fs::write(stock.log(), "")?;
        let log = stock.log();
        succeeds(Command::new("chown").arg("postgres").arg(&stock.data).arg(&log))?;
        let locale = ["--locale=C.UTF-8", "-E", "UTF8", "--auth=trust", "--username=postgres"];
        stock.run("initdb", &locale)?;
        let port = stock.port;
        let options =
            format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=");
        let log = log.to_str().context("a path in UTF-8")?;
        stock.run("pg_ctl", &["-s", "-w", "-l", log, "-o", &options, "start"])?;
        stock.is_running = true;
        Ok(stock)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Stops it cleanly.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.is_running = false;
        self.run("pg_ctl", &["-s", "-w", "-m", "fast", "stop"])
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let executable = program(name);
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(executable.get_program());
        command.arg("-D").arg(&self.data).args(arguments);
        succeeds(command.current_dir(&self.data).stdout(Stdio::null()))
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        if self.is_running
            && let Err(error) = self.stop()
        {
            eprintln!("stock Postgres did not stop: {error:#}");
        }
    }
}

fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
