//! Whether a timeline that is not loaded has anything to do, decided from its newest manifest
//! alone.
//!
//! There is something to do where a merge is due, or would be with the cutoff where the tenant's
//! window puts it: the cutoff alone removes nothing. How far it goes, layers say only roughly: the
//! first one that has a commit of the window begins behind it. Whoever then loads the timeline
//! finds the exact place, which is never before the one that is decided by here, but for one
//! record.
//!
//! Leases do not come in: a reader's holds the timeline in memory.

use wal_format::Lsn;

use super::{
    compact::{planned, runs},
    retention::{Cutoff, Retained, Window},
};
use crate::manifest::TimelineManifest;

/// When there is something to do, if nothing is written meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// There is.
    Now,
    /// From this moment on, in microseconds since 2000.
    At(i64),
    /// Time alone brings nothing.
    Never,
}

/// When a timeline that begins at `origin` has something to do; branches begin and snapshots are
/// at `points`.
pub fn due(
    manifest: &TimelineManifest,
    origin: Lsn,
    window: Window,
    points: &[Lsn],
    now: i64,
) -> Due {
    // A pass was cut off: until it is finished, no branch is made above the cutoff.
    if manifest.announced.is_some() {
        return Due::Now;
    }
    let has_work = |at: i64| {
        let retained = retained_at(manifest, origin, window, points, at);
        planned(&manifest.layers, &retained)
    };
    if has_work(now) {
        return Due::Now;
    }
    let mut moments = leaves_window(manifest, window);
    moments.retain(|moment| *moment > now);
    moments.sort_unstable();
    moments.dedup();
    moments.into_iter().find(|moment| has_work(*moment)).map_or(Due::Never, Due::At)
}

/// What would be retained at some moment.
fn retained_at(
    manifest: &TimelineManifest,
    origin: Lsn,
    window: Window,
    points: &[Lsn],
    now: i64,
) -> Retained {
    let before = &manifest.retained;
    let moved = cutoff(manifest, window, now).filter(|lsn| *lsn > origin.max(before.cutoff_lsn()));
    let moved = moved.map(Cutoff::roughly);
    match moved.or(before.cutoff) {
        Some(cutoff) => before.next(cutoff, points.iter().copied()),
        None => before.clone(),
    }
}

/// Where the window puts the cutoff at least; `None` where it keeps more than there is.
fn cutoff(manifest: &TimelineManifest, window: Window, now: i64) -> Option<Lsn> {
    let end = manifest.last_record.lsn;
    let mut lowest = end.min(window.from(end).unwrap_or(end));
    if let Some(since) = window.since(now) {
        let before = manifest.retained.cutoff.and_then(|cutoff| cutoff.last_commit_time);
        if before.is_some_and(|before| since < before) {
            return None;
        }
        let mut later = latest_commits(manifest).filter(|(_, latest)| *latest > since);
        lowest = later.next().map_or(lowest, |(from, _)| lowest.min(from));
    }
    Some(lowest)
}

/// The moments at which the window leaves another run behind.
fn leaves_window(manifest: &TimelineManifest, window: Window) -> Vec<i64> {
    let latest = latest_commits(manifest).map(|(_, latest)| latest);
    latest.filter_map(|latest| window.until(latest)).collect()
}

/// The runs that have commits, from the oldest: where each begins, and its latest commit's time.
fn latest_commits(manifest: &TimelineManifest) -> impl Iterator<Item = (Lsn, i64)> {
    runs(&manifest.layers).into_iter().filter_map(|run| {
        let layers = manifest.layers.get(run.layers)?;
        let latest = layers.iter().filter_map(|layer| layer.last_commit_time).max()?;
        Some((run.from, latest))
    })
}

#[cfg(test)]
mod tests {
    use protocol::BranchPoint;

    use super::*;
    use crate::layer::name::LayerSummary;

    const HOUR: i64 = 3_600_000_000;
    const DAY: Window = Window { seconds: Some(24 * 3600), bytes: None };

    /// Runs of 100 bytes of WAL and 1 MiB each, the latest commit of each an hour after the one
    /// before.
    fn manifest(runs: u64) -> TimelineManifest {
        let end = Lsn(runs * 100);
        let point = BranchPoint { lsn: end, last_record: Lsn(end.0.saturating_sub(8)) };
        let layer = |run: u64| LayerSummary {
            // Each a tier above the next, so that their number is no reason to merge them.
            bytes: 1 << (60 - 8 * run),
            last_commit_time: Some(run as i64 * HOUR),
            ..LayerSummary::of_nothing(Lsn(run * 100), Lsn(run * 100 + 100))
        };
        let layers = (0..runs).map(layer).collect();
        TimelineManifest { layers, ..TimelineManifest::begin(point) }
    }

    fn at(manifest: &TimelineManifest, window: Window, points: &[Lsn], now: i64) -> Due {
        due(manifest, Lsn::INVALID, window, points, now)
    }

    #[test]
    fn what_is_due_is_due_when_the_oldest_run_has_left_the_window() {
        let manifest = manifest(3);
        assert_eq!(at(&manifest, DAY, &[], 0), Due::At(24 * HOUR));
        assert_eq!(at(&manifest, DAY, &[], 24 * HOUR - 1), Due::At(24 * HOUR));
        assert_eq!(at(&manifest, DAY, &[], 24 * HOUR), Due::Now);
    }

    #[test]
    fn what_was_given_up_is_not_due_again_before_the_next_run_leaves_the_window() {
        let mut manifest = manifest(3);
        manifest.layers[0].folded_to = Lsn(100);
        manifest.retained.cutoff = Some(Cutoff::roughly(Lsn(100)));
        assert_eq!(at(&manifest, DAY, &[], 24 * HOUR), Due::At(25 * HOUR));
        for layer in &mut manifest.layers {
            layer.folded_to = Lsn(300);
        }
        manifest.retained.cutoff = Some(Cutoff::roughly(Lsn(300)));
        assert_eq!(at(&manifest, DAY, &[], 99 * HOUR), Due::Never);
    }

    #[test]
    fn a_window_of_bytes_leaves_nothing_behind_while_nothing_is_written() {
        let bytes = |bytes| Window { seconds: None, bytes: Some(bytes) };
        assert_eq!(at(&manifest(3), bytes(1000), &[], 99 * HOUR), Due::Never);
        assert_eq!(at(&manifest(3), bytes(250), &[], 0), Due::Now);
        assert_eq!(at(&manifest(3), bytes(251), &[], 0), Due::Never);
        let both = Window { bytes: Some(1000), ..DAY };
        assert_eq!(at(&manifest(3), both, &[], 99 * HOUR), Due::Never, "either asks for it");
    }

    #[test]
    fn a_merge_that_is_due_anyhow_is_due_at_once() {
        let mut manifest = manifest(4);
        manifest.layers.iter_mut().for_each(|layer| layer.bytes = 1 << 20);
        let forever = Window { seconds: Some(u64::MAX), bytes: None };
        assert_eq!(at(&manifest, forever, &[], 0), Due::Now);
    }

    #[test]
    fn a_pass_that_was_cut_off_is_finished() {
        let announced = TimelineManifest { announced: Some(Lsn(50)), ..manifest(1) };
        assert_eq!(at(&announced, DAY, &[], 0), Due::Now);
    }

    #[test]
    fn points_that_nobody_keeps_any_more_are_due_where_they_were_most_of_a_run() {
        let mut manifest = manifest(1);
        let points = vec![Lsn(20), Lsn(40)];
        manifest.retained = Retained { points, cutoff: Some(Cutoff::roughly(Lsn(100))) };
        (manifest.layers[0].folded_to, manifest.layers[0].kept_points) = (Lsn(100), 2);
        assert_eq!(at(&manifest, DAY, &[Lsn(20), Lsn(40)], 99 * HOUR), Due::Never);
        assert_eq!(at(&manifest, DAY, &[Lsn(20)], 99 * HOUR), Due::Never, "one may go with others");
        assert_eq!(at(&manifest, DAY, &[], 0), Due::Now);
    }

    #[test]
    fn a_timeline_without_layers_has_nothing_to_do() {
        assert_eq!(at(&manifest(0), DAY, &[], 99 * HOUR), Due::Never);
    }
}
