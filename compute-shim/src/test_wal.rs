//! WAL for tests: real records, written as Postgres writes them.

use protocol::{BranchPoint, TimelineOrigin};
use wal_format::{
    ControlState, DEFAULT_SEGMENT_BYTES, Lsn, Version, WalSettings, synthesise_shutdown_checkpoint,
};

/// Any system identifier.
const SYSTEM_ID: u64 = 7_123_456_789;

/// Where the tests' timeline begins, unless they choose another place.
pub(crate) fn origin_at(lsn: Lsn) -> TimelineOrigin {
    let point = BranchPoint { lsn, last_record: Lsn(lsn.0 - 120) };
    TimelineOrigin { point, system_id: SYSTEM_ID, segment_bytes: DEFAULT_SEGMENT_BYTES, major: 15 }
}

/// A stream of records, each a shutdown checkpoint: 120 bytes and page headers.
#[derive(Clone)]
pub(crate) struct TestWal {
    /// The position of the stream's first byte.
    pub(crate) begin: Lsn,
    /// The stream.
    pub(crate) bytes: Vec<u8>,
    /// The start of the last record.
    pub(crate) last_record: Lsn,
    /// Goes into every record: two streams of different numbers differ in every record.
    number: i64,
}

impl TestWal {
    /// An empty stream behind the record that starts at `last_record`.
    pub(crate) fn new(begin: Lsn, last_record: Lsn, number: i64) -> TestWal {
        TestWal { begin, bytes: Vec::new(), last_record, number }
    }

    /// The stream's end, which is a record's.
    pub(crate) fn end(&self) -> Lsn {
        self.begin + self.bytes.len() as u64
    }

    /// Adds a record; gives its end.
    pub(crate) fn record(&mut self) -> Lsn {
        let made = synthesise_shutdown_checkpoint(
            Version::V15,
            self.end(),
            self.last_record,
            &state(),
            SYSTEM_ID,
            DEFAULT_SEGMENT_BYTES,
            self.number,
        );
        self.bytes.extend_from_slice(&made.bytes);
        self.last_record = made.redo;
        self.end()
    }

    /// Adds records until the stream has reached `lsn`.
    pub(crate) fn records_to(&mut self, lsn: Lsn) -> Lsn {
        while self.end() < lsn {
            self.record();
        }
        self.end()
    }

    /// The bytes from `from` to the end.
    pub(crate) fn from(&self, from: Lsn) -> &[u8] {
        self.bytes.get(from.since(self.begin) as usize..).expect("the position is in the stream")
    }

    /// The whole pages that hold what lies behind `from`, as Postgres writes them: what comes before
    /// the stream and behind it is zeros. Gives their position too.
    pub(crate) fn pages_from(&self, from: Lsn) -> (Lsn, Vec<u8>) {
        let first = from.page_start();
        let mut pages = vec![0; self.begin.since(first) as usize];
        pages.extend_from_slice(self.from(self.begin.max(first)));
        let whole = pages.len().next_multiple_of(8192);
        pages.resize(whole, 0);
        (first, pages)
    }
}

fn state() -> ControlState {
    let settings = WalSettings {
        wal_level: 1,
        wal_log_hints: false,
        max_connections: 100,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
        track_commit_timestamp: false,
    };
    ControlState {
        timeline_id: 1,
        next_xid: 700,
        next_oid: 16_384,
        next_multi: 1,
        next_multi_offset: 0,
        oldest_xid: 3,
        oldest_xid_database: 1,
        oldest_multi: 1,
        oldest_multi_database: 1,
        oldest_commit_ts_xid: 0,
        newest_commit_ts_xid: 0,
        full_page_writes: false,
        settings,
    }
}
