//! Work that makes every kind of record that can be made: a stretch of WAL for each sort of cluster that it takes.

mod contrecord;
mod hints;
mod promotion;
mod unlogged_index;
mod workload;

use std::{thread, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{cluster::Cluster, coverage::Coverage, replay::Options, stretch::Stretch};

/// Has servers make all of them.
///
/// # Errors
/// Where a server could not run.
pub fn record(progress: &(dyn Fn(&str) + Sync)) -> Result<Vec<Recorded>> {
    let stretches: [(&str, Make); 5] = [
        ("every access method", access_methods),
        ("checksums and hints", hints::record),
        ("a promotion", promotion::record),
        ("a record that a crash cut", contrecord::record),
        ("an index that is not logged yet", unlogged_index::record),
    ];
    let record = |(name, record): &(&str, Make)| -> Result<Recorded> {
        let started = Instant::now();
        let recorded = record().with_context(|| name.to_string())?;
        progress(&format!("provoked: {name}: {} s", started.elapsed().as_secs()));
        Ok(recorded)
    };
    // The first takes as long as all others.
    let (first, others) = stretches.split_at(1);
    thread::scope(|scope| {
        let others = scope.spawn(|| others.iter().map(record).collect::<Result<Vec<_>>>());
        let mut recorded = first.iter().map(record).collect::<Result<Vec<_>>>()?;
        match others.join() {
            Ok(others) => recorded.extend(others?),
            Err(_) => bail!("a recording panicked"),
        }
        Ok(recorded)
    })
}

/// Replays all of them.
///
/// # Errors
/// Where a record was refused.
pub fn replay(recorded: &[Recorded], options: Options) -> Result<Coverage> {
    let mut all = Coverage::default();
    for recorded in recorded {
        all.add(&recorded.stretch.replay(options)?);
    }
    Ok(all)
}

/// Has a cluster of its own make a stretch.
type Make = fn() -> Result<Recorded>;

/// A stretch, and the cluster in whose folder its WAL is.
pub struct Recorded {
    /// The WAL and what was before and after it.
    pub stretch: Stretch,
    _cluster: Cluster,
}

impl Recorded {
    fn new(
        mut cluster: Cluster,
        work: impl FnOnce(&mut Cluster) -> Result<()>,
    ) -> Result<Recorded> {
        let stretch = Stretch::record(&mut cluster, work)?;
        Ok(Recorded { stretch, _cluster: cluster })
    }
}

/// Every access method, SLRU and kind of state, from the ends of the SLRUs' first segments on.
fn access_methods() -> Result<Recorded> {
    let cluster = Cluster::create(workload::SETTINGS)?;
    cluster.advance_to_segment_ends()?;
    Recorded::new(cluster, |cluster| workload::run(cluster))
}
