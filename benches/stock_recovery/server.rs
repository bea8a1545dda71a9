//! A stock Postgres in a folder, run as the user postgres.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Where Debian has Postgres' programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A running server; it is stopped at once when it goes out of scope.
pub struct Server {
    folder: PathBuf,
    data: PathBuf,
    is_running: bool,
}

/// Runs a program of Postgres in this folder; what it says.
pub fn program(folder: &Path, name: &str, arguments: &[&str]) -> Result<String> {
    let installed = Path::new(PROGRAMS).join(name);
    let installed = if installed.exists() { installed } else { name.into() };
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(installed).args(arguments);
    command.current_dir(folder).env("LC_ALL", "C").stdin(Stdio::null());
    // A server that pg_ctl starts keeps its output open: it goes nowhere.
    if name == "pg_ctl" {
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "{command:?}: {status}");
        return Ok(String::new());
    }
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

impl Server {
    /// Starts the server of this data directory, which logs to `log` in `folder`; with `wait`, until it accepts connections.
    pub fn start(folder: &Path, data: &Path, settings: &[String], wait: bool) -> Result<Server> {
        let server = Server { folder: folder.to_owned(), data: data.to_owned(), is_running: true };
        let log = folder.join("log");
        let wait = if wait { "-w" } else { "-W" };
        let settings = settings.join(" ");
        let arguments =
            [wait, "-t", "600", "-D", text(data)?, "-l", text(&log)?, "-o", &settings, "start"];
        program(folder, "pg_ctl", &arguments).with_context(|| log.display().to_string())?;
        Ok(server)
    }

    /// A clean stop.
    pub fn stop(mut self) -> Result<()> {
        self.is_running = false;
        self.end("fast")
    }

    fn end(&self, mode: &str) -> Result<()> {
        let data = text(&self.data)?;
        program(&self.folder, "pg_ctl", &["-w", "-t", "600", "-m", mode, "-D", data, "stop"])?;
        Ok(())
    }

    /// Runs SQL; its one value.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let host = ["-h", text(&self.folder)?, "-U", "postgres", "-v", "ON_ERROR_STOP=1"];
        let arguments = [&host[..], &["-X", "-A", "-t", "-q", "-c", sql]].concat();
        Ok(program(&self.folder, "psql", &arguments)?.trim().to_owned())
    }

    pub fn pgbench(&self, arguments: &[&str]) -> Result<()> {
        let host = ["-h", text(&self.folder)?, "-U", "postgres"];
        program(&self.folder, "pgbench", &[&host[..], arguments, &["postgres"]].concat())?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_running
            && let Err(error) = self.end("immediate")
        {
            eprintln!("the server did not stop: {error:#}");
        }
    }
}

pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}
