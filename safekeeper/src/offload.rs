//! Moves committed WAL into the object store, trims what is there from the journal, and frees the journal's oldest
//! files.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use wal_format::Lsn;

use crate::keeper::Keeper;
use crate::metrics::METRICS;
use crate::timeline::{LogStatus, Timeline};
use crate::wal_object::{self, OBJECT_WAL_BYTES, WalObject};
use crate::{Bounds, Error};

/// As many timelines are offloaded side by side.
const CONCURRENT: usize = 8;
/// Between two rounds over all timelines.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Whether a timeline that holds WAL was deleted is looked for this often.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
/// Less than this is trimmed only when the timeline is quiet: each trim is an entry in the journal.
const TRIM_BYTES_MIN: u64 = 1 << 20;
/// A timeline is quiet when nothing was committed for this long.
const QUIET: Duration = Duration::from_secs(1);
/// Files that the journal always keeps.
const SEGMENTS_MIN: u64 = 2;

/// Runs until the safekeeper is stopped.
pub async fn run(keeper: Arc<Keeper>) {
    let pause = PAUSE_MAX.min(keeper.bounds.offload_idle / 2).max(Duration::from_millis(10));
    loop {
        tokio::time::sleep(pause).await;
        let timelines = keeper.timelines();
        let keeper = &keeper;
        futures::stream::iter(&timelines)
            .for_each_concurrent(CONCURRENT, |timeline| async move {
                if let Err(error) = offload(keeper, timeline).await {
                    METRICS.offload_failures.inc();
                    tracing::warn!(timeline = %timeline.id, %error, "WAL is not offloaded yet");
                }
                trim(keeper, timeline);
            })
            .await;
        free_oldest(keeper, &timelines);
        METRICS.look(keeper);
    }
}

/// What is to be offloaded now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// Objects as large as they may be.
    Whole,
    /// All there is.
    All,
    /// Nothing yet.
    Nothing,
}

/// What is due. `rank` is this safekeeper's place in the timeline's order: the first does the work, the next one
/// only when it was not done.
fn due(log: &LogStatus, bounds: &Bounds, rank: u32, now: Instant) -> Due {
    let waiting = log.readable.since(log.offloaded_lsn);
    if waiting == 0 {
        return Due::Nothing;
    }
    let quiet = now.duration_since(log.risen_at);
    let stagger = bounds.offload_stagger * rank;
    if quiet >= bounds.offload_idle + stagger {
        return Due::All;
    }
    let is_short_of_room = log.local_bytes > bounds.timeline_bytes_max / 2;
    let patience = if is_short_of_room { 0 } else { u64::from(rank) * 2 * OBJECT_WAL_BYTES };
    let has_whole =
        WalObject::covering(log.offloaded_lsn, log.readable).end.0.is_multiple_of(OBJECT_WAL_BYTES);
    if has_whole && waiting > patience { Due::Whole } else { Due::Nothing }
}

async fn offload(keeper: &Keeper, timeline: &Arc<Timeline>) -> Result<(), Error> {
    let log = timeline.log();
    let due = due(&log, &keeper.bounds, rank(keeper, timeline), Instant::now());
    let holds_wal = log.local_bytes > 0 && timeline.is_look_due(LOOK_PAUSE);
    if due == Due::Nothing && !holds_wal {
        return Ok(());
    }
    // A timeline that was deleted must not leave new objects behind, nor keep its WAL in the journal for ever.
    if keeper.is_deleted(timeline.id).await? {
        keeper.forget(timeline);
        return Ok(());
    }
    let store = &*keeper.store;
    // Another member may have been here before; a new owner of this work certainly asks first.
    let known = wal_object::contiguous_end(store, timeline.id, log.offloaded_lsn).await?;
    let mut offloaded = known.min(log.readable);
    timeline.offloaded(offloaded);
    while offloaded < log.readable {
        let object = WalObject::covering(offloaded, log.readable);
        if due == Due::Whole && !object.end.0.is_multiple_of(OBJECT_WAL_BYTES) {
            break;
        }
        let Some(wal) = read(timeline, object).await? else {
            break;
        };
        wal_object::put(store, timeline.id, object, wal).await?;
        offloaded = object.end;
        timeline.offloaded(offloaded);
        trim(keeper, timeline);
    }
    Ok(())
}

/// The object's WAL out of the journal; `None` where the log was cut meanwhile.
async fn read(timeline: &Timeline, object: WalObject) -> Result<Option<Bytes>, Error> {
    let mut wal = BytesMut::with_capacity(object.wal_bytes() as usize);
    let mut position = object.begin;
    while position < object.end {
        let Some(bytes) = timeline.read_local(position, object.end, OBJECT_WAL_BYTES).await? else {
            return Ok(None);
        };
        position += bytes.len() as u64;
        if bytes.len() as u64 == object.wal_bytes() {
            return Ok(Some(bytes));
        }
        wal.extend_from_slice(&bytes);
    }
    Ok(Some(wal.freeze()))
}

/// This safekeeper's place in the order in which the members offload this timeline. It differs from timeline to
/// timeline, so that the work is shared.
fn rank(keeper: &Keeper, timeline: &Timeline) -> u32 {
    let (configuration, _) = timeline.membership();
    let members = configuration.members.len().max(1) as u64;
    let mut hasher = DefaultHasher::new();
    timeline.id.hash(&mut hasher);
    let me = configuration.members.iter().position(|member| *member == keeper.me);
    me.map_or(members as u32, |place| ((place as u64 + hasher.finish() % members) % members) as u32)
}

/// How far the journal's WAL can go: it is in the object store, and in layers too unless room is short.
fn trim_to(log: &LogStatus, bounds: &Bounds) -> Lsn {
    if log.local_bytes > bounds.timeline_bytes_max / 2 {
        log.offloaded_lsn
    } else {
        log.offloaded_lsn.min(log.remote_consistent_lsn)
    }
}

fn trim(keeper: &Keeper, timeline: &Arc<Timeline>) {
    let log = timeline.log();
    let to = trim_to(&log, &keeper.bounds);
    let is_quiet = log.risen_at.elapsed() >= QUIET.min(keeper.bounds.offload_idle);
    if to.since(log.local_start) >= TRIM_BYTES_MIN || (is_quiet && to > log.local_start) {
        timeline.trim(to);
    } else if is_quiet && log.is_commit_unsaved {
        timeline.save_state();
    }
}

/// Frees the journal's oldest files: those that nothing needs go; for the next one, states are written again and,
/// where the disk grows short, offloaded WAL is trimmed.
fn free_oldest(keeper: &Keeper, timelines: &[Arc<Timeline>]) {
    let (oldest, newest) = keeper.journal.segments();
    if newest - oldest < SEGMENTS_MIN {
        return;
    }
    let logs: Vec<_> = timelines.iter().map(|timeline| (timeline, timeline.log())).collect();
    let needed = |log: &LogStatus| log.wal_segment.into_iter().chain(log.state_segment).min();
    let oldest_needed = logs.iter().filter_map(|(_, log)| needed(log)).min().unwrap_or(newest);
    if oldest_needed > oldest {
        keeper.journal.remove_before(oldest_needed);
    }
    let live: u64 = logs.iter().map(|(_, log)| log.local_bytes + log.state_bytes).sum();
    let disk = keeper.journal.disk_bytes();
    let is_short_of_room = disk > keeper.bounds.journal_bytes_max / 2;
    for (timeline, log) in &logs {
        if is_short_of_room && log.wal_segment == Some(oldest_needed) {
            timeline.trim(log.offloaded_lsn);
        }
        // Not before half of the disk is free of live data: otherwise states are copied round and round.
        let is_alone = log.wal_segment.is_none_or(|segment| segment > oldest_needed);
        if disk > 2 * live && is_alone && log.state_segment == Some(oldest_needed) {
            timeline.save_state();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(offloaded: u64, readable: u64, risen_at: Instant) -> LogStatus {
        LogStatus {
            local_start: Lsn(0),
            offloaded_lsn: Lsn(offloaded),
            remote_consistent_lsn: Lsn(0),
            readable: Lsn(readable),
            local_bytes: readable,
            risen_at,
            wal_segment: None,
            state_segment: None,
            state_bytes: 0,
            is_commit_unsaved: false,
        }
    }

    #[test]
    fn the_first_in_the_order_offloads_whole_objects_at_once_and_the_rest_when_idle() {
        let (now, bounds) = (Instant::now(), Bounds::default());
        assert_eq!(due(&log(0, OBJECT_WAL_BYTES + 1, now), &bounds, 0, now), Due::Whole);
        assert_eq!(due(&log(0, OBJECT_WAL_BYTES - 1, now), &bounds, 0, now), Due::Nothing);
        let later = now + bounds.offload_idle;
        assert_eq!(due(&log(0, 100, now), &bounds, 0, later), Due::All);
        assert_eq!(due(&log(100, 100, now), &bounds, 0, later), Due::Nothing);
    }

    #[test]
    fn the_next_in_the_order_leaves_the_first_its_time() {
        let (now, bounds) = (Instant::now(), Bounds::default());
        assert_eq!(due(&log(0, OBJECT_WAL_BYTES + 1, now), &bounds, 1, now), Due::Nothing);
        assert_eq!(due(&log(0, 3 * OBJECT_WAL_BYTES, now), &bounds, 1, now), Due::Whole);
        assert_eq!(due(&log(0, 100, now), &bounds, 1, now + bounds.offload_idle), Due::Nothing);
        let late = now + bounds.offload_idle + bounds.offload_stagger;
        assert_eq!(due(&log(0, 100, now), &bounds, 1, late), Due::All);
    }

    #[test]
    fn wal_that_the_pageserver_needs_is_trimmed_only_when_room_is_short() {
        let bounds = Bounds { timeline_bytes_max: 1000, ..Bounds::default() };
        let mut log = log(400, 450, Instant::now());
        log.remote_consistent_lsn = Lsn(300);
        assert_eq!(trim_to(&log, &bounds), Lsn(300));
        log.local_bytes = 501;
        assert_eq!(trim_to(&log, &bounds), Lsn(400));
    }
}
