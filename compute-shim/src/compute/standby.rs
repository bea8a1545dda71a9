//! A compute that follows another one of its timeline: a hot standby, fed from the safekeepers.
//!
//! It stands for no election and writes no WAL. It begins at the end of a real checkpoint: pages are
//! as they were there, WAL is replayed from that checkpoint's redo on, and readers are let in once
//! the checkpoint itself is replayed. From then on the rule of any compute holds: a page that is not
//! in the overlay has not changed since, as far as this Postgres has replayed. A made checkpoint does
//! not do, unless it is in the WAL: the primary's next record would stand in its place.

use std::{path::Path, time::Duration};

use protocol::page_service::ReadAt;
use tokio::time::{sleep, timeout};
use wal_format::{
    CheckPoint, ClusterState, ControlFile, Lsn, RecoveryBounds, WalSettings, rmgr::xlog::kind, rmid,
};

use super::{
    ComputeConfig, Stages,
    moment::{self, TABLESPACES_ARE_FOLDERS, least_settings},
    start::{
        Mounted, Running, check_version, connect, control_file, receive_to_read, start_postgres,
        write_configuration,
    },
};
use crate::{
    ShimError,
    folder::Folder,
    head::settled_head,
    page_client::PageClient,
    postgres::{self, Machine},
    wal_feed::{FeedConfig, Replayed, WalFeed, record_at},
};

/// How long the end of the timeline's WAL, and then its last record, are waited for.
const WAL_TIME_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether the primary has come to have more room than this standby.
const ROOM_LOOK_EVERY: Duration = Duration::from_secs(1);

/// A standby's own settings, beside where its WAL comes from. It says each second how far it is, by
/// which its lease rises. What it writes to its disk goes with it, so nothing need be durable there.
const STANDBY: [(&str, &str); 6] = [
    ("fsync", "off"),
    ("recovery_target_timeline", "current"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("primary_slot_name", ""),
    TABLESPACES_ARE_FOLDERS,
];

/// What a running standby follows.
pub(super) struct Following {
    feed: WalFeed,
    /// The end of the checkpoint that it began at.
    base: Lsn,
    replayed: Replayed,
    /// What the primary had room for when this Postgres was started.
    settings: WalSettings,
}

/// A checkpoint, as its record says it.
struct Begin {
    start: Lsn,
    end: Lsn,
    checkpoint: CheckPoint,
}

/// Brings a compute up in an empty folder, from the checkpoint whose record begins there; where none is
/// said, from the shutdown checkpoint that ends the timeline's WAL.
pub(super) async fn start(
    config: &ComputeConfig,
    checkpoint: Option<Lsn>,
    machine: &Machine,
    folder: &Folder,
    stages: &mut Stages,
) -> Result<Running, ShimError> {
    let (pages, welcome) = connect(config, None).await?;
    let wal = FeedConfig {
        timeline: config.timeline,
        origin: welcome.origin,
        version: check_version(&welcome.origin)?,
        safekeepers: config.safekeepers.clone(),
        bearer: config.bearer.clone(),
    };
    stages.end("connect");

    let said = match checkpoint {
        Some(start) => Some(begin_at(&wal, start).await?),
        None => None,
    };
    let base = match &said {
        Some(begin) => begin.end,
        None => {
            let members = (&wal.safekeepers[..], &wal.bearer);
            settled_head(wal.timeline, wal.origin, members, WAL_TIME_MAX).await?.lsn
        }
    };
    stages.end("checkpoint");

    let replayed = Replayed::from(base);
    let reach = {
        let replayed = replayed.clone();
        move || replayed.lsn()
    };
    let (backup, files) = receive_to_read(&pages, reach, base, machine, folder).await?;
    let begin = match said {
        Some(begin) => begin,
        None if backup.head.ends_in_shutdown_checkpoint => {
            begin_at(&wal, backup.head.last_record).await?
        }
        None => return Err(no_checkpoint(base)),
    };
    let control = follower(control_file(&backup.head)?, &begin);
    files.append_local_file("global/pg_control", &control.encode())?;
    folder.write("standby.signal", b"", machine.owner)?;
    stages.end("base backup");

    write_configuration(config, machine, folder)?;
    let feed = WalFeed::listen(&folder.sockets(), machine.owner, wal, replayed.clone())?;
    let mounted = Mounted::relations(files, folder)?;
    stages.end("mount");

    let least = least_settings(&control.settings);
    let connection = feed.connection();
    let more: Vec<_> =
        STANDBY.into_iter().chain([("primary_conninfo", connection.as_str())]).collect();
    let postmaster = start_postgres(config, machine, folder, &least, &more).await?;
    stages.end("postgres");
    Ok(Running {
        term: None,
        start_lsn: base,
        proposer: None,
        pages,
        postmaster,
        mounted,
        kept: None,
        following: Some(Following { feed, base, replayed, settings: control.settings }),
    })
}

impl Following {
    /// Holds what this standby may want to read, by reading now and then. Resolves, with the reason,
    /// when it cannot go on: its pages or its WAL are given up, or its primary has outgrown it.
    pub(super) async fn ended(
        &self,
        pages: &PageClient,
        config: &ComputeConfig,
        data: &Path,
    ) -> String {
        let at = || ReadAt { request_lsn: self.replayed.lsn(), not_modified_since: self.base };
        let lost = async { moment::keep(pages, at).await.to_string() };
        tokio::select! {
            why = lost => why,
            why = self.feed.gone() => why,
            why = self.outgrown(config, data) => why,
        }
    }

    /// A standby stops replaying where its primary has come to have room for more than it has itself
    /// (`CheckRequiredParameterValues`, xlogrecovery.c); Postgres notes in `pg_control` what the
    /// primary has.
    async fn outgrown(&self, config: &ComputeConfig, data: &Path) -> String {
        let file = data.join("global/pg_control");
        loop {
            sleep(ROOM_LOOK_EVERY).await;
            // What cannot be read now, because it is just being written, can be the next time.
            let read = std::fs::read(&file).ok().and_then(|read| ControlFile::decode(&read).ok());
            let Some(control) = read else { continue };
            let taken = least_settings(&self.settings);
            for ((name, wanted), (_, least)) in least_settings(&control.settings).iter().zip(taken)
            {
                let has = postgres::taken(name, &config.settings).max(least);
                if *wanted > has {
                    return format!(
                        "the timeline's compute has {name} = {wanted} now, and this standby only \
                         {has}: it takes as much at its next start"
                    );
                }
            }
        }
    }
}

/// The checkpoint whose record begins there.
async fn begin_at(wal: &FeedConfig, start: Lsn) -> Result<Begin, ShimError> {
    let found = timeout(WAL_TIME_MAX, record_at(wal, start)).await;
    let record = found.map_err(|_| {
        ShimError::Unavailable(format!("no safekeeper gave the record at {start} in time"))
    })??;
    let corrupt = |error: &dyn std::fmt::Display| {
        ShimError::Corrupt(format!("the record at {start}: {error}"))
    };
    let decoded = record.decode(wal.version).map_err(|error| corrupt(&error))?;
    let is_checkpoint = decoded.rmid == rmid::XLOG
        && [kind::CHECKPOINT_SHUTDOWN, kind::CHECKPOINT_ONLINE].contains(&decoded.kind());
    let checkpoint = CheckPoint::decode(decoded.main).filter(|_| is_checkpoint);
    let checkpoint = checkpoint.ok_or_else(|| corrupt(&"it is no checkpoint"))?;
    Ok(Begin { start, end: record.end, checkpoint })
}

/// The control file of a backup that was taken where the checkpoint ends: Postgres lets nobody in
/// before it has replayed as far.
fn follower(base: ControlFile, begin: &Begin) -> ControlFile {
    ControlFile {
        state: ClusterState::ArchiveRecovery,
        time: begin.checkpoint.time,
        checkpoint: begin.start,
        checkpoint_copy: begin.checkpoint,
        recovery: RecoveryBounds {
            min_recovery_point: begin.end,
            min_recovery_timeline: begin.checkpoint.timeline_id,
            ..RecoveryBounds::default()
        },
        ..base
    }
}

fn no_checkpoint(end: Lsn) -> ShimError {
    ShimError::NoCheckpoint(format!(
        "the timeline's WAL, which ends at {end}, does not end in a checkpoint that a standby could \
         begin at: start the timeline's own compute, or name a checkpoint of it"
    ))
}
