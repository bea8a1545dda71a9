//! One timeline: what WAL did to its keys since it began, and its ancestor's history before that.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use protocol::{BranchPoint, TenantTimeline, Term, TimelineOrigin};
use tokio_util::sync::CancellationToken;
use wal_format::{Lsn, RelationFork};

use crate::{change::Change, error::Error, key::Key};

/// A loaded timeline. Reads are at an LSN that is a record's end, or anything between two of them.
pub struct Timeline {
    id: TenantTimeline,
    origin: TimelineOrigin,
}

impl Timeline {
    /// The timeline's name in requests.
    pub fn id(&self) -> TenantTimeline {
        self.id
    }

    /// Where the timeline begins.
    pub fn origin(&self) -> TimelineOrigin {
        self.origin
    }

    /// Whether this is a template's: nothing is ever applied to it.
    pub fn is_read_only(&self) -> bool {
        false
    }

    /// Cancelled when the timeline was deleted or the pageserver stops: who ingests into it ends.
    pub fn stopped(&self) -> &CancellationToken {
        todo!()
    }

    /// Takes over what one record does; `last_record_lsn` moves to its end. Records come in order,
    /// from one caller at a time, and only while [`Timeline::ready_for_more`] has said so lately
    /// (once for every chunk of WAL received is enough).
    pub fn apply(&self, change: Change) {
        let _ = change;
        todo!()
    }

    /// Waits until memory has room: the back-pressure on ingest. Fails when the timeline was
    /// fenced or stopped.
    pub async fn ready_for_more(&self) -> Result<(), Error> {
        todo!()
    }

    /// The end of the last record applied; where ingest goes on.
    pub fn last_record_lsn(&self) -> Lsn {
        todo!()
    }

    /// The last record's end and start.
    pub fn last_record(&self) -> BranchPoint {
        todo!()
    }

    /// Waits until ingest has reached `lsn`, in the timeline or in the ancestor that has it.
    pub async fn wait_for(&self, lsn: Lsn, timeout: Duration) -> Result<(), Error> {
        let _ = (lsn, timeout);
        todo!()
    }

    /// What is in layers in the object store: WAL before this is not needed any more.
    pub fn remote_consistent_lsn(&self) -> Lsn {
        todo!()
    }

    /// Changes when [`Timeline::remote_consistent_lsn`] does.
    pub fn watch_remote_consistent_lsn(&self) -> tokio::sync::watch::Receiver<Lsn> {
        todo!()
    }

    /// Writes all that was applied to the object store; the LSN up to which it is there.
    pub async fn flush(&self) -> Result<Lsn, Error> {
        todo!()
    }

    /// A key's value as of `at`; `None` where it has none (never written, or cleared).
    pub async fn get(&self, key: Key, at: Lsn) -> Result<Option<Bytes>, Error> {
        let _ = (key, at);
        todo!()
    }

    /// `count` pages of a fork, 8,192 bytes each, with checksums where the cluster has them.
    /// A page that has no value, beyond the end or in a gap, is zeros.
    pub async fn pages(
        &self,
        fork: RelationFork,
        first: u32,
        count: u32,
        at: Lsn,
    ) -> Result<Bytes, Error> {
        let _ = (fork, first, count, at);
        todo!()
    }

    /// All keys of a range that have a value as of `at`, in order, with their values.
    pub async fn scan(&self, range: Range<Key>, at: Lsn) -> Result<Vec<(Key, Bytes)>, Error> {
        let _ = (range, at);
        todo!()
    }

    /// The last record's end at or before `lsn`, here or in an ancestor of the same tenant.
    /// Fails with [`Error::Gone`] before the oldest, with [`Error::NotYet`] beyond the end.
    pub async fn round_down(&self, lsn: Lsn) -> Result<BranchPoint, Error> {
        let _ = lsn;
        todo!()
    }

    /// The state before the first commit later than `time` (microseconds since 2000); the end
    /// where there is none. Times before the tenant's creation and after now are refused.
    pub async fn point_at_time(&self, time: i64) -> Result<BranchPoint, Error> {
        let _ = time;
        todo!()
    }

    /// The highest term seen.
    pub fn term(&self) -> Term {
        todo!()
    }

    /// Takes note of a term seen in WAL or in a request; kept with the next manifest.
    pub fn learn_term(&self, term: Term) {
        let _ = term;
        todo!()
    }

    /// Bytes of all forks as of `at`.
    pub async fn logical_size(&self, at: Lsn) -> Result<u64, Error> {
        let _ = at;
        todo!()
    }

    /// Bytes of the timeline's own layers in the object store.
    pub fn stored_bytes(&self) -> u64 {
        todo!()
    }
}
