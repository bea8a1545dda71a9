//! Bounds how many records a read has to redo: where many records change one page, some of them
//! are stored as the page that they make.
//!
//! This happens when a frozen layer is written, and each record is redone at most once for it. A
//! page that cannot be made keeps its records: a read will say what is wrong with them.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use wal_format::{Lsn, Page};

use super::Timeline;
use crate::{
    change::Value,
    key::Key,
    layer::{
        Clear,
        memory::{MemoryLayer, VERSIONS_AHEAD, Versions, look_at},
    },
    redo::{Redo, apply_version},
};

/// So many records in a row are followed by a page: decision 0006. Few in tests, whose histories are
/// short.
pub const RECORDS_PER_IMAGE: usize = if cfg!(test) { 4 } else { 256 };
/// Pages that are read at once.
const PAGES_AT_ONCE: usize = 128;

/// Pages as they were before a layer.
pub type Bases = FxHashMap<Key, Option<Bytes>>;

impl Timeline {
    /// The pages that a layer's longest runs of records begin from.
    pub(super) async fn bases(&self, layer: &MemoryLayer) -> Bases {
        let mut keys = layer.keys_with(|versions| needs_images(versions) && needs_base(versions));
        keys.sort_unstable();
        let mut bases = Bases::default();
        for keys in keys.chunks(PAGES_AT_ONCE) {
            let chains = match self.collect(keys, layer.from()).await {
                Ok(chains) => chains,
                Err(error) => {
                    tracing::debug!(timeline = %self.id(), %error, "pages are left as records");
                    continue;
                }
            };
            for (key, chain) in keys.iter().zip(chains) {
                if let Ok(base) = chain.value(*key, self.engine.redo.as_ref()) {
                    bases.insert(*key, base);
                }
            }
        }
        bases
    }
}

/// The versions of a key in a layer, some of them as images; `None` where they stay as they are.
pub fn with_images(
    key: Key,
    versions: &Versions,
    clears: &[Clear],
    bases: &Bases,
    redo: &dyn Redo,
) -> Option<Versions> {
    let target = key.as_target().filter(|_| needs_images(versions))?;
    let cleared = |after: Lsn, until: Lsn| {
        let clear_in = |clear: &Clear| after < clear.lsn && clear.lsn <= until;
        clears.iter().any(|clear| clear_in(clear) && clear.range.contains(&key))
    };
    let mut page = match bases.get(&key) {
        Some(Some(base)) => Page::from_slice(base)?,
        Some(None) => Page::zeroed(),
        None if needs_base(versions) => return None,
        None => Page::zeroed(),
    };
    let (mut records, mut before) = (0, Lsn::INVALID);
    let mut made = Versions::with_capacity(versions.len());
    for (at, (lsn, value)) in versions.iter().enumerate() {
        if at % VERSIONS_AHEAD == 0 {
            look_at(&versions[at..versions.len().min(at + VERSIONS_AHEAD)]);
        }
        if cleared(before, *lsn) {
            page.zero();
            records = 0;
        }
        before = *lsn;
        apply_version(redo, target, *lsn, value, &mut page).ok()?;
        records = records_since(records, value);
        let value = if records < RECORDS_PER_IMAGE {
            value.clone()
        } else {
            records = 0;
            Value::Image(Bytes::copy_from_slice(page.bytes()))
        };
        made.push((*lsn, value));
    }
    Some(made)
}

fn needs_base(versions: &[(Lsn, Value)]) -> bool {
    versions.first().is_some_and(|(_, value)| !value.is_complete())
}

/// Whether there is a run of records as long as [`RECORDS_PER_IMAGE`].
fn needs_images(versions: &[(Lsn, Value)]) -> bool {
    if versions.len() < RECORDS_PER_IMAGE {
        return false;
    }
    let mut records = 0;
    versions.iter().any(|(_, value)| {
        records = records_since(records, value);
        records >= RECORDS_PER_IMAGE
    })
}

/// How many records a page is made from after this version, where it was so many before.
fn records_since(before: usize, value: &Value) -> usize {
    match value {
        Value::Image(_) => 0,
        Value::Record { will_init: true, .. } => 1,
        Value::Record { .. } => before + 1,
    }
}
