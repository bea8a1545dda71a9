//! Which term wrote which part of a log.
//!
//! Invariants: terms rise strictly; starts never fall. A term's part reaches to the next term's
//! start; it may be empty.

use serde::{Deserialize, Serialize};
use wal_format::Lsn;

use crate::Term;

/// The most entries that a history may have; more is refused as damage.
pub const TERMS_MAX: usize = 1 << 20;

/// One term, and where its part of the log starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TermStart {
    /// The term.
    pub term: Term,
    /// The position of its first byte.
    pub start: Lsn,
}

/// The terms of a log, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<TermStart>", into = "Vec<TermStart>")]
pub struct TermHistory(Vec<TermStart>);

/// A history that breaks the invariants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a term history: entry {index} does not follow the one before it")]
pub struct TermHistoryError {
    /// The entry.
    pub index: usize,
}

impl TermHistory {
    /// The entries, oldest first.
    pub fn entries(&self) -> &[TermStart] {
        &self.0
    }

    /// The term that wrote the end of the log; zero for an empty history.
    pub fn last_term(&self) -> Term {
        self.0.last().map_or(Term(0), |entry| entry.term)
    }

    /// Adds a term at the end.
    pub fn push(&mut self, entry: TermStart) -> Result<(), TermHistoryError> {
        let follows =
            self.0.last().is_none_or(|last| last.term < entry.term && last.start <= entry.start);
        if !follows || self.0.len() >= TERMS_MAX {
            return Err(TermHistoryError { index: self.0.len() });
        }
        self.0.push(entry);
        Ok(())
    }

    /// Up to where two logs are the same: `self`'s ends at `self_end`, `other`'s at `other_end`.
    /// Both begin at the timeline's start, `origin`, which is the answer where no term is shared.
    pub fn common_end(
        &self,
        self_end: Lsn,
        other: &TermHistory,
        other_end: Lsn,
        origin: Lsn,
    ) -> Lsn {
        let shared =
            self.0.iter().zip(&other.0).take_while(|(mine, theirs)| mine == theirs).count();
        let Some(last) = shared.checked_sub(1) else {
            return origin;
        };
        self.term_end(last, self_end).min(other.term_end(last, other_end))
    }

    /// The history of the log's part before `end`: terms that start after it are gone. A term that
    /// starts exactly there stays: it is a term of zero length, and it was elected.
    pub fn truncated(&self, end: Lsn) -> TermHistory {
        TermHistory(self.0.iter().copied().take_while(|entry| entry.start <= end).collect())
    }

    fn term_end(&self, index: usize, log_end: Lsn) -> Lsn {
        self.0.get(index + 1).map_or(log_end, |next| next.start)
    }
}

impl TryFrom<Vec<TermStart>> for TermHistory {
    type Error = TermHistoryError;

    fn try_from(entries: Vec<TermStart>) -> Result<TermHistory, TermHistoryError> {
        let mut history = TermHistory::default();
        for entry in entries {
            history.push(entry)?;
        }
        Ok(history)
    }
}

impl From<TermHistory> for Vec<TermStart> {
    fn from(history: TermHistory) -> Vec<TermStart> {
        history.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(u64, u64)]) -> TermHistory {
        let entries: Vec<_> = entries
            .iter()
            .map(|&(term, start)| TermStart { term: Term(term), start: Lsn(start) })
            .collect();
        TermHistory::try_from(entries).expect("the test's history is in order")
    }

    #[test]
    fn logs_are_the_same_up_to_the_end_of_their_last_shared_term() {
        let mine = history(&[(1, 100), (3, 200)]);
        let theirs = history(&[(1, 100), (2, 150)]);
        assert_eq!(mine.common_end(Lsn(300), &theirs, Lsn(400), Lsn(100)), Lsn(150));
        let behind = history(&[(1, 100)]);
        assert_eq!(mine.common_end(Lsn(300), &behind, Lsn(130), Lsn(100)), Lsn(130));
        assert_eq!(mine.common_end(Lsn(300), &mine, Lsn(250), Lsn(100)), Lsn(250));
        assert_eq!(mine.common_end(Lsn(300), &history(&[]), Lsn(100), Lsn(100)), Lsn(100));
    }

    #[test]
    fn terms_that_do_not_rise_are_refused() {
        let mut terms = history(&[(2, 100)]);
        assert!(terms.push(TermStart { term: Term(2), start: Lsn(100) }).is_err());
        assert!(terms.push(TermStart { term: Term(3), start: Lsn(99) }).is_err());
        assert!(terms.push(TermStart { term: Term(3), start: Lsn(100) }).is_ok());
    }
}
