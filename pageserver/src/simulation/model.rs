//! What the engine must be equal to: all changes of all timelines, applied one after the other
//! whenever somebody asks.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use protocol::{BranchPoint, TenantTimeline};
use wal_format::{Lsn, Page, Target};

use crate::{
    change::{Change, Value},
    key::Key,
    redo::Redo,
};

/// A redo whose results depend on every record's bytes and on their order.
#[derive(Default)]
pub struct ModelRedo {
    /// How often it was asked.
    pub applied: AtomicUsize,
}

impl Redo for ModelRedo {
    fn apply(&self, record: &[u8], end: Lsn, _: Target, page: &mut Page) -> Result<(), String> {
        self.applied.fetch_add(1, Ordering::Relaxed);
        if record.starts_with(b"bad") {
            return Err("the record is bad".to_owned());
        }
        let first = record.first().copied().map_or(0, usize::from);
        for (at, byte) in record.iter().enumerate() {
            let cell = &mut page.bytes_mut()[64 + (first * 7 + at) % 256];
            *cell = cell.wrapping_mul(31).wrapping_add(*byte).wrapping_add(1);
        }
        page.set_lsn(end);
        Ok(())
    }
}

/// A timeline's changes, and where it came from.
struct ModelTimeline {
    ancestor: Option<(TenantTimeline, Lsn)>,
    origin: BranchPoint,
    changes: Vec<Change>,
}

/// All timelines.
#[derive(Default)]
pub struct Model {
    timelines: HashMap<TenantTimeline, ModelTimeline>,
}

impl Model {
    /// A timeline that begins as its ancestor was at `origin`.
    pub fn add(
        &mut self,
        id: TenantTimeline,
        ancestor: Option<TenantTimeline>,
        origin: BranchPoint,
    ) {
        let ancestor = ancestor.map(|ancestor| (ancestor, origin.lsn));
        self.timelines.insert(id, ModelTimeline { ancestor, origin, changes: Vec::new() });
    }

    /// Learns a timeline without an ancestor from another model.
    pub fn copy(&mut self, other: &Model, id: TenantTimeline) {
        let ModelTimeline { ancestor, origin, changes } = other.timeline(id);
        let copy = ModelTimeline { ancestor: *ancestor, origin: *origin, changes: changes.clone() };
        self.timelines.insert(id, copy);
    }

    pub fn remove(&mut self, id: TenantTimeline) {
        self.timelines.remove(&id);
    }

    pub fn knows(&self, id: TenantTimeline) -> bool {
        self.timelines.contains_key(&id)
    }

    pub fn apply(&mut self, id: TenantTimeline, change: Change) {
        self.timeline_mut(id).changes.push(change);
    }

    /// The last record's end and start.
    pub fn end(&self, id: TenantTimeline) -> BranchPoint {
        let timeline = self.timeline(id);
        timeline.changes.last().map_or(timeline.origin, point_of)
    }

    /// Where a timeline came from, and as of which LSN.
    pub fn ancestor(&self, id: TenantTimeline) -> Option<(TenantTimeline, Lsn)> {
        self.timeline(id).ancestor
    }

    /// Where a timeline begins.
    pub fn origin(&self, id: TenantTimeline) -> Lsn {
        self.timeline(id).origin.lsn
    }

    /// The changes after `lsn`, as WAL would bring them again; none where the model does not know
    /// the timeline.
    pub fn changes_after(&self, id: TenantTimeline, lsn: Lsn) -> Vec<Change> {
        let changes = self.timelines.get(&id).into_iter().flat_map(|timeline| &timeline.changes);
        changes.filter(|change| change.end > lsn).cloned().collect()
    }

    /// All keys' values.
    pub fn state(&self, id: TenantTimeline, at: Lsn) -> BTreeMap<Key, Bytes> {
        let mut state = BTreeMap::new();
        for change in self.line(id).into_iter().filter(|change| change.end <= at) {
            state.retain(|key, _| !change.clears.iter().any(|clear| clear.contains(key)));
            for (key, value) in &change.puts {
                let next = match value {
                    Value::Image(bytes) => bytes.clone(),
                    Value::Record { will_init, bytes } => {
                        let before = state.get(key).filter(|_| !will_init);
                        redo(*key, before, bytes, change.end)
                    }
                };
                state.insert(*key, next);
            }
        }
        state
    }

    /// The values of a range.
    pub fn range(&self, id: TenantTimeline, range: Range<Key>, at: Lsn) -> Vec<(Key, Bytes)> {
        let state = self.state(id, at);
        state.into_iter().filter(|(key, _)| range.contains(key)).collect()
    }

    /// Record ends of the tenant's own history, from its beginning.
    pub fn points(&self, id: TenantTimeline) -> Vec<BranchPoint> {
        let mut points = vec![self.tenant_origin(id)];
        points.extend(self.tenant_line(id).into_iter().map(point_of));
        points
    }

    /// The state before the first commit later than `time`.
    pub fn point_at_time(&self, id: TenantTimeline, time: i64) -> BranchPoint {
        let mut before = self.tenant_origin(id);
        for change in self.tenant_line(id) {
            if change.finished.is_some_and(|finished| finished > time) {
                return before;
            }
            before = point_of(change);
        }
        // The timeline's own origin has the start of its last record too.
        if before.lsn == self.timeline(id).origin.lsn { self.end(id) } else { before }
    }

    /// The changes that make a timeline, its ancestors' first.
    fn line(&self, id: TenantTimeline) -> Vec<&Change> {
        let timeline = self.timeline(id);
        let mut line = match timeline.ancestor {
            Some((ancestor, lsn)) => {
                let mut line = self.line(ancestor);
                line.retain(|change| change.end <= lsn);
                line
            }
            None => Vec::new(),
        };
        line.extend(&timeline.changes);
        line
    }

    fn tenant_line(&self, id: TenantTimeline) -> Vec<&Change> {
        let oldest = self.tenant_origin(id).lsn;
        self.line(id).into_iter().filter(|change| change.end > oldest).collect()
    }

    fn tenant_origin(&self, id: TenantTimeline) -> BranchPoint {
        let timeline = self.timeline(id);
        match timeline.ancestor {
            Some((ancestor, _)) if ancestor.tenant == id.tenant => self.tenant_origin(ancestor),
            _ => timeline.origin,
        }
    }

    fn timeline(&self, id: TenantTimeline) -> &ModelTimeline {
        self.timelines.get(&id).expect("the model knows every timeline that a test names")
    }

    fn timeline_mut(&mut self, id: TenantTimeline) -> &mut ModelTimeline {
        self.timelines.get_mut(&id).expect("the model knows every timeline that a test names")
    }
}

fn point_of(change: &Change) -> BranchPoint {
    BranchPoint { lsn: change.end, last_record: change.start }
}

fn redo(key: Key, before: Option<&Bytes>, record: &Bytes, end: Lsn) -> Bytes {
    let mut page = match before {
        Some(bytes) => Page::from_slice(bytes).expect("the model's images are pages"),
        None => Page::zeroed(),
    };
    let target = key.as_target().expect("records change pages");
    ModelRedo::default()
        .apply(record, end, target, &mut page)
        .expect("the model's records are good");
    page.into_bytes()
}
