//! One compute: a child process, from its spawn to the last trace of it.

use std::{
    fs::{OpenOptions, Permissions},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ComputeEvent, Error, Stages, leftovers,
    limits::{Group, Limits},
    tokens::ComputeTokens,
};

/// How long a compute may take to stop before it is killed. A fast stop writes a checkpoint through
/// the quorum, which may be slow but not this slow.
const STOP_MAX: Duration = Duration::from_secs(60);

/// How long the rest of a compute's output is read after its end.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// What a compute says may hold its tenant's data, and other computes run as other users.
const LOG_MODE: u32 = 0o600;

/// What is kept of a compute is root's alone while it does not run.
const KEPT_MODE: u32 = 0o700;

/// What a compute's Postgres logs to, in the compute's folder.
pub(crate) const POSTGRES_LOG: &str = "postgres.log";

/// Where that is kept after the compute's end: beside what the compute itself logged.
pub(crate) fn kept_log(log: &Path) -> PathBuf {
    log.with_extension(POSTGRES_LOG)
}

/// What a child is told: everything but how it is watched.
pub(crate) struct Spec {
    pub executable: PathBuf,
    pub arguments: Vec<String>,
    /// What it is brought on its standard input, where it needs any.
    pub tokens: Option<ComputeTokens>,
    /// The disposable folder: it is removed after the end, whatever the compute left in it or mounted.
    pub folder: PathBuf,
    /// Where its standard error goes.
    pub log: PathBuf,
    /// What it keeps, which belongs to nobody while no compute runs.
    pub keep: Option<PathBuf>,
    /// The control group of its Postgres, removed with it.
    pub group: Option<Group>,
}

/// Where a child is in its life.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// It was spawned.
    Starting,
    /// It accepts connections on this port.
    Ready { port: u16, stages_ms: Stages, order: Vec<String> },
    /// Its process is gone; what it left is being removed.
    Ending,
    /// It is gone, and so are its processes and mounts. `None`: it stopped as it was asked to.
    Ended {
        reason: Option<String>,
        /// It was a standby and had no checkpoint to begin at.
        no_checkpoint: bool,
    },
}

/// A child that is watched until its end.
pub(crate) struct Child {
    pub pid: u32,
    group: Option<Arc<Group>>,
    stop: CancellationToken,
    phase: watch::Receiver<Phase>,
    ended_at: Arc<OnceLock<Instant>>,
}

impl Child {
    /// Spawns the compute and watches it.
    pub(crate) fn spawn(spec: Spec) -> Result<Child, Error> {
        let failed = |path: &Path, reason| Error::Folder { path: path.to_owned(), reason };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(LOG_MODE)
            .open(&spec.log)
            .map_err(|reason| failed(&spec.log, reason))?;
        let mut process = Command::new(&spec.executable)
            .args(&spec.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A group of its own: Ctrl-C in the parent's terminal is for the parent to pass on, and
            // whatever the compute leaves behind is found by the group.
            .process_group(0)
            .spawn()
            .map_err(|reason| failed(&spec.executable, reason))?;
        let pid = process.id().unwrap_or_default();
        let mut stdin = process.stdin.take();
        let stdout = process.stdout.take();
        let stop = CancellationToken::new();
        let (report, phase) = watch::channel(Phase::Starting);
        let stopped = stop.clone();
        let ended_at = Arc::new(OnceLock::new());
        let ended = ended_at.clone();
        let group = spec.group.map(Arc::new);
        let removed = group.clone();
        tokio::spawn(async move {
            let lines = stdout.map(|stdout| BufReader::new(stdout).lines());
            let listening = tokio::spawn(listen(lines, report.clone()));
            let asked = async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = bring_tokens(stdin.as_mut(), spec.tokens) => {}
                }
                // The end of its standard input tells the compute to stop.
                drop(stdin);
                tokio::time::sleep(STOP_MAX).await;
            };
            let status = tokio::select! {
                status = process.wait() => status.ok(),
                () = asked => None,
            };
            ended.get_or_init(Instant::now);
            report.send_replace(Phase::Ending);
            // Whatever the compute left is ended: without it, Postgres serves a dead mount.
            end_group(pid);
            if status.is_none() {
                let _reaped = process.wait().await;
            }
            // Its standard output ends now, unless something outside the group still holds it.
            let heard = tokio::time::timeout(LAST_WORDS_MAX, listening).await;
            let last_words = heard.ok().and_then(Result::ok);
            clear(spec.folder, &spec.log, spec.keep, removed).await;
            let clean = stopped.is_cancelled() && status.is_some_and(|status| status.success());
            let LastWords { reason, no_checkpoint } = last_words.unwrap_or_default();
            let reason = (!clean).then(|| reason.unwrap_or_else(|| end_sentence(status)));
            report.send_replace(Phase::Ended { reason, no_checkpoint });
        });
        Ok(Child { pid, group, stop, phase, ended_at })
    }

    /// Holds its Postgres to these limits from now on.
    pub(crate) fn hold_to(&self, limits: Limits) {
        let Some(group) = &self.group else { return };
        for held in [group.set_cpu(limits), group.set_memory(limits)] {
            if let Err(error) = held {
                // Of memory that is in use, none can be taken back.
                tracing::warn!(%error, "a compute is not held to its new limits");
            }
        }
    }

    /// Where it is now.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// When its process ended, if it has.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.ended_at.get().copied()
    }

    /// Waits until it is ready or has ended.
    pub(crate) async fn started(&self) -> Phase {
        self.wait(|phase| matches!(phase, Phase::Ready { .. } | Phase::Ended { .. })).await
    }

    /// Waits until nothing of it is left.
    pub(crate) async fn ended(&self) -> Phase {
        self.wait(|phase| matches!(phase, Phase::Ended { .. })).await
    }

    /// Asks it to stop, and waits until nothing of it is left.
    pub(crate) async fn stop(&self) -> Phase {
        self.stop.cancel();
        self.ended().await
    }

    /// Kills it with all that belongs to it, and waits until nothing of it is left.
    pub(crate) async fn kill(&self) -> Phase {
        if !matches!(self.phase(), Phase::Ending | Phase::Ended { .. }) {
            end_group(self.pid);
        }
        self.stop().await
    }

    async fn wait(&self, until: impl FnMut(&Phase) -> bool) -> Phase {
        match self.phase.clone().wait_for(until).await {
            Ok(phase) => phase.clone(),
            // The watching task ends only after it has reported the end, unless it panicked.
            Err(_) => {
                let reason = Some("its watcher ended".to_owned());
                Phase::Ended { reason, no_checkpoint: false }
            }
        }
    }
}

/// Writes a token to the compute's standard input, one a line, whenever it needs a newer one. Never
/// ends: where the compute reads no more, its end is noticed elsewhere.
async fn bring_tokens(stdin: Option<&mut ChildStdin>, tokens: Option<ComputeTokens>) {
    if let (Some(stdin), Some(tokens)) = (stdin, tokens) {
        loop {
            let line = format!("{}\n", tokens.next().secret());
            if stdin.write_all(line.as_bytes()).await.is_err() {
                break;
            }
            tokio::time::sleep(tokens.pause()).await;
        }
    }
    std::future::pending().await
}

/// What a compute said last of why it ended, if anything.
#[derive(Default)]
struct LastWords {
    reason: Option<String>,
    no_checkpoint: bool,
}

/// Reads the compute's events to the end of its standard output.
async fn listen(
    lines: Option<Lines<BufReader<ChildStdout>>>,
    report: watch::Sender<Phase>,
) -> LastWords {
    let mut last_words = LastWords::default();
    let Some(mut lines) = lines else { return last_words };
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(ComputeEvent::Ready { port, stages_ms, order }) => {
                // One that has ended already is not ready, whatever it said before.
                report.send_if_modified(|phase| {
                    let starts = *phase == Phase::Starting;
                    if starts {
                        *phase = Phase::Ready { port, stages_ms, order };
                    }
                    starts
                });
            }
            Ok(ComputeEvent::Fenced { reason } | ComputeEvent::Failed { reason }) => {
                last_words = LastWords { reason: Some(reason), no_checkpoint: false };
            }
            Ok(ComputeEvent::NoCheckpoint { reason }) => {
                last_words = LastWords { reason: Some(reason), no_checkpoint: true };
            }
            Ok(ComputeEvent::Stopped) => {}
            Err(_) => tracing::debug!(line, "a compute printed something that is no event"),
        }
    }
    last_words
}

/// Removes what is left of a compute, but for what its Postgres said last.
async fn clear(folder: PathBuf, log: &Path, keep: Option<PathBuf>, group: Option<Arc<Group>>) {
    let shown = folder.display().to_string();
    match std::fs::rename(folder.join(POSTGRES_LOG), kept_log(log)) {
        Err(reason) if reason.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = shown, %reason, "the log of a Postgres could not be kept");
        }
        _ => {}
    }
    let cleared = move || {
        leftovers::clear(&folder)?;
        // Another compute may be given the user, but not what this one kept.
        if let Some(keep) = keep.filter(|keep| keep.exists()) {
            std::fs::set_permissions(keep, Permissions::from_mode(KEPT_MODE))?;
        }
        group.map_or(Ok(()), |group| group.remove())
    };
    match tokio::task::spawn_blocking(cleared).await {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => {
            tracing::warn!(folder = shown, %reason, "what a compute left could not be removed");
        }
        Err(reason) => tracing::error!(folder = shown, %reason, "clearing a folder failed"),
    }
}

fn end_group(pid: u32) {
    // A process that never had an id has no group; 0 would be this process' own group.
    let Some(group) = i32::try_from(pid).ok().filter(|group| *group > 1) else { return };
    // ESRCH: nothing is left, which is what is wanted.
    let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
}

fn end_sentence(status: Option<std::process::ExitStatus>) -> String {
    match status {
        Some(status) => format!("its process ended: {status}"),
        None => format!("it did not stop within {} seconds and was killed", STOP_MAX.as_secs()),
    }
}
