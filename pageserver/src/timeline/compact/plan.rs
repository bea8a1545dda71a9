//! Which layers are merged next: decided from what the manifest says of them.
//!
//! A **run** is the layers of one range of LSNs; they are disjoint in keys. A flush makes a run of
//! one layer. A run's **tier** is by its bytes; an older run counts at least as the tier of every
//! newer one, so that the tiers fall from the oldest run to the newest. Where [`FAN_IN`] runs are
//! of one tier, they become one. So after the last merge there are at most
//! [`runs_max`] runs, whatever the history's length.

use std::ops::Range;

use wal_format::Lsn;

use crate::{layer::name::LayerSummary, timeline::retention::Retained};

/// So many runs of one tier are merged into one, each [`FAN_IN`] times the size of the tier below.
pub const FAN_IN: usize = 4;
/// Runs of fewer bytes are all of the lowest tier. Small in tests, whose histories are short.
pub const TIER_BYTES_MIN: u64 = if cfg!(test) { 2 << 10 } else { 64 << 10 };
/// The most runs that are merged at once: a bound of memory.
const MERGED_RUNS_MAX: usize = 16;

/// The layers of one range of LSNs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Their positions among the timeline's layers.
    pub layers: Range<usize>,
    /// Versions are above this.
    pub from: Lsn,
    /// Versions are at most this.
    pub to: Lsn,
    /// Bytes in the object store.
    pub bytes: u64,
    folded_to: Lsn,
    kept_points: u64,
}

/// Adjacent runs that are to become one: the positions of their layers.
pub type Job = Range<usize>;

/// The runs, from the oldest to the newest.
pub fn runs<'a>(layers: impl IntoIterator<Item = &'a LayerSummary>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (position, layer) in layers.into_iter().enumerate() {
        let name = layer.name;
        match runs.last_mut().filter(|run| (run.from, run.to) == (name.from, name.to)) {
            Some(run) => {
                run.layers.end = position + 1;
                run.bytes += layer.bytes;
            }
            None => runs.push(Run {
                layers: position..position + 1,
                from: name.from,
                to: name.to,
                bytes: layer.bytes,
                folded_to: layer.folded_to,
                kept_points: layer.kept_points,
            }),
        }
    }
    runs
}

/// The next merge, where one is due.
pub fn plan(runs: &[Run], retained: &Retained) -> Option<Job> {
    by_tier(runs).or_else(|| below_cutoff(runs, retained)).or_else(|| stale(runs, retained))
}

/// The most runs that there are when no merge is due, for this many bytes in layers.
pub fn runs_max(bytes: u64) -> usize {
    (FAN_IN - 1) * (tier(bytes) + 1)
}

fn tier(bytes: u64) -> usize {
    (bytes / TIER_BYTES_MIN).checked_ilog(FAN_IN as u64).unwrap_or(0) as usize
}

/// Enough runs of one tier; of the lowest such tier, whose merge is the cheapest.
fn by_tier(runs: &[Run]) -> Option<Job> {
    let mut end = runs.len();
    let mut of_tier = 0;
    for position in (0..=runs.len()).rev() {
        let next = position.checked_sub(1).map(|run| tier(runs[run].bytes));
        if next.is_none_or(|next| next > of_tier) {
            if end - position >= FAN_IN {
                return Some(job(&runs[position..end]));
            }
            end = position;
            of_tier = next?;
        }
    }
    None
}

/// The runs that end at or below the cutoff become one, where that is worth rewriting the oldest.
fn below_cutoff(runs: &[Run], retained: &Retained) -> Option<Job> {
    let count = runs.iter().take_while(|run| run.to <= retained.cutoff_lsn()).count();
    let (oldest, others) = runs[..count].split_first()?;
    let bytes: u64 = others.iter().map(|run| run.bytes).sum();
    let is_worth_it = !others.is_empty() && bytes * FAN_IN as u64 >= oldest.bytes;
    is_worth_it.then(|| job(&runs[..count]))
}

/// A run of which half became history that nobody reads, or of whose kept points most are given up:
/// where many branches begin, not every one that ends has a whole run rewritten.
fn stale(runs: &[Run], retained: &Retained) -> Option<Job> {
    let cutoff = retained.cutoff_lsn();
    let is_stale = |run: &&Run| {
        let (from, to) = (run.from.max(run.folded_to), run.to.min(cutoff));
        let is_half = to > from && (to.0 - from.0) * 2 >= run.to.0 - run.from.0;
        let points = retained.points_in(run.from, run.to.min(run.folded_to));
        is_half || points < run.kept_points.div_ceil(2)
    };
    runs.iter().find(is_stale).map(|run| run.layers.clone())
}

fn job(runs: &[Run]) -> Job {
    let runs = &runs[..runs.len().min(MERGED_RUNS_MAX)];
    let start = runs.first().map_or(0, |run| run.layers.start);
    start..runs.last().map_or(start, |run| run.layers.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(position: usize, from: u64, to: u64, bytes: u64) -> Run {
        Run {
            layers: position..position + 1,
            from: Lsn(from),
            to: Lsn(to),
            bytes,
            folded_to: Lsn::INVALID,
            kept_points: 0,
        }
    }

    fn of_bytes(bytes: &[u64]) -> Vec<Run> {
        let run = |(at, bytes): (usize, &u64)| run(at, at as u64 * 10, at as u64 * 10 + 10, *bytes);
        bytes.iter().enumerate().map(run).collect()
    }

    fn up_to(cutoff: u64, points: &[u64]) -> Retained {
        Retained::at(Lsn(cutoff), points.iter().copied().map(Lsn))
    }

    /// Merges as planned, until nothing is due; what was written for it.
    fn settle(runs: &mut Vec<Run>, retained: &Retained) -> u64 {
        let mut written = 0;
        for _ in 0..10_000 {
            let Some(job) = plan(runs, retained) else { return written };
            let merged = &runs[job.clone()];
            let (from, to) = (merged[0].from, merged[merged.len() - 1].to);
            let bytes = merged.iter().map(|run| run.bytes).sum();
            written += bytes;
            let folded_to = retained.cutoff_lsn();
            let kept_points = retained.points_in(from, to.min(folded_to));
            runs.splice(job, [Run { layers: 0..0, from, to, bytes, folded_to, kept_points }]);
            for (position, run) in runs.iter_mut().enumerate() {
                run.layers = position..position + 1;
            }
        }
        panic!("merging does not come to an end: {runs:?}");
    }

    #[test]
    fn layers_of_one_range_of_lsns_are_one_run() {
        let summary = |from, to, bytes| LayerSummary {
            bytes,
            ..LayerSummary::of_nothing(Lsn(from), Lsn(to))
        };
        let layers = [summary(0, 10, 5), summary(0, 10, 6), summary(10, 20, 7)];
        let runs = runs(&layers);
        let found: Vec<_> = runs.iter().map(|run| (run.layers.clone(), run.bytes)).collect();
        assert_eq!(found, [(0..2, 11), (2..3, 7)]);
    }

    #[test]
    fn four_runs_of_a_size_become_one_and_three_do_not() {
        let none = Retained::default();
        let size = TIER_BYTES_MIN * 4;
        assert_eq!(plan(&of_bytes(&[size; 3]), &none), None);
        assert_eq!(plan(&of_bytes(&[size; 4]), &none), Some(0..4));
        assert_eq!(plan(&of_bytes(&[size * 16, size, size, size]), &none), None);
        assert_eq!(plan(&of_bytes(&[size * 16, size, size, size, size]), &none), Some(1..5));
    }

    #[test]
    fn a_small_run_between_large_ones_is_not_left_behind() {
        let size = TIER_BYTES_MIN * 4;
        let runs = of_bytes(&[size, 1, size, 1, 1, size]);
        assert_eq!(plan(&runs, &Retained::default()), Some(0..6));
    }

    #[test]
    fn what_ends_below_the_cutoff_is_merged_when_it_is_a_quarter_of_the_oldest() {
        let settled = |runs: &mut [Run]| runs.iter_mut().for_each(|run| run.folded_to = run.to);
        let mut runs = of_bytes(&[1 << 20, 1 << 10]);
        settled(&mut runs);
        assert_eq!(plan(&runs, &up_to(20, &[])), None);
        runs[1].bytes = 1 << 18;
        assert_eq!(plan(&runs, &up_to(20, &[])), Some(0..2));
        assert_eq!(plan(&runs, &up_to(19, &[])), None);
    }

    #[test]
    fn a_run_is_rewritten_when_half_of_it_fell_below_the_cutoff_or_most_points_were_given_up() {
        let mut runs = vec![run(0, 0, 100, 1 << 20)];
        assert_eq!(plan(&runs, &up_to(49, &[])), None);
        assert_eq!(plan(&runs, &up_to(50, &[])), Some(0..1));
        (runs[0].folded_to, runs[0].kept_points) = (Lsn(50), 1);
        assert_eq!(plan(&runs, &up_to(99, &[30])), None);
        assert_eq!(plan(&runs, &up_to(100, &[30])), Some(0..1));
        assert_eq!(plan(&runs, &up_to(50, &[])), Some(0..1));
        runs[0].kept_points = 4;
        assert_eq!(plan(&runs, &up_to(50, &[20, 30])), None);
        assert_eq!(plan(&runs, &up_to(50, &[30])), Some(0..1));
    }

    proptest! {
        #[test]
        fn the_number_of_runs_is_bounded_after_every_flush_and_merging_is_paid_for(
            flushes in prop::collection::vec((1..200_000_u64, any::<bool>()), 1..300)
        ) {
            let mut runs = Vec::new();
            let (mut flushed, mut merged, mut lsn) = (0, 0, 0);
            let none = Retained::default();
            for (bytes, is_large) in flushes {
                let bytes = if is_large { bytes * 8 } else { bytes };
                runs.push(run(runs.len(), lsn, lsn + 10, bytes));
                lsn += 10;
                flushed += bytes;
                merged += settle(&mut runs, &none);
                prop_assert!(runs.len() <= runs_max(flushed), "{runs:?}");
                prop_assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), flushed);
                prop_assert!(runs.windows(2).all(|pair| pair[0].to == pair[1].from));
            }
            // Each byte is written at most FAN_IN times in each tier that it passes through; what is
            // smaller than all tiers costs at most the lowest at each flush.
            let (tiers, fan_in) = (tier(flushed) as u64 + 1, FAN_IN as u64);
            let smallest = lsn / 10 * TIER_BYTES_MIN * fan_in;
            prop_assert!(merged <= flushed * fan_in * tiers + smallest, "{merged} of {flushed}");
        }

        #[test]
        fn merging_comes_to_an_end_wherever_the_cutoff_goes(
            steps in prop::collection::vec((1..200_000_u64, 0..40_u64, any::<bool>()), 1..120)
        ) {
            let (mut runs, mut lsn, mut cutoff) = (Vec::new(), 0, 0);
            let mut points = Vec::new();
            for (bytes, behind, keeps) in steps {
                runs.push(run(runs.len(), lsn, lsn + 10, bytes));
                lsn += 10;
                if keeps {
                    points.push(cutoff);
                } else {
                    points.pop();
                }
                cutoff = cutoff.max(lsn - behind.min(lsn));
                let retained = up_to(cutoff, &points);
                settle(&mut runs, &retained);
                let bytes = runs.iter().map(|run| run.bytes).sum();
                prop_assert!(runs.len() <= runs_max(bytes), "{runs:?}");
            }
        }
    }
}
