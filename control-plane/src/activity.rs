//! How long an endpoint's computes ran, and as how large, until somebody takes note of it.
//!
//! - What was taken is never taken again, and what was not is never lost: each spell begins where the
//!   one before ended, to the microsecond.
//! - It reads no clock.

use std::time::{Duration, Instant};

/// A stretch of time in which a compute ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spell {
    /// From here.
    pub from: Instant,
    /// So long, in whole microseconds.
    pub lasts_us: u64,
    /// As so many thousandths of a compute unit.
    pub milli_cu: u32,
}

/// What was not taken note of yet.
#[derive(Default, Debug)]
pub(crate) struct Activity {
    milli_cu: u32,
    /// Since when a compute runs that is not in a spell yet.
    since: Option<Instant>,
    spells: Vec<Spell>,
}

impl Activity {
    /// A compute of this size runs from now on.
    pub(crate) fn begin(&mut self, now: Instant, milli_cu: u32) {
        self.end(now);
        self.milli_cu = milli_cu;
        self.since = Some(now);
    }

    /// The compute that runs, if one does, has another size from now on.
    pub(crate) fn resize(&mut self, now: Instant, milli_cu: u32) {
        self.cut(now);
        self.milli_cu = milli_cu;
    }

    /// The compute ran until then, if one did.
    pub(crate) fn end(&mut self, at: Instant) {
        self.cut(at);
        self.since = None;
    }

    /// All until now that was not taken yet.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Spell> {
        self.cut(now);
        std::mem::take(&mut self.spells)
    }

    fn cut(&mut self, at: Instant) {
        let Some(from) = self.since else { return };
        let lasts_us = at.saturating_duration_since(from).as_micros() as u64;
        if lasts_us > 0 {
            self.spells.push(Spell { from, lasts_us, milli_cu: self.milli_cu });
            // What is less than a microsecond belongs to the next spell.
            self.since = Some(from + Duration::from_micros(lasts_us));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_that_are_taken_bit_by_bit_are_as_long_as_the_compute_ran() {
        let begin = Instant::now();
        let mut activity = Activity::default();
        assert_eq!(activity.take(begin), []);
        activity.begin(begin, 250);
        let step = Duration::from_nanos(1_333_333);
        let mut total = 0;
        for count in 1..=3000 {
            let taken = activity.take(begin + step * count);
            total += taken.iter().map(|spell| spell.lasts_us).sum::<u64>();
        }
        activity.end(begin + Duration::from_secs(5));
        let rest = activity.take(begin + Duration::from_secs(60));
        total += rest.iter().map(|spell| spell.lasts_us).sum::<u64>();
        assert_eq!(total, 5_000_000);
        assert_eq!(activity.take(begin + Duration::from_secs(90)), [], "it does not run any more");
    }

    #[test]
    fn another_size_counts_from_the_moment_that_it_is_said() {
        let begin = Instant::now();
        let mut activity = Activity::default();
        activity.begin(begin, 250);
        activity.resize(begin + Duration::from_secs(2), 1000);
        let spells = activity.take(begin + Duration::from_secs(3));
        let found: Vec<_> = spells.iter().map(|spell| (spell.lasts_us, spell.milli_cu)).collect();
        assert_eq!(found, [(2_000_000, 250), (1_000_000, 1000)]);
        // A clock that another thread read earlier takes nothing back.
        activity.end(begin);
        assert_eq!(activity.take(begin + Duration::from_secs(9)), []);
    }
}
