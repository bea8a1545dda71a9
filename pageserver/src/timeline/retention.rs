//! What of a timeline's history is kept.
//!
//! Everything at the cutoff and behind it can be read; below it only kept points can: those that a
//! living branch begins at. Invariants:
//! - the cutoff never goes back;
//! - points below the cutoff are only ever given up, never added;
//! - nothing is dropped that a point of the newest manifest needs.

use protocol::BranchPoint;
use serde::{Deserialize, Serialize};
use wal_format::Lsn;

use crate::error::Error;

/// What a tenant that says nothing else keeps, in seconds: a week.
const SECONDS_DEFAULT: u64 = 7 * 24 * 3600;

/// How much history is kept: as much as either asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Every moment of this many seconds until now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Every LSN of this many bytes of WAL until the last record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl Default for Window {
    fn default() -> Window {
        Window { seconds: Some(SECONDS_DEFAULT), bytes: None }
    }
}

impl Window {
    /// The moment since which history is kept.
    pub fn since(&self, now: i64) -> Option<i64> {
        self.micros().map(|micros| now.saturating_sub(micros))
    }

    /// The first moment at which something of this time is not kept any more.
    pub fn until(&self, time: i64) -> Option<i64> {
        self.micros().map(|micros| time.saturating_add(micros))
    }

    fn micros(&self) -> Option<i64> {
        self.seconds
            .map(|seconds| i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX))
    }

    /// The LSN since which history is kept, where the last record ends at `end`.
    pub fn from(&self, end: Lsn) -> Option<Lsn> {
        self.bytes.map(|bytes| Lsn(end.0.saturating_sub(bytes)))
    }
}

/// The oldest LSN that can still be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cutoff {
    /// A record's end, and its start.
    pub point: BranchPoint,
    /// The latest commit's time up to there: no earlier moment can be found any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit_time: Option<i64>,
}

impl Cutoff {
    /// Some record's end near `lsn`: to decide by, not to write down.
    pub(super) fn roughly(lsn: Lsn) -> Cutoff {
        Cutoff { point: BranchPoint { lsn, last_record: lsn }, last_commit_time: None }
    }
}

/// What can be read of a timeline's own history.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Retained {
    /// Absent where nothing was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutoff: Option<Cutoff>,
    /// LSNs below the cutoff that can be read all the same, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<Lsn>,
}

impl Retained {
    /// What is retained next, where the cutoff goes on to `cutoff` and branches begin at `points`:
    /// of these, those that have not been given up.
    pub fn next(&self, cutoff: Cutoff, points: impl IntoIterator<Item = Lsn>) -> Retained {
        let is_kept = |point: &Lsn| *point < cutoff.point.lsn && self.check(*point).is_ok();
        let mut points: Vec<Lsn> = points.into_iter().filter(is_kept).collect();
        points.sort_unstable();
        points.dedup();
        Retained { cutoff: Some(cutoff), points }
    }

    /// Whether nothing was given up.
    pub fn is_everything(&self) -> bool {
        self.cutoff.is_none()
    }

    /// The cutoff; 0 where nothing was given up.
    pub fn cutoff_lsn(&self) -> Lsn {
        self.cutoff.map_or(Lsn::INVALID, |cutoff| cutoff.point.lsn)
    }

    /// How many points are kept in a range of LSNs: above `from`, at most `to`.
    pub fn points_in(&self, from: Lsn, to: Lsn) -> u64 {
        self.points.iter().filter(|point| from < **point && **point <= to).count() as u64
    }

    /// Refuses an LSN that cannot be read any more.
    pub fn check(&self, at: Lsn) -> Result<(), Error> {
        if at >= self.cutoff_lsn() || self.points.binary_search(&at).is_ok() {
            return Ok(());
        }
        Err(Error::Gone { asked: at, oldest: self.cutoff_lsn() })
    }

    /// Which of the kept LSNs is the first to see a version: versions with the same answer are
    /// seen by the same reads, so that the newest of them is enough. `None` above the cutoff,
    /// where each is seen by a read of its own.
    pub fn seen_first_by(&self, version: Lsn) -> Option<Lsn> {
        let point = self.points.get(self.points.partition_point(|point| *point < version));
        let cutoff = self.cutoff.map(|cutoff| cutoff.point.lsn);
        point.copied().or(cutoff).filter(|kept| *kept >= version)
    }

    #[cfg(test)]
    pub(super) fn at(cutoff: Lsn, points: impl IntoIterator<Item = Lsn>) -> Retained {
        let point = BranchPoint { lsn: cutoff, last_record: Lsn(cutoff.0.saturating_sub(8)) };
        let mut points: Vec<Lsn> = points.into_iter().filter(|point| *point < cutoff).collect();
        points.sort_unstable();
        points.dedup();
        Retained { cutoff: Some(Cutoff { point, last_commit_time: None }), points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_the_cutoff_only_kept_points_are_read() {
        let retained = Retained::at(Lsn(100), [Lsn(40), Lsn(60)]);
        for readable in [40, 60, 100, 101, u64::MAX] {
            assert_eq!(retained.check(Lsn(readable)), Ok(()));
        }
        for gone in [0, 39, 41, 61, 99] {
            let gone = Lsn(gone);
            let expected = Error::Gone { asked: gone, oldest: Lsn(100) };
            assert_eq!(retained.check(gone), Err(expected));
        }
        assert_eq!(Retained::default().check(Lsn(0)), Ok(()));
    }

    #[test]
    fn a_point_that_was_given_up_is_never_kept_again() {
        let before = Retained::at(Lsn(100), [Lsn(40), Lsn(60)]);
        let cutoff = Retained::at(Lsn(200), []).cutoff.expect("it was given");
        let next = before.next(cutoff, [150, 40, 50, 100, 250, 40].map(Lsn));
        assert_eq!(next.points, [40, 100, 150].map(Lsn));
        assert_eq!(next.cutoff_lsn(), Lsn(200));
    }

    #[test]
    fn a_window_reaches_back_from_now_and_from_the_last_record() {
        let window = Window { seconds: Some(2), bytes: Some(100) };
        assert_eq!(window.since(5_000_000), Some(3_000_000));
        assert_eq!([window.from(Lsn(250)), window.from(Lsn(50))], [Some(Lsn(150)), Some(Lsn(0))]);
        let forever = Window { seconds: Some(u64::MAX), bytes: None };
        assert!(forever.since(5_000_000).is_some_and(|since| since < -1_000_000_000_000_000));
        assert_eq!(window.until(3_000_000), Some(5_000_000));
        assert_eq!(forever.until(5_000_000), Some(i64::MAX));
    }

    #[test]
    fn versions_between_two_kept_lsns_are_seen_by_the_same_reads() {
        let retained = Retained::at(Lsn(100), [Lsn(40), Lsn(60)]);
        let seen = |version| retained.seen_first_by(Lsn(version)).map(|lsn| lsn.0);
        assert_eq!(
            [seen(1), seen(40), seen(41), seen(60)],
            [Some(40), Some(40), Some(60), Some(60)]
        );
        assert_eq!([seen(61), seen(100), seen(101)], [Some(100), Some(100), None]);
        assert_eq!(Retained::default().seen_first_by(Lsn(1)), None);
    }
}
