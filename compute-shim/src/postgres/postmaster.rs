//! The postmaster as a child process.
//!
//! Its parent, for the kernel, is the thread that started it; when that thread ends, also because
//! this process was killed, the kernel sends the postmaster SIGQUIT, and it takes its backends with
//! it. So it is started by a thread of its own, which does nothing but wait for it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::{
        fs::OpenOptionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use crate::{ShimError, fuse::Owner};

/// How long a start may take. There is no recovery in it.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a starting Postgres is looked at.
const READY_PAUSE: Duration = Duration::from_millis(5);
/// How long a clean stop may take: a checkpoint, and its WAL through the quorum.
const FAST_STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a stop without a checkpoint may take. The postmaster itself kills after 5 seconds.
const IMMEDIATE_STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// How much of the log is shown when Postgres fails.
const LOG_TAIL_BYTES: u64 = 4096;
/// What Postgres says may hold a tenant's data, and other computes run as other users.
const LOG_MODE: u32 = 0o600;

/// How Postgres is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Cleanly: transactions are ended, a shutdown checkpoint is written.
    Fast,
    /// At once: nothing more is written.
    Immediate,
}

/// A running postmaster. Killed where it is dropped before it was stopped.
pub struct Postmaster {
    process: Pid,
    exit: watch::Receiver<Option<ExitStatus>>,
    data: PathBuf,
    log: PathBuf,
}

impl Postmaster {
    /// Starts Postgres as this user, in these control groups, with these and a few harmless variables
    /// in its environment.
    pub async fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        owner: Owner,
        cgroups: &[PathBuf],
        data: &Path,
        log: &Path,
    ) -> Result<Postmaster, ShimError> {
        let cgroups = open_cgroups(cgroups)?;
        let output = File::options()
            .create(true)
            .append(true)
            .mode(LOG_MODE)
            .open(log)
            .map_err(ShimError::io(format!("opening {}", log.display())))?;
        let failed = || ShimError::io(format!("starting {}", program.display()));
        let errors = output.try_clone().map_err(failed())?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(data)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .uid(owner.uid)
            .gid(owner.gid)
            // A Ctrl-C at the terminal is for this process, which stops Postgres in its order.
            .process_group(0);
        quit_with_parent(&mut command);
        join(&mut command, cgroups);
        let (started, start) = oneshot::channel();
        let (ended, exit) = watch::channel(None);
        std::thread::Builder::new()
            .name("postmaster".to_owned())
            .spawn(move || supervise(command, started, &ended))
            .map_err(failed())?;
        let process = start.await.map_err(io::Error::other).flatten().map_err(failed())?;
        Ok(Postmaster { process, exit, data: data.to_owned(), log: log.to_owned() })
    }

    /// The postmaster's process.
    pub fn process(&self) -> u32 {
        self.process.as_raw().unsigned_abs()
    }

    /// Waits until Postgres accepts connections.
    pub async fn ready(&mut self) -> Result<(), ShimError> {
        let pid_file = self.data.join("postmaster.pid");
        let is_ready = async {
            // Source: pidfile.h; the eighth line is the state, as pg_ctl waits for it.
            while !std::fs::read_to_string(&pid_file)
                .is_ok_and(|file| file.lines().nth(7).is_some_and(|state| state.trim() == "ready"))
            {
                sleep(READY_PAUSE).await;
            }
        };
        let mut exit = self.exit.clone();
        tokio::select! {
            ready = timeout(START_TIME_MAX, is_ready) => ready.map_err(|_| {
                self.failure(format!("Postgres did not accept connections in {START_TIME_MAX:?}"))
            }),
            status = ended(&mut exit) => Err(self.failure(format!(
                "Postgres did not start: it ended with {status}"
            ))),
        }
    }

    /// Waits until the postmaster ends.
    pub async fn ended(&self) -> String {
        ended(&mut self.exit.clone()).await
    }

    /// Whether the postmaster has ended, and not as one that was asked to.
    pub fn crashed(&self) -> bool {
        self.exit.borrow().is_some_and(|status| !status.success())
    }

    /// Stops Postgres, and waits until its postmaster is gone: whether it is, in the time that such
    /// a stop may take.
    pub async fn stop(&self, how: Stop) -> bool {
        let steps: &[_] = match how {
            Stop::Fast => &[(Signal::SIGINT, FAST_STOP_TIME_MAX)],
            Stop::Immediate => &[
                (Signal::SIGQUIT, IMMEDIATE_STOP_TIME_MAX),
                (Signal::SIGKILL, IMMEDIATE_STOP_TIME_MAX),
            ],
        };
        for (signal, wait) in steps {
            self.signal(*signal);
            if timeout(*wait, self.ended()).await.is_ok() {
                return true;
            }
            tracing::warn!(%signal, ?wait, "Postgres did not stop in time");
        }
        false
    }

    /// The end of Postgres' log, with what went wrong.
    pub fn failure(&self, what: String) -> ShimError {
        ShimError::Postgres { what, log: self.log.clone(), tail: log_tail(&self.log) }
    }

    fn signal(&self, signal: Signal) {
        // Only while it runs: afterwards its number may be another's.
        if self.exit.borrow().is_none() {
            let _ = kill(self.process, signal);
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        self.signal(Signal::SIGQUIT);
    }
}

/// Starts the process, waits for its end, and says both.
fn supervise(
    mut command: Command,
    started: oneshot::Sender<io::Result<Pid>>,
    ended: &watch::Sender<Option<ExitStatus>>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // Whoever asked has left, and needs no answer.
            let _ = started.send(Err(error));
            return;
        }
    };
    // The kernel's process numbers are below 2^22.
    let _ = started.send(Ok(Pid::from_raw(child.id() as i32)));
    let status = child.wait().unwrap_or_else(|error| {
        tracing::error!(%error, "the postmaster cannot be waited for");
        ExitStatus::from_raw(-1)
    });
    ended.send_replace(Some(status));
}

async fn ended(exit: &mut watch::Receiver<Option<ExitStatus>>) -> String {
    let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
    status.map_or_else(|| "no status".to_owned(), |status| status.to_string())
}

/// Has the kernel send SIGQUIT to the child when the thread that starts it ends.
#[expect(unsafe_code, reason = "the signal is set between fork and exec, in the child itself")]
fn quit_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let set = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGQUIT)?;
        // The parent may have ended before the signal was set.
        match nix::unistd::getppid() == parent {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: prctl and getppid are
    // plain system calls, and nothing is allocated.
    unsafe { command.pre_exec(set) };
}

/// The lists of the groups' processes. They are opened by this process, which may change them.
fn open_cgroups(cgroups: &[PathBuf]) -> Result<Vec<File>, ShimError> {
    let open = |group: &PathBuf| {
        let processes = group.join("cgroup.procs");
        File::options().write(true).open(&processes).map_err(ShimError::io(format!(
            "opening {}: is the control group there that the compute is to run in",
            processes.display()
        )))
    };
    cgroups.iter().map(open).collect()
}

/// Has the child join control groups before it becomes Postgres: none of its children is ever outside.
#[expect(
    unsafe_code,
    reason = "a process joins a group between fork and exec, in the child itself"
)]
fn join(command: &mut Command, cgroups: Vec<File>) {
    let join = move || {
        for processes in &cgroups {
            // The process that writes it is meant by 0.
            nix::unistd::write(processes, b"0")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: write is one, and
    // nothing is allocated.
    unsafe { command.pre_exec(join) };
}

fn log_tail(log: &Path) -> String {
    let tail = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    tail().unwrap_or_else(|error| format!("(unreadable: {error})"))
}
