//! Where the records of a range of LSNs begin and end, and when its transactions committed: what
//! rounds an LSN down to a record's end, and finds the state as of a time.

use bytes::Bytes;
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

/// The records of a layer, in order.
///
/// In memory, too, all but the last few thousand of them are in the stored form, which is a fifth as large.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Of [`PIECE_RECORDS`] each.
    full: Vec<FullPiece>,
    full_bytes: usize,
    open: Piece,
}

/// A piece that nothing is added to any more.
#[derive(Clone, PartialEq, Eq, Debug)]
struct FullPiece {
    last: Span,
    last_commit_time: Option<i64>,
    encoded: Bytes,
}

/// Some records in order, `start < end <= next start`: what is stored as one value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    spans: Vec<Span>,
    commits: Vec<Commit>,
}

impl History {
    /// Adds the next record; `time` where it is a commit.
    pub fn push(&mut self, span: Span, time: Option<i64>) {
        debug_assert!(self.full.last().is_none_or(|full| full.last.end <= span.start));
        self.open.push(span, time);
        if self.open.spans.len() == PIECE_RECORDS {
            let (last_commit_time, encoded) = (self.open.last_commit_time(), self.open.encode());
            self.full_bytes += size_of::<FullPiece>() + encoded.len();
            self.full.push(FullPiece { last: span, last_commit_time, encoded: encoded.into() });
            self.open.clear();
        }
    }

    /// Adds the records of a later piece.
    #[cfg(test)]
    pub fn extend(&mut self, piece: &Piece) {
        for (number, span) in (0..).zip(&piece.spans) {
            let commit = piece.commits.iter().find(|commit| commit.record == number);
            self.push(*span, commit.map(|commit| commit.time));
        }
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty() && self.open.spans.is_empty()
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        self.full_bytes + self.open.bytes()
    }

    /// The last record that ends at or before `lsn`.
    pub fn at_or_before(&self, lsn: Lsn) -> Option<BranchPoint> {
        let whole = self.full.partition_point(|full| full.last.end <= lsn);
        let within = match self.full.get(whole) {
            Some(full) => full.piece().at_or_before(lsn),
            None => self.open.at_or_before(lsn),
        };
        within.or_else(|| Some(self.full[whole.checked_sub(1)?].last.as_point()))
    }

    /// The first commit, among records that end at or before `limit`, that is later than `time`.
    pub fn first_commit_after(&self, time: i64, limit: Lsn) -> Option<Span> {
        let is_later = |full: &&FullPiece| full.last_commit_time.is_some_and(|last| last > time);
        let first = match self.full.iter().find(is_later) {
            Some(full) => full.piece().first_later_than(time),
            None => self.open.first_later_than(time),
        };
        first.filter(|span| span.end <= limit)
    }

    /// The latest commit's time.
    #[cfg(test)]
    pub fn last_commit_time(&self) -> Option<i64> {
        let full = self.full.iter().filter_map(|full| full.last_commit_time);
        full.chain(self.open.last_commit_time()).max()
    }

    /// The history in pieces, as a layer stores them: each under a key that says where it ends and
    /// when the latest commit was.
    pub fn pieces(&self) -> impl Iterator<Item = (Key, Lsn, Value)> {
        let full = self.full.iter().map(|full| {
            let FullPiece { last, last_commit_time, encoded } = full;
            (*last, *last_commit_time, encoded.clone())
        });
        let open = self
            .open
            .spans
            .last()
            .map(|last| (*last, self.open.last_commit_time(), Bytes::from(self.open.encode())));
        let mut latest = i64::MIN;
        full.chain(open).map(move |(last, last_commit_time, encoded)| {
            latest = last_commit_time.map_or(latest, |time| latest.max(time));
            (Key::history(last.end, latest), last.end, Value::Image(encoded))
        })
    }
}

impl FullPiece {
    fn piece(&self) -> Piece {
        Piece::decode(&self.encoded).expect("it was encoded here")
    }
}

impl Span {
    fn as_point(self) -> BranchPoint {
        BranchPoint { lsn: self.end, last_record: self.start }
    }
}

impl Piece {
    fn push(&mut self, span: Span, time: Option<i64>) {
        debug_assert!(span.start < span.end);
        debug_assert!(self.spans.last().is_none_or(|last| last.end <= span.start));
        if let Some(time) = time {
            self.commits.push(Commit { record: self.spans.len() as u32, time });
        }
        self.spans.push(span);
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.commits.clear();
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.spans[..]) + size_of_val(&self.commits[..])
    }

    /// The last record that ends at or before `lsn`.
    pub fn at_or_before(&self, lsn: Lsn) -> Option<BranchPoint> {
        let position = self.spans.partition_point(|span| span.end <= lsn).checked_sub(1)?;
        Some(self.spans[position].as_point())
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
    pub fn decode(mut raw: &[u8]) -> Option<Piece> {
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
        raw.is_empty().then_some(Piece { spans, commits })
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

    fn spans(
        records: &[(u64, u64, Option<i64>)],
    ) -> impl Iterator<Item = (Span, Option<i64>)> + '_ {
        let mut at = 0;
        records.iter().map(move |(gap, length, time)| {
            let start = at + gap;
            at = start + length.max(&1);
            (Span { start: Lsn(start), end: Lsn(at) }, *time)
        })
    }

    fn history(records: &[(u64, u64, Option<i64>)]) -> History {
        let mut history = History::default();
        spans(records).for_each(|(span, time)| history.push(span, time));
        history
    }

    proptest! {
        #[test]
        fn a_piece_is_read_back_as_it_was_written(
            records in prop::collection::vec(
                (0..40_u64, 1..100_000_u64, any::<Option<i64>>()), 0..200)
        ) {
            let mut piece = Piece::default();
            spans(&records).for_each(|(span, time)| piece.push(span, time));
            prop_assert_eq!(Piece::decode(&piece.encode()), Some(piece));
        }

        #[test]
        fn any_bytes_are_a_piece_or_refused(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            Piece::decode(&raw);
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
            let piece = Piece::decode(value.bytes()).expect("it was just made");
            latest = latest.max(piece.last_commit_time().unwrap_or(i64::MIN));
            assert_eq!(key.as_history(), Some((lsn, latest)));
            assert_eq!(piece.at_or_before(Lsn::MAX).map(|point| point.lsn), Some(lsn));
            joined.extend(&piece);
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
