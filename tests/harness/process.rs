//! One process of the binary under test.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// How long a process may take to say that it is ready; the first one runs initdb.
const READY_MAX: Duration = super::PATIENCE;
/// How long a process may take to stop when asked.
const STOP_MAX: Duration = super::PATIENCE;

/// A running process of `offshoot`, in a group of its own; ended with this value.
pub struct Process {
    child: Child,
    log: PathBuf,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `offshoot` with these arguments; what it logs goes to `log`.
    pub fn spawn(arguments: &[String], log: &Path) -> anyhow::Result<Process> {
        Process::spawn_with(arguments, Vec::new(), log)
    }

    /// Starts `offshoot` with these arguments and variables of its environment.
    pub fn spawn_with(
        arguments: &[String],
        environment: Vec<(&'static str, String)>,
        log: &Path,
    ) -> anyhow::Result<Process> {
        let stderr = File::options().create(true).append(true).open(log)?;
        let mut child = Command::new(super::OFFSHOOT)
            .args(arguments)
            .env("OFFSHOOT_LOG", std::env::var("OFFSHOOT_LOG").unwrap_or("info".into()))
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .context("the binary under test does not run")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens any more once the process is dropped.
                let _heard = said.send(line);
            }
        });
        Ok(Process { child, log: log.to_owned(), lines })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of its standard output that holds this text.
    pub fn wait_for_line(&mut self, text: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(reason) => bail!("{text:?} was not said ({reason}); its log:\n{}", self.log()),
            }
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Presses Ctrl-C, once.
    pub fn interrupt(&self) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?)
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        self.wait(STOP_MAX)
    }

    /// Waits for its end.
    pub fn wait(&mut self, longest: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + longest;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("it did not end within {longest:?}; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it and its process group at once.
    pub fn kill(&mut self) {
        let group = Pid::from_raw(self.child.id() as i32);
        let _gone = killpg(group, Signal::SIGKILL);
        let _reaped = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() && self.stop().is_err() {
            eprintln!("a process had to be killed: {:?}", self.log);
        }
        self.kill();
    }
}
