//! The storage engine's redo is Postgres'.

use bytes::Bytes;
use wal_format::{Lsn, Page, Record, Target, Version, redo};

use crate::redo::Redo;

/// Replays records of the one version that is served.
pub(super) struct PostgresRedo;

impl Redo for PostgresRedo {
    fn apply(
        &self,
        record: &[u8],
        end: Lsn,
        target: Target,
        page: &mut [u8],
    ) -> Result<(), String> {
        let record = Record::parse(Version::V15, &Bytes::copy_from_slice(record))
            .map_err(|error| error.to_string())?;
        let mut replayed = Page::from_slice(page).ok_or("a page has 8,192 bytes")?;
        redo(Version::V15, &record, end, target, &mut replayed)
            .map_err(|error| error.to_string())?;
        page.copy_from_slice(replayed.bytes());
        Ok(())
    }

    fn set_checksum(&self, block: u32, page: &mut [u8]) {
        let mut checked = Page::from_slice(page).expect("the engine's pages have 8,192 bytes");
        checked.set_checksum(block);
        page.copy_from_slice(checked.bytes());
    }
}
