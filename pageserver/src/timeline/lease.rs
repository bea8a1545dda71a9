//! Leases: what a reader reads is not dropped while it goes on reading.
//!
//! A lease ends by the clock, so that a reader that died keeps nothing for long. One that reads on
//! without a lease gets an error, never a wrong page.
//!
//! It ends at once where its reader says goodbye. A compute may have several connections, each a
//! reader, and goes on by the others: so its leases end when it has said goodbye on all of them.
//! One that broke off instead, the compute may be making anew: it has its lease for the rest of its
//! time. A compute that starts again has another term, and is another reader.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use protocol::Term;
use tokio::time::Instant;
use wal_format::Lsn;

use super::Timeline;

/// How long a lease holds after its reader last read, and did not say goodbye.
pub const LEASE: Duration = Duration::from_secs(600);

/// The leases of a timeline, by reader.
#[derive(Default)]
pub struct Leases {
    held: Mutex<HashMap<u64, (Lsn, Instant)>>,
    computes: Mutex<HashMap<Term, Compute>>,
}

/// A compute's connections, as long as one is open.
#[derive(Default)]
struct Compute {
    open: usize,
    /// Those that ended with a goodbye, and whose leases have not run out.
    ended: Vec<u64>,
}

impl Leases {
    fn renew(&self, reader: u64, lsn: Lsn, now: Instant) {
        self.held.lock().insert(reader, (lsn, now));
    }

    fn open(&self, compute: Term) {
        self.computes.lock().entry(compute).or_default().open += 1;
    }

    /// A reader's connection has ended; the readers whose leases end with it.
    fn close(
        &self,
        reader: u64,
        compute: Option<Term>,
        said_goodbye: bool,
        now: Instant,
    ) -> Vec<u64> {
        let Some(term) = compute else {
            return if said_goodbye { vec![reader] } else { Vec::new() };
        };
        let mut computes = self.computes.lock();
        let Some(compute) = computes.get_mut(&term) else { return Vec::new() };
        compute.open = compute.open.saturating_sub(1);
        if said_goodbye {
            compute.ended.push(reader);
        }
        if compute.open > 0 {
            self.oldest(now);
            let held = self.held.lock();
            compute.ended.retain(|ended| held.contains_key(ended));
            return Vec::new();
        }
        let ended = computes.remove(&term).map(|compute| compute.ended).unwrap_or_default();
        // Where the last one broke off, the compute comes back.
        if said_goodbye { ended } else { Vec::new() }
    }

    fn end(&self, readers: &[u64]) {
        self.held.lock().retain(|reader, _| !readers.contains(reader));
    }

    /// The lowest LSN that somebody reads.
    fn oldest(&self, now: Instant) -> Option<Lsn> {
        let mut held = self.held.lock();
        held.retain(|_, (_, since)| now.duration_since(*since) < LEASE);
        held.values().map(|(lsn, _)| *lsn).min()
    }
}

/// A reader's lease.
pub struct Lease {
    timeline: Arc<Timeline>,
    reader: u64,
    compute: Option<Term>,
    said_goodbye: AtomicBool,
    renewed: Mutex<Option<(Lsn, Instant)>>,
}

impl Lease {
    /// The reader reads as of `lsn`. Cheap: it is noted where it is below what was noted last, or
    /// when a while has passed.
    pub fn renew(&self, lsn: Lsn, now: Instant) {
        let mut renewed = self.renewed.lock();
        let is_noted =
            |(noted, since): (Lsn, Instant)| noted <= lsn && now.duration_since(since) < LEASE / 4;
        if renewed.is_some_and(is_noted) {
            return;
        }
        *renewed = Some((lsn, now));
        // Ancestors too, for one that reads what was before the timeline.
        let mut timeline = &self.timeline;
        loop {
            timeline.leases.renew(self.reader, lsn, now);
            match &timeline.facts.ancestor {
                Some(ancestor) if lsn < ancestor.lsn => timeline = &ancestor.timeline,
                _ => return,
            }
        }
    }
}

impl Lease {
    /// The reader reads no more: the lease ends when it is dropped, not by the clock.
    pub fn say_goodbye(&self) {
        self.said_goodbye.store(true, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let said_goodbye = self.said_goodbye.load(Ordering::Relaxed);
        let leases = &self.timeline.leases;
        let ended = leases.close(self.reader, self.compute, said_goodbye, Instant::now());
        let mut next = Some(&self.timeline).filter(|_| !ended.is_empty());
        while let Some(timeline) = next {
            timeline.leases.end(&ended);
            next = timeline.facts.ancestor.as_ref().map(|ancestor| &ancestor.timeline);
        }
    }
}

impl Timeline {
    /// A lease for a new reader, which holds nothing yet; a compute's are told by its term.
    pub fn lease(self: &Arc<Self>, compute: Option<Term>) -> Lease {
        static READER: AtomicU64 = AtomicU64::new(0);
        let reader = READER.fetch_add(1, Ordering::Relaxed);
        if let Some(compute) = compute {
            self.leases.open(compute);
        }
        Lease {
            timeline: Arc::clone(self),
            reader,
            compute,
            said_goodbye: AtomicBool::new(false),
            renewed: Mutex::new(None),
        }
    }

    pub(super) fn oldest_lease(&self, now: Instant) -> Option<Lsn> {
        self.leases.oldest(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_lsn_that_is_read_is_held_until_its_reader_is_silent() {
        let (leases, start) = (Leases::default(), Instant::now());
        assert_eq!(leases.oldest(start), None);
        leases.renew(1, Lsn(50), start);
        leases.renew(2, Lsn(80), start + LEASE / 2);
        assert_eq!(leases.oldest(start + LEASE / 2), Some(Lsn(50)));
        assert_eq!(leases.oldest(start + LEASE), Some(Lsn(80)));
        leases.renew(2, Lsn(90), start + LEASE);
        assert_eq!(leases.oldest(start + LEASE * 3 / 2), Some(Lsn(90)));
        assert_eq!(leases.oldest(start + LEASE * 2), None);
    }

    /// Closes a connection, and ends the leases that end with it.
    fn close(leases: &Leases, reader: u64, compute: Option<Term>, says_goodbye: bool, at: Instant) {
        leases.end(&leases.close(reader, compute, says_goodbye, at));
    }

    #[test]
    fn a_reader_that_says_goodbye_holds_nothing_and_one_that_breaks_off_does() {
        let (leases, now) = (Leases::default(), Instant::now());
        leases.renew(1, Lsn(50), now);
        leases.renew(2, Lsn(80), now);
        close(&leases, 1, None, true, now);
        assert_eq!(leases.oldest(now), Some(Lsn(80)));
        close(&leases, 2, None, false, now);
        assert_eq!(leases.oldest(now), Some(Lsn(80)));
        assert_eq!(leases.oldest(now + LEASE), None);
    }

    #[test]
    fn a_computes_leases_end_with_the_goodbye_of_its_last_connection() {
        let (leases, now) = (Leases::default(), Instant::now());
        let (old, new) = (Some(Term(1)), Some(Term(2)));
        for reader in [1, 2] {
            leases.open(Term(1));
            leases.renew(reader, Lsn(reader * 10), now);
        }
        close(&leases, 1, old, true, now);
        assert_eq!(leases.oldest(now), Some(Lsn(10)), "it may read on by the other connection");
        // It has started again before its last connection has ended.
        leases.open(Term(2));
        leases.renew(3, Lsn(30), now);
        close(&leases, 2, old, true, now);
        assert_eq!(leases.oldest(now), Some(Lsn(30)));
        close(&leases, 3, new, true, now);
        assert_eq!(leases.oldest(now), None);
        assert!(leases.computes.lock().is_empty());
    }

    #[test]
    fn a_connection_that_broke_off_keeps_its_lease_whatever_the_others_say() {
        let (leases, now) = (Leases::default(), Instant::now());
        let compute = Some(Term(1));
        for reader in [1, 2] {
            leases.open(Term(1));
            leases.renew(reader, Lsn(reader * 10), now);
        }
        close(&leases, 1, compute, false, now);
        close(&leases, 2, compute, true, now);
        assert_eq!(leases.oldest(now), Some(Lsn(10)));
        assert_eq!(leases.oldest(now + LEASE), None);
    }

    #[test]
    fn a_compute_that_connects_again_and_again_is_remembered_in_bounds() {
        let (leases, start) = (Leases::default(), Instant::now());
        leases.open(Term(1));
        for reader in 0..1000 {
            let now = start + LEASE / 100 * reader as u32;
            leases.open(Term(1));
            leases.renew(reader, Lsn(reader), now);
            close(&leases, reader, Some(Term(1)), true, now);
        }
        let known = leases.computes.lock().get(&Term(1)).map(|compute| compute.ended.len());
        assert!(known.is_some_and(|known| known <= 100), "{known:?} are remembered");
    }
}
