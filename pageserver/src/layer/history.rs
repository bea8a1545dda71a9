//! Where the records of a range of LSNs begin and end, and when its transactions committed: what
//! rounds an LSN down to a record's end, and finds the state as of a time.

use protocol::BranchPoint;
use wal_format::Lsn;

use super::varint::{put_varint, take_varint, unzigzag, zigzag};
use crate::{change::Value, key::Key};

/// Records of a piece of history, so that one is some 30 KiB. Few in tests, whose histories are
/// short.
const PIECE_RECORDS: usize = if cfg!(test) { 3 } else { 8192 };

/// The bytes that a record takes in WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Where the record begins.
    pub start: Lsn,
    /// Its MAXALIGNed end.
    pub end: Lsn,
}

/// A commit: which record, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Commit {
    record: u32,
    time: i64,
}

/// Records in order, `start < end <= next start`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    spans: Vec<Span>,
    commits: Vec<Commit>,
}

impl History {
    /// Adds the next record; `time` where it is a commit.
    pub fn push(&mut self, span: Span, time: Option<i64>) {
        debug_assert!(span.start < span.end);
        debug_assert!(self.spans.last().is_none_or(|last| last.end <= span.start));
        if let Some(time) = time {
            self.commits.push(Commit { record: self.spans.len() as u32, time });
        }
        self.spans.push(span);
    }

    /// Adds the records of a later piece.
    #[cfg(test)]
    pub fn extend(&mut self, piece: History) {
        let before = self.spans.len() as u32;
        let later = |commit: Commit| Commit { record: commit.record + before, ..commit };
        self.commits.extend(piece.commits.into_iter().map(later));
        self.spans.extend(piece.spans);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        self.spans.len() * size_of::<Span>() + self.commits.len() * size_of::<Commit>()
    }

    /// The last record that ends at or before `lsn`.
    pub fn at_or_before(&self, lsn: Lsn) -> Option<BranchPoint> {
        let position = self.spans.partition_point(|span| span.end <= lsn).checked_sub(1)?;
        let span = self.spans[position];
        Some(BranchPoint { lsn: span.end, last_record: span.start })
    }

    /// The first commit, among records that end at or before `limit`, that is later than `time`.
    pub fn first_commit_after(&self, time: i64, limit: Lsn) -> Option<Span> {
        self.first_later_than(time).filter(|span| span.end <= limit)
    }

    /// The first commit that is later than `time`.
    pub fn first_later_than(&self, time: i64) -> Option<Span> {
        let commit = self.commits.iter().find(|commit| commit.time > time)?;
        self.spans.get(commit.record as usize).copied()
    }

    /// The latest commit's time.
    pub fn last_commit_time(&self) -> Option<i64> {
        self.commits.iter().map(|commit| commit.time).max()
    }

    /// The history in pieces, as a layer stores them: each under a key that says where it ends and
    /// when the latest commit was.
    pub fn pieces(&self) -> impl Iterator<Item = (Key, Lsn, Value)> {
        let (mut commits, mut latest) = (self.commits.as_slice(), i64::MIN);
        self.spans.chunks(PIECE_RECORDS).enumerate().filter_map(move |(number, spans)| {
            let first = number * PIECE_RECORDS;
            let end = first + spans.len();
            let count = commits.partition_point(|commit| (commit.record as usize) < end);
            let (own, later) = commits.split_at(count);
            commits = later;
            let own =
                own.iter().map(|commit| Commit { record: commit.record - first as u32, ..*commit });
            let piece = History { spans: spans.to_vec(), commits: own.collect() };
            latest = piece.last_commit_time().map_or(latest, |time| latest.max(time));
            let lsn = spans.last()?.end;
            Some((Key::history(lsn, latest), lsn, Value::Image(piece.encode().into())))
        })
    }

    /// The stored form, before compression.
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.spans.len() * 3 + 16);
        put_varint(&mut raw, self.spans.len() as u64);
        let mut at = 0;
        for span in &self.spans {
            put_varint(&mut raw, span.start.0 - at);
            put_varint(&mut raw, span.end.0 - span.start.0);
            at = span.end.0;
        }
        put_varint(&mut raw, self.commits.len() as u64);
        let (mut record, mut time) = (0, 0);
        for commit in &self.commits {
            put_varint(&mut raw, u64::from(commit.record - record));
            put_varint(&mut raw, zigzag(commit.time.wrapping_sub(time)));
            (record, time) = (commit.record, commit.time);
        }
        raw
    }

    /// Reads the stored form; `None` where it is none.
    pub fn decode(mut raw: &[u8]) -> Option<History> {
        let raw = &mut raw;
        let records = bounded(take_varint(raw)?, raw)?;
        let mut spans = Vec::with_capacity(records);
        let mut at = 0_u64;
        for _ in 0..records {
            let start = at.checked_add(take_varint(raw)?)?;
            at = start.checked_add(take_varint(raw)?)?;
            if start == at {
                return None;
            }
            spans.push(Span { start: Lsn(start), end: Lsn(at) });
        }
        let count = bounded(take_varint(raw)?, raw)?;
        let mut commits = Vec::with_capacity(count);
        let (mut record, mut time) = (0_u64, 0_i64);
        for _ in 0..count {
            record = record.checked_add(take_varint(raw)?)?;
            time = time.wrapping_add(unzigzag(take_varint(raw)?));
            if record >= records as u64 {
                return None;
            }
            commits.push(Commit { record: record as u32, time });
        }
        raw.is_empty().then_some(History { spans, commits })
    }
}

/// A count of items of at least two bytes each, which must be there.
fn bounded(count: u64, rest: &[u8]) -> Option<usize> {
    usize::try_from(count).ok().filter(|count| *count <= rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn history(records: &[(u64, u64, Option<i64>)]) -> History {
        let mut history = History::default();
        let mut at = 0;
        for (gap, length, time) in records {
            let start = at + gap;
            at = start + length.max(&1);
            history.push(Span { start: Lsn(start), end: Lsn(at) }, *time);
        }
        history
    }

    proptest! {
        #[test]
        fn a_history_is_read_back_as_it_was_written(
            records in prop::collection::vec(
                (0..40_u64, 1..100_000_u64, any::<Option<i64>>()), 0..200)
        ) {
            let history = history(&records);
            prop_assert_eq!(History::decode(&history.encode()), Some(history));
        }

        #[test]
        fn any_bytes_are_a_history_or_refused(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            History::decode(&raw);
        }
    }

    #[test]
    fn the_pieces_of_a_history_are_the_history() {
        let records: Vec<_> =
            (0..20).map(|at| (at, 8, (at % 3 == 0).then_some(1_000 - at as i64))).collect();
        let history = history(&records);
        let mut joined = History::default();
        let mut latest = i64::MIN;
        for (key, lsn, value) in history.pieces() {
            let piece = History::decode(value.bytes()).expect("it was just made");
            latest = latest.max(piece.last_commit_time().unwrap_or(i64::MIN));
            assert_eq!(key.as_history(), Some((lsn, latest)));
            assert_eq!(piece.at_or_before(Lsn::MAX).map(|point| point.lsn), Some(lsn));
            joined.extend(piece);
        }
        assert_eq!(joined, history);
    }

    #[test]
    fn an_lsn_inside_a_record_is_rounded_down_to_the_end_of_the_one_before() {
        let history = history(&[(100, 50, None), (0, 50, None), (24, 26, None)]);
        assert_eq!(history.at_or_before(Lsn(149)), None);
        let first = BranchPoint { lsn: Lsn(150), last_record: Lsn(100) };
        assert_eq!(history.at_or_before(Lsn(150)), Some(first));
        assert_eq!(history.at_or_before(Lsn(199)), Some(first));
        let last = BranchPoint { lsn: Lsn(250), last_record: Lsn(224) };
        assert_eq!(history.at_or_before(Lsn::MAX), Some(last));
    }

    #[test]
    fn the_first_later_commit_is_found_even_when_clocks_went_back() {
        let commits = [(0, 8, Some(10)), (0, 8, Some(30)), (0, 8, Some(20)), (0, 8, None)];
        let history = history(&commits);
        assert_eq!(history.first_commit_after(9, Lsn::MAX).map(|span| span.start), Some(Lsn(0)));
        assert_eq!(history.first_commit_after(15, Lsn::MAX).map(|span| span.start), Some(Lsn(8)));
        assert_eq!(history.first_commit_after(30, Lsn::MAX), None);
        assert_eq!(history.first_commit_after(15, Lsn(15)), None);
        assert_eq!(history.last_commit_time(), Some(30));
    }
}
