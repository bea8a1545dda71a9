//! What each timeline takes and gives, kept where it changes: it is read for all tenants at once,
//! and no timeline is loaded for it.

use std::{
    collections::BTreeMap,
    ops::{Add, RangeInclusive},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use protocol::TenantTimeline;
use serde::{Deserialize, Serialize};
use wal_format::{Lsn, PAGE_BYTES};

use crate::{layer::name::LayerName, manifest::TimelineManifest};

/// Bytes of all forks of all relations, as of an LSN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogicalSize {
    /// As of when.
    pub lsn: Lsn,
    /// How many.
    pub bytes: u64,
}

/// Bytes of a fork, of which this is the stored size: its blocks, as four bytes.
pub fn fork_bytes(size: &[u8]) -> u64 {
    let blocks = size.first_chunk().map_or(0, |blocks| u32::from_le_bytes(*blocks));
    u64::from(blocks) * PAGE_BYTES as u64
}

/// What computes were given of a timeline, since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Given {
    /// Pages.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pages_read: u64,
    /// Bytes of pages and of base backups.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_sent: u64,
}

impl Given {
    fn max(self, other: Given) -> Given {
        Given {
            pages_read: self.pages_read.max(other.pages_read),
            bytes_sent: self.bytes_sent.max(other.bytes_sent),
        }
    }
}

/// Counts what computes are given.
#[derive(Default)]
pub struct GivenCounter {
    pages_read: AtomicU64,
    bytes_sent: AtomicU64,
}

impl GivenCounter {
    /// Goes on from there.
    pub fn from(given: Given) -> GivenCounter {
        let counter = GivenCounter::default();
        counter.add(given);
        counter
    }

    /// More was given.
    pub fn add(&self, more: Given) {
        self.pages_read.fetch_add(more.pages_read, Ordering::Relaxed);
        self.bytes_sent.fetch_add(more.bytes_sent, Ordering::Relaxed);
    }

    /// All that was given.
    pub fn get(&self) -> Given {
        Given {
            pages_read: self.pages_read.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
        }
    }
}

/// What a timeline has used since it began; of a tenant's deleted branches, all of them together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Bytes of WAL from where it begins to its last record.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wal_written_bytes: u64,
    /// What computes were given.
    #[serde(flatten)]
    pub given: Given,
}

impl Spent {
    /// Whether nothing was used.
    pub fn is_nothing(&self) -> bool {
        *self == Spent::default()
    }
}

impl Add for Spent {
    type Output = Spent;

    fn add(self, other: Spent) -> Spent {
        Spent {
            wal_written_bytes: self.wal_written_bytes + other.wal_written_bytes,
            given: Given {
                pages_read: self.given.pages_read + other.given.pages_read,
                bytes_sent: self.given.bytes_sent + other.given.bytes_sent,
            },
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What the newest manifest of a timeline says, as far as it is metered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meter {
    /// The last record that is in layers; `None`: the timeline has written none.
    pub last_record_lsn: Option<Lsn>,
    /// The size that was last measured.
    pub logical_size: Option<LogicalSize>,
    /// What computes were given.
    pub given: Given,
    layers: Arc<[(LayerName, u64)]>,
}

impl Meter {
    /// What this manifest says.
    pub fn of(manifest: &TimelineManifest) -> Meter {
        Meter {
            last_record_lsn: Some(manifest.last_record.lsn),
            logical_size: manifest.logical_size,
            given: manifest.given,
            layers: manifest.layers.iter().map(|layer| (layer.name, layer.bytes)).collect(),
        }
    }

    /// Bytes of the timeline's layers.
    pub fn stored_bytes(&self) -> u64 {
        self.layers.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of the layers of which a branch made at `lsn` reads something.
    pub fn bytes_read_at(&self, lsn: Lsn) -> u64 {
        let read = self.layers.iter().filter(|(name, _)| name.holds_versions_at(lsn));
        read.map(|(_, bytes)| bytes).sum()
    }
}

/// The meters of all timelines that were met.
#[derive(Default)]
pub struct Meters(Mutex<BTreeMap<TenantTimeline, Meter>>);

impl Meters {
    /// Takes note of a timeline's newest manifest. What was counted and is in no manifest yet stays
    /// counted.
    pub fn note(&self, id: TenantTimeline, newest: Meter) {
        let mut meters = self.0.lock();
        let known = meters.get(&id).map(|known| known.given).unwrap_or_default();
        let given = known.max(newest.given);
        meters.insert(id, Meter { given, ..newest });
    }

    /// Takes note of what was given of a timeline, all since it began.
    pub fn note_given(&self, id: TenantTimeline, given: Given) {
        let mut meters = self.0.lock();
        let meter = meters.entry(id).or_default();
        meter.given = meter.given.max(given);
    }

    /// Takes note of the size of a timeline of which no manifest says it.
    pub fn note_size(&self, id: TenantTimeline, size: LogicalSize) {
        self.0.lock().entry(id).or_default().logical_size.get_or_insert(size);
    }

    /// Takes note of the size that a timeline has now, of which more is known: no manifest may say it
    /// yet.
    pub fn note_measured(&self, id: TenantTimeline, size: LogicalSize) {
        if let Some(meter) = self.0.lock().get_mut(&id) {
            meter.logical_size = Some(size);
        }
    }

    /// Whether anything is known of a timeline.
    pub fn has(&self, id: TenantTimeline) -> bool {
        self.0.lock().contains_key(&id)
    }

    /// Takes note of a meter that was read, unless a newer one is known by now; what is known then.
    pub fn note_read(&self, id: TenantTimeline, read: Meter) -> Meter {
        self.0.lock().entry(id).or_insert(read).clone()
    }

    /// What is known of a timeline.
    pub fn get(&self, id: TenantTimeline) -> Option<Meter> {
        self.0.lock().get(&id).cloned()
    }

    /// Forgets these timelines.
    pub fn forget(&self, gone: RangeInclusive<TenantTimeline>) {
        self.0.lock().extract_if(gone, |_, _| true).for_each(drop);
    }
}

/// What a branch takes and gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Usage {
    /// Bytes of all its relations when they were last measured: at the last layer that was written,
    /// or, where it has written none, at its branch point.
    pub logical_size_bytes: u64,
    /// Bytes of its own layers in the object store: `unique_bytes` and `shared_bytes`.
    pub stored_bytes: u64,
    /// Of those, what no branch made from it reads.
    pub unique_bytes: u64,
    /// Of those, what branches made from it read as well.
    pub shared_bytes: u64,
    /// Bytes of layers of others that it reads: of the branches and the template it came from.
    pub inherited_bytes: u64,
    /// Bytes of WAL from where it begins to its last record.
    pub wal_written_bytes: u64,
    /// Pages that computes have read.
    pub pages_read: u64,
    /// Bytes of pages and of base backups that computes were sent.
    pub bytes_sent: u64,
}

impl From<Spent> for Usage {
    fn from(spent: Spent) -> Usage {
        Usage {
            wal_written_bytes: spent.wal_written_bytes,
            pages_read: spent.given.pages_read,
            bytes_sent: spent.given.bytes_sent,
            ..Usage::default()
        }
    }
}

impl Add for Usage {
    type Output = Usage;

    fn add(self, other: Usage) -> Usage {
        Usage {
            logical_size_bytes: self.logical_size_bytes + other.logical_size_bytes,
            stored_bytes: self.stored_bytes + other.stored_bytes,
            unique_bytes: self.unique_bytes + other.unique_bytes,
            shared_bytes: self.shared_bytes + other.shared_bytes,
            inherited_bytes: self.inherited_bytes + other.inherited_bytes,
            wal_written_bytes: self.wal_written_bytes + other.wal_written_bytes,
            pages_read: self.pages_read + other.pages_read,
            bytes_sent: self.bytes_sent + other.bytes_sent,
        }
    }
}
