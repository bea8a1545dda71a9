//! A read-only compute at one moment: a hot standby that is given no WAL.
//!
//! It stands for no election and asks no safekeeper. Postgres finds a cluster that was stopped
//! cleanly at the moment, and a `standby.signal`: it lets readers in at once, and waits for WAL that
//! never comes. It is recovery that refuses every write, which no role and no setting lifts; what it
//! does write (hint bits, its own control file) stays in the overlay and goes with it. A superuser
//! may promote it, and has then a copy of its own that nobody else ever sees.

use std::time::Duration;

use protocol::page_service::{PageError, ReadAt};
use tokio::time::sleep;
use wal_format::{ControlFile, Fork, GLOBAL_TABLESPACE, Lsn, Relation, WalSettings};

use super::{
    ComputeConfig, Stages,
    start::{
        Mounted, Running, check_version, connect, made_checkpoint, receive_to_read, start_postgres,
        write_configuration,
    },
};
use crate::{
    ShimError,
    folder::{Folder, give},
    page_client::PageClient,
    postgres::Machine,
    wal_source::WalFolder,
};

/// How often something is read where nobody reads: a lease lasts ten minutes (the pageserver's
/// `LEASE`), and is renewed by a read in its last seven.
const KEEP_EVERY: Duration = Duration::from_secs(240);

/// `pg_database`, which every cluster has (pg_database.h).
const PG_DATABASE: Relation = Relation { tablespace: GLOBAL_TABLESPACE, database: 0, number: 1262 };

/// Nothing comes: Postgres need not look every five seconds, nor for another history. What a standby
/// says of itself to a primary goes nowhere.
const STANDBY: [(&str, &str); 3] = [
    ("wal_retrieve_retry_interval", "1h"),
    ("recovery_target_timeline", "current"),
    TABLESPACES_ARE_FOLDERS,
];

/// Recovery refuses tablespaces that are no symbolic links (`CheckTablespaceDirectory`,
/// xlogrecovery.c). Here they are folders of the mount.
pub(super) const TABLESPACES_ARE_FOLDERS: (&str, &str) = ("allow_in_place_tablespaces", "on");

/// Brings a compute up in an empty folder, as of this record's end.
pub(super) async fn start(
    config: &ComputeConfig,
    at: Lsn,
    machine: &Machine,
    folder: &Folder,
    stages: &mut Stages,
) -> Result<Running, ShimError> {
    let (pages, welcome) = connect(config, None).await?;
    let origin = welcome.origin;
    let version = check_version(&origin)?;
    stages.end("connect");

    let (backup, files) = receive_to_read(&pages, move || at, at, machine, folder).await?;
    stages.end("base backup");

    let (wal, control) = made_checkpoint(version, &origin, &backup.head)?;
    let control = for_standby(control);
    files.append_local_file("global/pg_control", &control.encode())?;
    let pg_wal = folder.data().join("pg_wal");
    WalFolder::lay_out(&pg_wal, &origin, version, wal.begin, &wal.bytes)?;
    give(&pg_wal, machine.owner)
        .map_err(ShimError::io(format!("giving {} to Postgres", pg_wal.display())))?;
    folder.write("standby.signal", b"", machine.owner)?;
    stages.end("checkpoint");

    write_configuration(config, machine, folder)?;
    let mounted = Mounted::relations(files, folder)?;
    stages.end("mount");

    let least = least_settings(&control.settings);
    let postmaster = start_postgres(config, machine, folder, &least, &STANDBY).await?;
    stages.end("postgres");
    Ok(Running {
        term: None,
        start_lsn: at,
        proposer: None,
        pages,
        postmaster,
        mounted,
        kept: None,
        following: None,
    })
}

/// Reads now and then, so that what the compute may want to read stays: its clients may find all in
/// memory for hours. Returns when it is gone all the same.
pub(super) async fn keep(pages: &PageClient, at: impl Fn() -> ReadAt) -> PageError {
    loop {
        sleep(KEEP_EVERY).await;
        match pages.pages(at(), PG_DATABASE.fork(Fork::Main), 0, 1).await {
            Err(ShimError::Page(gone @ (PageError::Gone { .. } | PageError::NotFound(_)))) => {
                return gone;
            }
            // Whoever reads meanwhile hears of it.
            Err(error) => tracing::info!(%error, "what is served was not read"),
            Ok(_) => {}
        }
    }
}

/// The control file of a cluster that can be a standby. None of the timeline's WAL is replayed, so
/// it does not matter that it may have been written for no standby.
fn for_standby(mut control: ControlFile) -> ControlFile {
    control.settings.wal_level = control.settings.wal_level.max(WAL_LEVEL_REPLICA);
    control
}

/// `WAL_LEVEL_REPLICA` (xlog.h).
const WAL_LEVEL_REPLICA: i32 = 1;

/// What a standby must have at least, or it does not start: room for all that ran on the primary
/// (`CheckRequiredParameterValues`, xlogrecovery.c).
pub(super) fn least_settings(primary: &WalSettings) -> [(&'static str, u32); 5] {
    let least = |value: i32| u32::try_from(value).unwrap_or(0);
    [
        ("max_connections", least(primary.max_connections)),
        ("max_worker_processes", least(primary.max_worker_processes)),
        ("max_wal_senders", least(primary.max_wal_senders)),
        ("max_prepared_transactions", least(primary.max_prepared_transactions)),
        ("max_locks_per_transaction", least(primary.max_locks_per_transaction)),
    ]
}
