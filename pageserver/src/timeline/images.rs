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
    key::Key,
    layer::{
        Clear,
        memory::{KeyVersions, MemoryLayer},
    },
    redo::{Redo, apply_version},
};

/// So many records in a row are followed by a page: decision 0006. Few in tests, whose histories are
/// short.
pub const RECORDS_PER_IMAGE: usize = if cfg!(test) { 4 } else { 512 };
/// Pages that are read at once.
const PAGES_AT_ONCE: usize = 128;

/// Pages as they were before a layer.
pub type Bases = FxHashMap<Key, Option<Bytes>>;

impl Timeline {
    /// The pages that a layer's longest runs of records begin from; `known` are some that were made
    /// with the layer before.
    pub(super) async fn bases(&self, layer: &MemoryLayer, mut known: Bases) -> Bases {
        let mut keys = layer.keys_upon_others(RECORDS_PER_IMAGE);
        keys.sort_unstable();
        let mut bases = Bases::default();
        for key in &keys {
            bases.extend(known.remove_entry(key));
        }
        keys.retain(|key| !bases.contains_key(key));
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

/// What becomes of a key's versions in a layer that is stored.
#[derive(Default)]
pub struct Images {
    /// Which of them, by their number, are stored as the page that they make, and that page.
    pub pages: Vec<(usize, Bytes)>,
    /// The page as it is after the layer, where it was made.
    pub end: Option<Bytes>,
}

/// The images of a key; none where its versions stay as they are.
pub fn images(
    versions: &KeyVersions<'_>,
    clears: &[Clear],
    bases: &Bases,
    redo: &dyn Redo,
) -> Images {
    if versions.records_max() < RECORDS_PER_IMAGE {
        return Images::default();
    }
    make_images(versions, clears, bases, redo).unwrap_or_default()
}

fn make_images(
    versions: &KeyVersions<'_>,
    clears: &[Clear],
    bases: &Bases,
    redo: &dyn Redo,
) -> Option<Images> {
    let key = versions.key();
    let target = key.as_target()?;
    let clears: Vec<Lsn> =
        clears.iter().filter(|clear| clear.range.contains(&key)).map(|clear| clear.lsn).collect();
    let mut clears = clears.into_iter().peekable();
    let mut page = match bases.get(&key) {
        Some(Some(base)) => Page::from_slice(base)?,
        Some(None) => Page::zeroed(),
        None if versions.is_complete() => Page::zeroed(),
        None => return None,
    };
    let (mut records, mut pages) = (0, Vec::new());
    for (number, (lsn, kind, bytes)) in versions.iter().enumerate() {
        while clears.next_if(|clear| *clear <= lsn).is_some() {
            page.zero();
            records = 0;
        }
        apply_version(redo, target, lsn, (kind, bytes), &mut page).ok()?;
        records = kind.records_since_image(records);
        if records >= RECORDS_PER_IMAGE {
            records = 0;
            pages.push((number, Bytes::copy_from_slice(page.bytes())));
        }
    }
    if clears.next().is_some() {
        page.zero();
    }
    Some(Images { pages, end: Some(page.into_bytes()) })
}
