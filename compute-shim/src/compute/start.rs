//! A compute's start, in the order that DESIGN's fifth loss demands, and its orderly end.
//!
//! Elect; have a quorum commit all up to X; base backup at X; a shutdown checkpoint at X; mount;
//! start Postgres, which finds a cluster that was stopped cleanly.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use protocol::{
    Term, TimelineOrigin,
    page_service::{BackupHead, Welcome},
};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use wal_format::{ControlFile, ControlState, Lsn, Version, synthesise_shutdown_checkpoint};

use super::{ComputeConfig, Stages, kept::Kept, standby::Following};
use crate::{
    Elected, ShimError, StartWal, WalConfig, WalMount, WalProposer,
    base_backup::{self, BaseBackup},
    early_pages::{EarlyPages, ListFiles, StartList},
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
    /// None of one that writes nothing.
    pub(super) term: Option<Term>,
    pub(super) start_lsn: Lsn,
    /// None of one that writes nothing.
    pub(super) proposer: Option<WalProposer>,
    pub(super) pages: PageClient,
    pub(super) postmaster: Postmaster,
    pub(super) mounted: Mounted,
    /// What outlives it.
    pub(super) kept: Option<Kept>,
    /// What it follows, where that is another compute.
    pub(super) following: Option<Following>,
}

/// What is mounted, and where it is bound to.
pub(super) struct Mounted {
    binds: Vec<PathBuf>,
    relations: FuseMount,
    wal: Option<WalMount>,
}

/// Brings a compute up in an empty folder.
pub(super) async fn start(
    config: &ComputeConfig,
    machine: &Machine,
    folder: &Folder,
    stages: &mut Stages,
) -> Result<Running, ShimError> {
    let (_, welcome) = connect(config, None).await?;
    let origin = welcome.origin;
    let version = check_version(&origin)?;
    stages.end("connect");

    let election = WalProposer::elect(WalConfig {
        timeline: config.timeline,
        origin,
        safekeepers: config.safekeepers.clone(),
        bearer: config.bearer.clone(),
        wal_folder: folder.wal(),
    });
    let (proposer, elected) = within_quorum_time(config, election).await?;
    stages.end("elect");

    let (pages, _) = connect(config, Some(elected.term)).await?;
    let commit = {
        let proposer = proposer.clone();
        move || proposer.commit_lsn()
    };
    let lists = config.keep.as_deref().map(ListFiles::of);
    let list = lists.as_ref().map(ListFiles::read).unwrap_or_default();
    let at = elected.position;
    let (backup, files, early) =
        receive_backup(&pages, commit, at, (machine, folder), &list).await?;
    stages.end("base backup");

    let (wal, control) = checkpoint(version, &origin, &backup.head, &proposer).await?;
    within_quorum_time(config, proposer.start_at(wal)).await?;
    stages.end("checkpoint");

    let mut kept = take_kept(config, &proposer, elected, machine, folder).await?;
    let unlogged_lsn = match &mut kept {
        Some(kept) => kept.take_relations(&files, folder.mountpoint())?,
        None => None,
    };
    let unlogged_lsn = unlogged_lsn.unwrap_or(control.unlogged_lsn);
    let control = ControlFile { unlogged_lsn, ..control };
    files.append_local_file("global/pg_control", &control.encode())?;
    stages.end("kept state");

    write_configuration(config, machine, folder)?;
    let mut mounted = Mounted::relations(files, folder)?;
    let owner = machine.owner;
    mounted.wal = Some(proposer.mount(&folder.data().join("pg_wal"), owner.uid, owner.gid)?);
    stages.end("mount");

    let least = [("max_prepared_transactions", backup.prepared)];
    let postmaster = start_postgres(config, machine, folder, &least, &[]).await?;
    stages.end("postgres");
    match lists {
        Some(lists) => drop(tokio::spawn(early.keep(lists))),
        None => drop(early.end()),
    }
    Ok(Running {
        term: Some(elected.term),
        start_lsn: elected.position,
        proposer: Some(proposer),
        pages,
        postmaster,
        mounted,
        kept,
        following: None,
    })
}

/// Starts Postgres in the folder that was laid out, and waits until it accepts connections. `least`
/// and `more` are as in [`postgres::command_line`].
pub(super) async fn start_postgres(
    config: &ComputeConfig,
    machine: &Machine,
    folder: &Folder,
    least: &[(&str, u32)],
    more: &[(&str, &str)],
) -> Result<Postmaster, ShimError> {
    let arguments = postgres::command_line(
        &folder.data(),
        &folder.sockets(),
        machine.listen,
        least,
        more,
        &config.settings,
    );
    let module = postgres::handover::put(folder.root());
    let mut postmaster = Postmaster::start(
        &machine.postgres,
        &arguments,
        &postgres::environment(&folder.sockets(), machine.listen, module.as_deref()),
        machine.owner,
        &config.cgroups,
        &folder.data(),
        &folder.log(),
    )
    .await?;
    postmaster.ready().await?;
    Ok(postmaster)
}

impl Running {
    /// Stops Postgres, waits until its WAL is committed, unmounts.
    pub(super) async fn stop(self, how: Stop) -> Result<(), ShimError> {
        let clean = how == Stop::Fast && self.postmaster.stop(Stop::Fast).await;
        if let Some(proposer) = &self.proposer {
            if clean && commit_everything(proposer).await {
                keep(self.kept, proposer.commit_lsn()).await;
            }
            // What waits for a quorum ends with an error now: Postgres could not end while it waits.
            proposer.shutdown().await;
        }
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
    /// Mounts the relation files and binds them into the data directory.
    pub(super) fn relations(files: RelationFiles, folder: &Folder) -> Result<Mounted, ShimError> {
        let relations = fuse::mount(files, &folder.mountpoint())?;
        let mut binds = Vec::new();
        for name in BOUND_FOLDERS {
            let target = folder.data().join(name);
            mounts::bind(&folder.mountpoint().join(name), &target)?;
            binds.push(target);
        }
        Ok(Mounted { binds, relations, wal: None })
    }

    fn unmount(self) -> Result<(), ShimError> {
        for bind in &self.binds {
            mounts::unmount(bind)?;
        }
        self.wal.map_or(Ok(()), WalMount::unmount)?;
        self.relations.unmount()
    }
}

/// Connects to the pageserver: as the compute of a term, or to read.
pub(super) async fn connect(
    config: &ComputeConfig,
    term: Option<Term>,
) -> Result<(PageClient, Welcome), ShimError> {
    let route = config.pageservers.clone();
    PageClient::connect(route, (config.timeline, term), &config.bearer, CONNECT_TIME_MAX).await
}

pub(super) fn check_version(origin: &TimelineOrigin) -> Result<Version, ShimError> {
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

/// [`receive_backup`] of a compute that writes nothing, and keeps no list of what its start read.
pub(super) async fn receive_to_read(
    pages: &PageClient,
    reach: impl Fn() -> Lsn + Clone + Send + Sync + 'static,
    lsn: Lsn,
    machine: &Machine,
    folder: &Folder,
) -> Result<(BaseBackup, RelationFiles), ShimError> {
    let none = StartList::default();
    let (backup, files, early) =
        receive_backup(pages, reach, lsn, (machine, folder), &none).await?;
    early.end();
    Ok((backup, files))
}

/// Receives the base backup at `lsn`, and asks for the list's pages. Pages are read as of then or
/// later, up to what `commit` says.
async fn receive_backup(
    pages: &PageClient,
    commit: impl Fn() -> Lsn + Clone + Send + Sync + 'static,
    lsn: Lsn,
    (machine, folder): (&Machine, &Folder),
    list: &StartList,
) -> Result<(BaseBackup, RelationFiles, Arc<EarlyPages>), ShimError> {
    let begun = Instant::now();
    loop {
        let commit = Box::new(commit.clone());
        let remote = RemotePages { client: pages.clone(), base: lsn, commit };
        let early = Arc::new(EarlyPages::new(remote));
        let backing = Arc::new(Backing::new(folder.overlay()));
        let files = RelationFiles::new(backing, early.clone(), machine.owner, Handle::current());
        let data = folder.data();
        let ask = |head: &BackupHead| early.ask(list, &head.forks);
        match base_backup::receive(pages, lsn, &data, &files, machine.owner, ask).await {
            Ok(backup) => return Ok((backup, files, early)),
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

/// Lays out what outlived the computes before, and the WAL that its slots want.
async fn take_kept(
    config: &ComputeConfig,
    proposer: &WalProposer,
    elected: Elected,
    machine: &Machine,
    folder: &Folder,
) -> Result<Option<Kept>, ShimError> {
    let Some(keep) = &config.keep else { return Ok(None) };
    let found = (elected.term, elected.position, proposer.wrote_last());
    let kept = Kept::take(keep, &folder.data(), machine.owner, found)?;
    if let Some(from) = kept.restart_lsn()? {
        match within_quorum_time(config, proposer.put_earlier(from)).await {
            Err(ShimError::Quorum(reason)) => {
                tracing::warn!(
                    timeline = %config.timeline, %from, %reason,
                    "replication slots are dropped: their WAL is not kept any more"
                );
                kept.drop_slots()?;
            }
            put => put?,
        }
    }
    Ok(Some(kept))
}

/// Keeps what outlives the compute, after a clean stop of its Postgres; off the runtime's threads, since
/// it reads what is mounted.
async fn keep(kept: Option<Kept>, end: Lsn) {
    let Some(kept) = kept else { return };
    let put = tokio::task::spawn_blocking(move || kept.put(end)).await;
    if let Err(error) = put.unwrap_or_else(|error| Err(error.into())) {
        tracing::warn!(%error, "statistics are not kept: they begin anew");
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
    let last_record = head.last_record;
    if head.ends_in_shutdown_checkpoint {
        let base = control_file(head)?;
        let state = ControlState::from_control_file(&base);
        let now = unix_seconds();
        let bytes = proposer.read_committed(last_record, head.lsn).await?;
        let wal = StartWal { begin: last_record, bytes, last_record };
        return Ok((wal, state.control_file(&base, last_record, now)));
    }
    made_checkpoint(version, origin, head)
}

/// A shutdown checkpoint where the base backup ends, and the `pg_control` that points at it.
pub(super) fn made_checkpoint(
    version: Version,
    origin: &TimelineOrigin,
    head: &BackupHead,
) -> Result<(StartWal, ControlFile), ShimError> {
    let base = control_file(head)?;
    let state = ControlState::from_control_file(&base);
    let now = unix_seconds();
    let last_record = head.last_record;
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

pub(super) fn control_file(head: &BackupHead) -> Result<ControlFile, ShimError> {
    ControlFile::decode(&head.control_file)
        .map_err(|error| ShimError::Corrupt(format!("the base backup's pg_control: {error}")))
}

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64
}

pub(super) fn write_configuration(
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

/// Waits for the last WAL, which no fdatasync waited for; whether a quorum has it.
async fn commit_everything(proposer: &WalProposer) -> bool {
    let begun = Instant::now();
    while proposer.commit_lsn() < proposer.written_lsn() {
        if begun.elapsed() > COMMIT_TIME_MAX {
            let (commit, written) = (proposer.commit_lsn(), proposer.written_lsn());
            tracing::warn!(%commit, %written, "the last WAL is not committed: no quorum has it");
            return false;
        }
        sleep(Duration::from_millis(5)).await;
    }
    true
}
