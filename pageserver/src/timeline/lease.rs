//! Leases: what a reader reads is not dropped while it goes on reading.
//!
//! A lease ends by the clock, so that a reader that died keeps nothing for long. One that reads on
//! without a lease gets an error, never a wrong page.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use wal_format::Lsn;

use super::Timeline;

/// How long a lease holds after its reader last read.
pub const LEASE: Duration = Duration::from_secs(600);

/// The leases of a timeline, by reader.
#[derive(Default)]
pub struct Leases {
    held: Mutex<HashMap<u64, (Lsn, Instant)>>,
}

impl Leases {
    fn renew(&self, reader: u64, lsn: Lsn, now: Instant) {
        self.held.lock().insert(reader, (lsn, now));
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

impl Timeline {
    /// A lease for a new reader, which holds nothing yet.
    pub fn lease(self: &Arc<Self>) -> Lease {
        static READER: AtomicU64 = AtomicU64::new(0);
        let reader = READER.fetch_add(1, Ordering::Relaxed);
        Lease { timeline: Arc::clone(self), reader, renewed: Mutex::new(None) }
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
}
