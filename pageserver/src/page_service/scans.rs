//! Notices that a connection reads forks from front to back, as the kernel does when it reads
//! ahead: range after range, those of several scans in between.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use wal_format::RelationFork;

/// Scans that are told apart: beyond that, the one that rested longest is forgotten.
const SCANS_MAX: usize = 16;
/// Ranges of fewer pages are no scan.
const PAGES_MIN: u32 = 8;

/// The scans of one connection.
#[derive(Default)]
pub(super) struct Scans {
    recent: Mutex<VecDeque<Recent>>,
}

struct Recent {
    fork: RelationFork,
    next: u32,
    is_cold: Arc<AtomicBool>,
}

/// A range that follows another one.
pub(super) struct Scan {
    /// The range that will be asked for next.
    pub next: Range<u32>,
    is_cold: Arc<AtomicBool>,
}

impl Scans {
    /// Takes note of a range; gives the scan that it goes on with.
    pub fn note(&self, fork: RelationFork, first: u32, count: u32) -> Option<Scan> {
        if count < PAGES_MIN {
            return None;
        }
        let next = first.saturating_add(count);
        let mut recent = self.recent.lock();
        let known = recent.iter().position(|scan| scan.fork == fork && scan.next == first);
        let Some(scan) = known.and_then(|known| recent.remove(known)) else {
            recent.truncate(SCANS_MAX - 1);
            recent.push_front(Recent { fork, next, is_cold: Arc::default() });
            return None;
        };
        let is_cold = scan.is_cold.clone();
        recent.push_front(Recent { next, ..scan });
        Some(Scan { next: next..next.saturating_add(count), is_cold })
    }
}

impl Scan {
    /// Whether the pages of the scan are not in memory, as far as is known.
    pub fn is_cold(&self) -> bool {
        self.is_cold.load(Ordering::Relaxed)
    }

    /// Takes note of whether some were.
    pub fn set_cold(&self, is_cold: bool) {
        self.is_cold.store(is_cold, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use wal_format::{Fork, Relation};

    use super::*;

    fn fork(number: u32) -> RelationFork {
        Relation { tablespace: 1663, database: 5, number }.fork(Fork::Main)
    }

    #[test]
    fn scans_that_take_turns_are_each_noticed_and_jumps_are_not() {
        let scans = Scans::default();
        let next = |fork, first| scans.note(fork, first, 128).map(|scan| scan.next);
        assert_eq!(next(fork(1), 0), None);
        assert_eq!(next(fork(2), 0), None);
        assert_eq!(next(fork(1), 128), Some(256..384));
        assert_eq!(next(fork(2), 128), Some(256..384));
        assert_eq!(next(fork(1), 512), None);
        assert_eq!(next(fork(1), 256), Some(384..512));
        for number in 10..30 {
            assert_eq!(next(fork(number), 0), None);
        }
        assert_eq!(next(fork(1), 384), None, "it rested longest and is forgotten");
        assert_eq!(scans.note(fork(40), 0, 1).map(|scan| scan.next), None);
        assert_eq!(scans.note(fork(40), 1, 1).map(|scan| scan.next), None);
    }

    #[test]
    fn a_scan_remembers_whether_it_is_cold() {
        let scans = Scans::default();
        scans.note(fork(1), 0, 8);
        let scan = scans.note(fork(1), 8, 8).expect("it goes on");
        assert!(!scan.is_cold());
        scan.set_cold(true);
        assert!(scans.note(fork(1), 16, 8).expect("it goes on").is_cold());
        assert!(scans.note(fork(1), u32::MAX - 4, 8).is_none());
    }
}
