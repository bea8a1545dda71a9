//! What the journal's entries, taken in order, leave of each timeline. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use protocol::TenantTimeline;
use wal_format::Lsn;

use super::entry::{Entry, EntryError, WalEntry};
use super::segment::{Extent, Segment};
use super::state::TimelineState;

/// A timeline as the journal has it.
#[derive(Debug)]
pub struct RecoveredTimeline {
    /// What must survive.
    pub state: TimelineState,
    /// The segment that holds the newest state entry.
    pub state_segment: u64,
    /// Its WAL, contiguous from `local_start` to `flush_lsn`.
    pub extents: VecDeque<Extent>,
}

/// The entries so far.
#[derive(Debug, Default)]
pub struct Replay {
    timelines: HashMap<TenantTimeline, Timeline>,
}

#[derive(Debug, Default)]
struct Timeline {
    /// Absent while only WAL was seen: the state before it was in a segment that is gone, and a newer one follows.
    state: Option<(TimelineState, u64)>,
    extents: VecDeque<Extent>,
}

impl Replay {
    /// Takes the next entry, which lies at `offset` of `segment`.
    pub fn entry(
        &mut self,
        entry: Entry,
        segment: &Arc<Segment>,
        offset: u64,
    ) -> Result<(), EntryError> {
        match entry {
            Entry::Segment { .. } | Entry::Mark { .. } => Ok(()),
            Entry::State(id, state) => {
                self.timelines.entry(id).or_default().state(*state, segment.number)
            }
            Entry::Forget(id) => {
                self.timelines.remove(&id);
                Ok(())
            }
            Entry::Wal(id, wal) => {
                let bytes = wal.wal.len();
                let extent = Extent::new(Arc::clone(segment), offset, wal.begin, bytes);
                self.timelines.entry(id).or_default().wal(&wal, extent)
            }
        }
    }

    /// All timelines, once the last entry was taken.
    pub fn finish(self) -> Result<HashMap<TenantTimeline, RecoveredTimeline>, EntryError> {
        self.timelines
            .into_iter()
            .map(|(id, timeline)| {
                let Some((mut state, state_segment)) = timeline.state else {
                    return Err(EntryError::Senseless(format!("timeline {id} has no state")));
                };
                let mut extents = timeline.extents;
                // An unfinished record is of no use: every proposer begins at a record's end.
                state.acceptor.end_lsn = state.acceptor.flush_lsn;
                cut_end(&mut extents, state.acceptor.flush_lsn);
                Ok((id, RecoveredTimeline { state, state_segment, extents }))
            })
            .collect()
    }
}

impl Timeline {
    fn state(&mut self, state: TimelineState, segment: u64) -> Result<(), EntryError> {
        cut_start(&mut self.extents, state.local_start);
        cut_end(&mut self.extents, state.acceptor.end_lsn);
        let begin = self.extents.front().map_or(state.acceptor.end_lsn, |first| first.begin);
        let end = self.extents.back().map_or(state.acceptor.end_lsn, |last| last.end);
        if begin > state.local_start || end != state.acceptor.end_lsn {
            return Err(EntryError::Senseless(format!(
                "a state with WAL from {} to {}, where there is WAL from {begin} to {end}",
                state.local_start, state.acceptor.end_lsn
            )));
        }
        self.state = Some((state, segment));
        Ok(())
    }

    fn wal(&mut self, wal: &WalEntry, extent: Extent) -> Result<(), EntryError> {
        let known_end = match &self.state {
            Some((state, _)) => Some(state.acceptor.end_lsn),
            None => self.extents.back().map(|last| last.end),
        };
        if known_end.is_some_and(|end| end != wal.begin) || wal.flush_lsn > extent.end {
            return Err(EntryError::Senseless(format!(
                "WAL from {} flushed to {} does not continue the log, which ends at {known_end:?}",
                wal.begin, wal.flush_lsn
            )));
        }
        if let Some((state, _)) = &mut self.state {
            let acceptor = &mut state.acceptor;
            if wal.flush_lsn < acceptor.flush_lsn || wal.commit_lsn > wal.flush_lsn {
                return Err(EntryError::Senseless(format!(
                    "WAL flushed to {} and committed to {} follows a log flushed to {}",
                    wal.flush_lsn, wal.commit_lsn, acceptor.flush_lsn
                )));
            }
            acceptor.flush_lsn = wal.flush_lsn;
            acceptor.commit_lsn = acceptor.commit_lsn.max(wal.commit_lsn);
            acceptor.end_lsn = extent.end;
        }
        self.extents.push_back(extent);
        Ok(())
    }
}

/// Drops what lies wholly before `start`.
pub fn cut_start(extents: &mut VecDeque<Extent>, start: Lsn) {
    while extents.front().is_some_and(|first| first.end <= start) {
        extents.pop_front();
    }
}

/// Drops what lies behind `end`.
pub fn cut_end(extents: &mut VecDeque<Extent>, end: Lsn) {
    while extents.back().is_some_and(|last| last.begin >= end) {
        extents.pop_back();
    }
    if let Some(last) = extents.back_mut() {
        last.end = last.end.min(end);
    }
}
