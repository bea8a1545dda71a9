#![doc = include_str!("../../docs/formats/base-backup.md")]

mod files;
mod slru;

use bytes::Bytes;
use protocol::{
    BranchPoint,
    page_service::{BackupHead, ForkSize},
};
use wal_format::{ControlFile, Lsn, Version};

pub(crate) use files::BackupFile;

use crate::{
    control::Control,
    error::Error,
    ingest::fork_blocks,
    key::{Key, KeyKind},
    timeline::Timeline,
};

/// All that a compute needs to start at one record's end, but for the pages of relations.
pub(crate) struct BaseBackup {
    /// What is said before the files.
    pub head: BackupHead,
    version: Version,
}

impl BaseBackup {
    /// The base backup at `lsn`, which ingest has reached and at which a record ends.
    pub async fn at(timeline: &Timeline, lsn: Lsn) -> Result<BaseBackup, Error> {
        let point = timeline.round_down(lsn).await?;
        if point.lsn != lsn {
            return Err(Error::Invalid(format!(
                "{lsn} is not the end of a record; the last one before it ends at {}",
                point.lsn
            )));
        }
        let origin = timeline.origin();
        let version = Version::from_major(origin.major)
            .ok_or_else(|| Error::Invalid(format!("Postgres {} is not served", origin.major)))?;
        let control = Control::read(timeline, lsn)
            .await?
            .ok_or_else(|| unreadable(timeline, Key::CONTROL, "the counters of pg_control"))?;
        let template = get(timeline, Key::CONTROL_FILE, lsn).await?;
        let template = ControlFile::decode(&template)
            .map_err(|error| unreadable(timeline, Key::CONTROL_FILE, error.to_string()))?;
        // Whoever starts Postgres sets the position and the time.
        let control_file = control.state.control_file(&template, lsn, template.time).encode();
        let head = BackupHead {
            lsn,
            last_record: point.last_record,
            ends_in_shutdown_checkpoint: ends_in_shutdown_checkpoint(timeline, point, &control),
            control_file,
            tablespaces: tablespaces(timeline, lsn).await?,
            databases: databases(timeline, lsn).await?,
            forks: forks(timeline, lsn).await?,
        };
        Ok(BaseBackup { head, version })
    }
}

/// A start may use a shutdown checkpoint again only where the timeline's own WAL holds it: the
/// safekeepers of a branch do not have what was written before its branch point.
fn ends_in_shutdown_checkpoint(timeline: &Timeline, point: BranchPoint, control: &Control) -> bool {
    control.shutdown_checkpoint_end == point.lsn && point.last_record >= timeline.origin().point.lsn
}

/// All forks with their sizes.
pub(crate) async fn forks(timeline: &Timeline, lsn: Lsn) -> Result<Vec<ForkSize>, Error> {
    let sizes = timeline.scan(KeyKind::ForkSize.all(), lsn).await?;
    let fork_size = |(key, value): &(Key, Bytes)| {
        Some(ForkSize { fork: key.fork()?, blocks: fork_blocks(value)? })
    };
    let decode = |entry| fork_size(entry).ok_or_else(|| unreadable(timeline, entry.0, "a number"));
    sizes.iter().map(decode).collect()
}

async fn tablespaces(timeline: &Timeline, lsn: Lsn) -> Result<Vec<(u32, String)>, Error> {
    let tablespaces = timeline.scan(KeyKind::Tablespace.all(), lsn).await?;
    let decode = |(key, value): (Key, Bytes)| match String::from_utf8(value.to_vec()) {
        Ok(location) => Ok((key.tablespace_oid(), location)),
        Err(_) => Err(unreadable(timeline, key, "a folder's name")),
    };
    tablespaces.into_iter().map(decode).collect()
}

async fn databases(timeline: &Timeline, lsn: Lsn) -> Result<Vec<(u32, u32)>, Error> {
    let databases = timeline.scan(KeyKind::Database.all(), lsn).await?;
    Ok(databases.iter().map(|(key, _)| (key.tablespace_oid(), key.database_oid())).collect())
}

/// A value that every timeline has from its beginning.
async fn get(timeline: &Timeline, key: Key, lsn: Lsn) -> Result<Bytes, Error> {
    let value = timeline.get(key, lsn).await?;
    value.ok_or_else(|| Error::Missing { object: format!("{key} of {}", timeline.id()) })
}

fn unreadable(timeline: &Timeline, key: Key, expected: impl Into<String>) -> Error {
    Error::Corrupt {
        object: format!("{key} of {}", timeline.id()),
        offset: 0,
        expected: expected.into(),
        found: "another value".to_owned(),
    }
}
