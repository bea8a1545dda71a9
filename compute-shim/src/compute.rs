//! A compute's whole life: from an empty folder to a running Postgres, and back to nothing mounted.

mod kept;
mod moment;
mod standby;
mod start;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use access::Bearer;
use protocol::{TenantTimeline, Term, page_service::ReadAt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wal_format::Lsn;

use self::start::Running;
use crate::{
    ShimError,
    folder::Folder,
    page_client::Route,
    postgres::{Machine, Stop},
};

/// A Postgres that crashes sooner after its start would crash again.
const CRASH_TIME_MIN: Duration = Duration::from_secs(5);
/// After Postgres ended, how long a fence may take to explain it. A compute that was superseded must
/// not stand for election again, and safekeepers name a newer term with each heartbeat.
const FENCE_TIME_MAX: Duration = Duration::from_secs(2);

/// What a compute serves of its timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serves {
    /// Its head, which it writes.
    Head,
    /// One moment: the end of this record. It is read-only.
    Moment(Lsn),
    /// What another compute writes, as soon as that is committed. It is read-only.
    Standby {
        /// Where the record of a checkpoint begins that it is to begin at; where none is said, the
        /// timeline's WAL must end in a shutdown checkpoint.
        checkpoint: Option<Lsn>,
    },
}

/// What a compute needs to know.
#[derive(Clone, Debug)]
pub struct ComputeConfig {
    /// The timeline whose Postgres this is.
    pub timeline: TenantTimeline,
    /// What it serves of it.
    pub serves: Serves,
    /// Where the page services listen: the tenant's first, and the others that it may go to.
    pub pageservers: Route,
    /// Where the safekeepers listen: all of them.
    pub safekeepers: Vec<SocketAddr>,
    /// What pageservers and safekeepers are shown.
    pub bearer: Bearer,
    /// The compute's disposable folder; made where it is missing, emptied at each start.
    pub folder: PathBuf,
    /// Where Postgres listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder with stock Postgres' programs, where the usual places are not meant.
    pub pg_bin: Option<PathBuf>,
    /// The unprivileged user that Postgres runs as; `postgres` where none is named.
    pub user: Option<String>,
    /// Where slots and statistics outlive the compute; nowhere where none is said.
    pub keep: Option<PathBuf>,
    /// The folders of the control groups that Postgres runs in.
    pub cgroups: Vec<PathBuf>,
    /// The user's settings for `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

/// What a compute says once Postgres accepts connections.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where Postgres listens.
    pub address: SocketAddr,
    /// The folder of Postgres' Unix socket.
    pub socket_folder: PathBuf,
    /// The postmaster's process.
    pub postmaster: u32,
    /// The term that this compute won; none of one that is read-only.
    pub term: Option<Term>,
    /// The LSN that Postgres started from.
    pub start_lsn: Lsn,
    /// How long each stage of the start took, in order.
    pub stages: Vec<(&'static str, Duration)>,
}

/// How a compute that had started came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It was asked to stop: all WAL is committed, nothing is mounted.
    Stopped,
    /// A newer compute took the timeline over: Postgres was stopped at once.
    Fenced(String),
    /// It cannot go on reading: its moment or its WAL is outside of the history that is kept, or the
    /// compute that it follows has outgrown it.
    Gone(String),
    /// Postgres ended by itself; its exit status and the end of its log.
    Postgres(String),
}

impl Exit {
    /// The process' exit code: 0 stopped, 3 fenced, 1 otherwise.
    pub fn code(&self) -> u8 {
        match self {
            Exit::Stopped => 0,
            Exit::Fenced(_) => 3,
            Exit::Gone(_) | Exit::Postgres(_) => 1,
        }
    }
}

/// Starts a compute, calls `ready` once Postgres accepts connections, and returns when Postgres
/// has ended and nothing is mounted any more.
///
/// Where Postgres crashes, the compute begins anew, from the base backup on and at the same address.
/// Postgres could recover in place, but from files that a backend may have left half written when it
/// was killed: a write of 8 KiB ends between two pages of the kernel, and `full_page_writes` is off.
pub async fn run(
    config: ComputeConfig,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<Exit, ShimError> {
    let mut stages = Stages::begin();
    let mut ready = Some(ready);
    let machine = Machine::check(config.pg_bin.as_deref(), config.user.as_deref(), config.listen)?;
    let mut folder = prepare_folder(&config, &machine).await?;
    stages.end("folder");
    loop {
        let outcome = serve(&config, &machine, &folder, &mut stages, &shutdown, &mut ready).await;
        // What went its orderly way left nothing; what did not is ended here.
        let swept = tokio::task::spawn_blocking(move || folder.sweep()).await;
        let life = outcome?;
        swept.map_err(|error| ShimError::io("unmounting")(error.into()))??;
        // A standby begins at a newer checkpoint the next time that somebody wants it.
        let follows = matches!(config.serves, Serves::Standby { .. });
        let again =
            life.crashed && life.lived >= CRASH_TIME_MIN && !follows && !shutdown.is_cancelled();
        match life.exit {
            Exit::Postgres(why) if again => {
                tracing::error!(timeline = %config.timeline, why, "Postgres crashed: starting anew");
                stages = Stages::begin();
                folder = prepare_folder(&config, &machine).await?;
                stages.end("folder");
            }
            exit => return Ok(exit),
        }
    }
}

/// One life of a compute's Postgres.
struct Life {
    exit: Exit,
    /// Postgres ended by itself, and not because somebody asked it to.
    crashed: bool,
    /// From when it accepted connections.
    lived: Duration,
}

/// Takes the folder and empties it, off the runtime's threads: what an earlier run left may take
/// seconds to end.
async fn prepare_folder(config: &ComputeConfig, machine: &Machine) -> Result<Folder, ShimError> {
    let (path, machine) = (config.folder.clone(), machine.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let folder = Folder::take(&path)?;
        folder.check(&machine.user, machine.owner)?;
        folder.empty(machine.owner)?;
        Ok(folder)
    });
    prepared.await.map_err(|error| ShimError::io("preparing the folder")(error.into()))?
}

async fn serve(
    config: &ComputeConfig,
    machine: &Machine,
    folder: &Folder,
    stages: &mut Stages,
    shutdown: &CancellationToken,
    ready: &mut Option<impl FnOnce(Ready)>,
) -> Result<Life, ShimError> {
    let started = async {
        match config.serves {
            Serves::Head => start::start(config, machine, folder, stages).await,
            Serves::Moment(at) => moment::start(config, at, machine, folder, stages).await,
            Serves::Standby { checkpoint } => {
                standby::start(config, checkpoint, machine, folder, stages).await
            }
        }
    };
    let running = tokio::select! {
        running = started => running?,
        () = shutdown.cancelled() => return Err(ShimError::Stopped),
    };
    tracing::info!(
        timeline = %config.timeline, address = %machine.listen, term = ?running.term,
        lsn = %running.start_lsn, "compute ready"
    );
    if let Some(ready) = ready.take() {
        ready(Ready {
            address: machine.listen,
            socket_folder: folder.sockets(),
            postmaster: running.postmaster.process(),
            term: running.term,
            start_lsn: running.start_lsn,
            stages: stages.ended.clone(),
        });
    }
    let begun = Instant::now();
    let exit = watch(config, folder, &running, shutdown).await;
    let (crashed, lived) = (running.postmaster.crashed(), begun.elapsed());
    tracing::info!(timeline = %config.timeline, ?exit, "compute ending");
    match &exit {
        Exit::Stopped => running.stop(Stop::Fast).await?,
        Exit::Fenced(_) | Exit::Gone(_) | Exit::Postgres(_) => {
            running.stop(Stop::Immediate).await?
        }
    }
    Ok(Life { exit, crashed, lived })
}

/// Waits for the first thing that ends a compute.
async fn watch(
    config: &ComputeConfig,
    folder: &Folder,
    running: &Running,
    shutdown: &CancellationToken,
) -> Exit {
    let gone = async {
        match (config.serves, &running.following) {
            (Serves::Moment(at), _) => {
                let at = || ReadAt { request_lsn: at, not_modified_since: at };
                moment::keep(&running.pages, at).await.to_string()
            }
            (_, Some(following)) => following.ended(&running.pages, config, &folder.data()).await,
            (_, None) => std::future::pending().await,
        }
    };
    let fenced = async {
        let superseded = async {
            match &running.proposer {
                Some(proposer) => proposer.fenced().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            fenced = superseded => fenced.to_string(),
            why = running.pages.fenced() => why.to_string(),
        }
    };
    tokio::pin!(fenced);
    tokio::select! {
        why = &mut fenced => Exit::Fenced(why),
        why = gone => Exit::Gone(why),
        status = running.postmaster.ended() => match timeout(FENCE_TIME_MAX, fenced).await {
            // The fence's EIO ends Postgres by itself.
            Ok(why) => Exit::Fenced(why),
            Err(_) => {
                let what = format!("Postgres ended with {status}");
                Exit::Postgres(running.postmaster.failure(what).to_string())
            }
        },
        () = shutdown.cancelled() => Exit::Stopped,
    }
}

/// How long each stage of a start took.
struct Stages {
    begun: Instant,
    ended: Vec<(&'static str, Duration)>,
}

impl Stages {
    fn begin() -> Stages {
        Stages { begun: Instant::now(), ended: Vec::new() }
    }

    /// Ends a stage; the next begins.
    fn end(&mut self, name: &'static str) {
        self.ended.push((name, self.begun.elapsed()));
        self.begun = Instant::now();
    }
}
