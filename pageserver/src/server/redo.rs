//! The storage engine's redo is Postgres'.

use wal_format::{Lsn, Page, Target, Version, redo_kept};

use crate::redo::Redo;

/// Replays records of the one version that is served.
pub(super) struct PostgresRedo;

impl Redo for PostgresRedo {
    fn apply(
        &self,
        record: &[u8],
        end: Lsn,
        target: Target,
        page: &mut Page,
    ) -> Result<(), String> {
        redo_kept(Version::V15, record, end, target, page).map_err(|error| error.to_string())
    }
}
