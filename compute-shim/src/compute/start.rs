//! A compute's start, in the order that DESIGN's fifth loss demands, and its orderly end.
//!
//! Elect; have a quorum commit all up to X; base backup at X; a shutdown checkpoint at X; mount;
//! start Postgres, which finds a cluster that was stopped cleanly.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use protocol::{Term, TimelineOrigin, page_service::BackupHead};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use wal_format::{ControlFile, ControlState, Lsn, Version, synthesise_shutdown_checkpoint};

use super::{ComputeConfig, Stages};
use crate::{
    ShimError, StartWal, WalConfig, WalMount, WalProposer,
    base_backup::{self, BaseBackup},
    folder::Folder,
    fuse::{self, FuseMount, RelationFiles},
    mounts,
    overlay::Backing,
    page_client::{PageClient, RemotePages},
    postgres::{self, MAJOR, Machine, Postmaster, Stop},
};

/// How long the pageserver is waited for when a compute starts.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a quorum of safekeepers is waited for when a compute starts.
const QUORUM_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a base backup is tried for: ingest may have to reach its LSN first.
const BACKUP_TIME_MAX: Duration = Duration::from_secs(60);
const BACKUP_PAUSE: Duration = Duration::from_millis(100);
/// After a clean stop of Postgres, how long its last WAL may take to a quorum.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);
/// The folders of the data directory that are the mount's.
const BOUND_FOLDERS: [&str; 3] = ["base", "global", "pg_tblspc"];

/// A compute whose Postgres accepts connections.
pub(super) struct Running {
    pub(super) term: Term,
    pub(super) start_lsn: Lsn,
    pub(super) proposer: WalProposer,
    pub(super) pages: PageClient,
    pub(super) postmaster: Postmaster,
    mounted: Mounted,
}

/// What is mounted, and where it is bound to.
struct Mounted {
    binds: Vec<std::path::PathBuf>,
    relations: FuseMount,
    wal: WalMount,
}

/// Brings a compute up in an empty folder.
pub(super) async fn start(
    config: &ComputeConfig,
    machine: &Machine,
    folder: &Folder,
    stages: &mut Stages,
) -> Result<Running, ShimError> {
    let connect = |term| {
        let route = config.pageservers.clone();
        PageClient::connect(route, config.timeline, term, CONNECT_TIME_MAX)
    };
    let (_, welcome) = connect(None).await?;
    let origin = welcome.origin;
    let version = check_version(&origin)?;
    stages.end("connect");

    let election = WalProposer::elect(WalConfig {
        timeline: config.timeline,
        origin,
        safekeepers: config.safekeepers.clone(),
        wal_folder: folder.wal(),
    });
    let (proposer, elected) = within_quorum_time(config, election).await?;
    stages.end("elect");

    let (pages, _) = connect(Some(elected.term)).await?;
    let (backup, files) =
        receive_backup(&pages, &proposer, elected.position, machine, folder).await?;
    stages.end("base backup");

    let (wal, control) = checkpoint(version, &origin, &backup.head, &proposer).await?;
    files.append_local_file("global/pg_control", &control.encode())?;
    within_quorum_time(config, proposer.start_at(wal)).await?;
    stages.end("checkpoint");

    write_configuration(config, machine, folder)?;
    let mounted = mount(files, &proposer, machine, folder)?;
    stages.end("mount");

    let arguments = postgres::command_line(
        &folder.data(),
        &folder.sockets(),
        machine.listen,
        backup.prepared,
        &config.settings,
    );
    let mut postmaster = Postmaster::start(
        &machine.postgres,
        &arguments,
        &postgres::environment(&folder.sockets(), machine.listen),
        machine.owner,
        &folder.data(),
        &folder.log(),
    )
    .await?;
    postmaster.ready().await?;
    stages.end("postgres");
    Ok(Running {
        term: elected.term,
        start_lsn: elected.position,
        proposer,
        pages,
        postmaster,
        mounted,
    })
}

impl Running {
    /// Stops Postgres, waits until its WAL is committed, unmounts.
    pub(super) async fn stop(self, how: Stop) -> Result<(), ShimError> {
        let clean = how == Stop::Fast && self.postmaster.stop(Stop::Fast).await;
        if clean {
            commit_everything(&self.proposer).await;
        }
        // What waits for a quorum ends with an error now: Postgres could not end while it waits.
        self.proposer.shutdown().await;
        if !clean {
            self.postmaster.stop(Stop::Immediate).await;
        }
        let mounted = self.mounted;
        tokio::task::spawn_blocking(move || mounted.unmount())
            .await
            .map_err(|error| ShimError::io("unmounting")(error.into()))?
    }
}

impl Mounted {
    fn unmount(self) -> Result<(), ShimError> {
        for bind in &self.binds {
            mounts::unmount(bind)?;
        }
        self.wal.unmount()?;
        self.relations.unmount()
    }
}

fn check_version(origin: &TimelineOrigin) -> Result<Version, ShimError> {
    Version::from_major(origin.major).filter(|_| origin.major == MAJOR).ok_or_else(|| {
        ShimError::Precondition {
            what: format!("the timeline is of Postgres {}, not {MAJOR}", origin.major),
            mend: format!("branch it from a template of Postgres {MAJOR}"),
        }
    })
}

/// A quorum is waited for, but not for ever.
async fn within_quorum_time<T>(
    config: &ComputeConfig,
    waiting: impl Future<Output = Result<T, ShimError>>,
) -> Result<T, ShimError> {
    timeout(QUORUM_TIME_MAX, waiting).await.unwrap_or_else(|_| {
        let safekeepers = config.safekeepers.len();
        Err(ShimError::Unavailable(format!(
            "no quorum of the {safekeepers} safekeepers answered for {QUORUM_TIME_MAX:?}"
        )))
    })
}

async fn receive_backup(
    pages: &PageClient,
    proposer: &WalProposer,
    lsn: Lsn,
    machine: &Machine,
    folder: &Folder,
) -> Result<(BaseBackup, RelationFiles), ShimError> {
    let begun = Instant::now();
    loop {
        let commit = {
            let proposer = proposer.clone();
            Box::new(move || proposer.commit_lsn())
        };
        let source = Arc::new(RemotePages { client: pages.clone(), base: lsn, commit });
        let backing = Arc::new(Backing::new(folder.overlay()));
        let files = RelationFiles::new(backing, source, machine.owner, Handle::current());
        let data = folder.data();
        match base_backup::receive(pages, lsn, &data, &files, machine.owner).await {
            Ok(backup) => return Ok((backup, files)),
            Err(ShimError::Unavailable(reason)) if begun.elapsed() < BACKUP_TIME_MAX => {
                tracing::debug!(%lsn, reason, "base backup is tried again");
            }
            Err(error) => return Err(error),
        }
        sleep(BACKUP_PAUSE).await;
        drop(files);
        folder.empty(machine.owner)?;
    }
}

/// The WAL that Postgres starts from, and the `pg_control` that points at it. A shutdown checkpoint
/// that ends the WAL already is used again, so that failed starts add no WAL.
async fn checkpoint(
    version: Version,
    origin: &TimelineOrigin,
    head: &BackupHead,
    proposer: &WalProposer,
) -> Result<(StartWal, ControlFile), ShimError> {
    let base = ControlFile::decode(&head.control_file)
        .map_err(|error| ShimError::Corrupt(format!("the base backup's pg_control: {error}")))?;
    let state = ControlState::from_control_file(&base);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let last_record = head.last_record;
    if head.ends_in_shutdown_checkpoint {
        let bytes = proposer.read_committed(last_record, head.lsn).await?;
        let wal = StartWal { begin: last_record, bytes, last_record };
        return Ok((wal, state.control_file(&base, last_record, now)));
    }
    let made = synthesise_shutdown_checkpoint(
        version,
        head.lsn,
        last_record,
        &state,
        origin.system_id,
        origin.segment_bytes,
        now,
    );
    let wal = StartWal { begin: made.begin, bytes: Bytes::from(made.bytes), last_record };
    Ok((wal, state.control_file(&base, made.redo, now)))
}

fn write_configuration(
    config: &ComputeConfig,
    machine: &Machine,
    folder: &Folder,
) -> Result<(), ShimError> {
    let settings = postgres::configuration_file(&config.settings)?;
    folder.write("postgresql.conf", settings.as_bytes(), machine.owner)?;
    folder.write("pg_hba.conf", postgres::HBA.as_bytes(), machine.owner)?;
    // What ALTER SYSTEM would write here ends with the compute.
    for empty in ["pg_ident.conf", "postgresql.auto.conf"] {
        folder.write(empty, b"", machine.owner)?;
    }
    Ok(())
}

fn mount(
    files: RelationFiles,
    proposer: &WalProposer,
    machine: &Machine,
    folder: &Folder,
) -> Result<Mounted, ShimError> {
    let relations = fuse::mount(files, &folder.mountpoint())?;
    let mut binds = Vec::new();
    for name in BOUND_FOLDERS {
        let target = folder.data().join(name);
        mounts::bind(&folder.mountpoint().join(name), &target)?;
        binds.push(target);
    }
    let owner = machine.owner;
    let wal = proposer.mount(&folder.data().join("pg_wal"), owner.uid, owner.gid)?;
    Ok(Mounted { binds, relations, wal })
}

/// Waits for the last WAL, which no fdatasync waited for.
async fn commit_everything(proposer: &WalProposer) {
    let begun = Instant::now();
    while proposer.commit_lsn() < proposer.written_lsn() {
        if begun.elapsed() > COMMIT_TIME_MAX {
            let (commit, written) = (proposer.commit_lsn(), proposer.written_lsn());
            tracing::warn!(%commit, %written, "the last WAL is not committed: no quorum has it");
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}
