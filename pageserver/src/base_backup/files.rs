//! The files of a base backup.

use bytes::Bytes;
use tokio::sync::mpsc;
use wal_format::Slru;

use super::{BaseBackup, slru};
use crate::{
    data_directory::{database_folder, two_phase_file},
    error::Error,
    key::{Key, KeyKind},
    replication_origin::{self, OriginProgress},
    timeline::Timeline,
};

/// One file, whole: at most an SLRU segment's 256 KiB, but for prepared transactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BackupFile {
    /// Its path in the data directory.
    pub path: String,
    /// What is in it.
    pub contents: Bytes,
}

impl BaseBackup {
    /// Sends all files; ends early where no one takes them.
    pub async fn send_files(
        &self,
        timeline: &Timeline,
        files: &mpsc::Sender<BackupFile>,
    ) -> Result<(), Error> {
        for file in self.small_files(timeline).await? {
            if files.send(file).await.is_err() {
                return Ok(());
            }
        }
        for slru in Slru::ALL {
            // One SLRU at a time is in memory.
            let pages = timeline.scan(Key::slru_pages(slru, 0..u32::MAX), self.head.lsn).await?;
            let pages = pages.into_iter().map(|(key, page)| (key.number(), page)).collect();
            for file in slru::segment_files(slru, pages) {
                if files.send(file).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Everything but SLRUs: `PG_VERSION` files, relation maps, prepared transactions, origins.
    async fn small_files(&self, timeline: &Timeline) -> Result<Vec<BackupFile>, Error> {
        let lsn = self.head.lsn;
        let major = Bytes::from(format!("{}\n", self.version.major()));
        let version_file = |path| BackupFile { path, contents: major.clone() };
        let mut files = vec![version_file("PG_VERSION".to_owned())];
        for &(tablespace, database) in &self.head.databases {
            let folder = database_folder(self.version, tablespace, database);
            files.push(version_file(format!("{folder}/PG_VERSION")));
        }
        for (key, contents) in timeline.scan(KeyKind::RelationMap.all(), lsn).await? {
            let (tablespace, database) = (key.tablespace_oid(), key.database_oid());
            let folder = database_folder(self.version, tablespace, database);
            files.push(BackupFile { path: format!("{folder}/pg_filenode.map"), contents });
        }
        for (key, contents) in timeline.scan(KeyKind::TwoPhase.all(), lsn).await? {
            files.push(BackupFile { path: two_phase_file(key.number()), contents });
        }
        let origins = self.origins(timeline).await?;
        if !origins.is_empty() {
            let contents = replication_origin::encode_file(&origins);
            files.push(BackupFile { path: replication_origin::FILE.to_owned(), contents });
        }
        Ok(files)
    }

    async fn origins(&self, timeline: &Timeline) -> Result<Vec<(u16, OriginProgress)>, Error> {
        let origins = timeline.scan(KeyKind::ReplicationOrigin.all(), self.head.lsn).await?;
        let decode = |(key, value): (Key, Bytes)| {
            let origin = u16::try_from(key.number()).ok();
            let decoded = origin.zip(OriginProgress::decode(&value));
            decoded.ok_or_else(|| super::unreadable(timeline, key, "an origin's progress"))
        };
        origins.into_iter().map(decode).collect()
    }
}
