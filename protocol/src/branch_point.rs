//! Where a timeline begins.

use serde::{Deserialize, Serialize};
use wal_format::Lsn;

/// A place in the WAL at which a timeline can begin: the end of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BranchPoint {
    /// The MAXALIGNed end of the last record that belongs to the past.
    pub lsn: Lsn,
    /// The start of that record: the next record's `xl_prev`.
    pub last_record: Lsn,
}

/// What a timeline's WAL needs to be read and written from its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimelineOrigin {
    /// Where the timeline begins.
    pub point: BranchPoint,
    /// The Postgres system identifier, shared by all timelines of one template.
    pub system_id: u64,
    /// Bytes in a WAL segment.
    pub segment_bytes: u32,
    /// The Postgres major version: 15.
    pub major: u32,
}
