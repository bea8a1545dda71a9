//! Bounds how many records a read has to redo: where many records change one page, some of them
//! are stored as the page that they make.
//!
//! This happens when a frozen layer is written, and each record is redone at most once for it. A
//! page that cannot be made keeps its records from there on: a read will say what is wrong with them.

use std::{iter::Peekable, vec};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use wal_format::{Lsn, Page, Target};

use super::Timeline;
use crate::{
    key::Key,
    layer::{
        Clear,
        memory::{KeyVersions, MemoryLayer, Row},
        writer::MakePages,
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

/// Makes the pages of one layer.
pub struct PageMaker<'l> {
    clears: &'l [Clear],
    bases: &'l Bases,
    redo: &'l dyn Redo,
    /// Of the key that was begun; `None` where its versions stay as they are.
    run: Option<Run>,
    ends: Bases,
}

/// The page of a key while its versions come.
struct Run {
    target: Target,
    page: Box<Page>,
    /// In a row until now.
    records: usize,
    /// When the page is emptied.
    clears: Peekable<vec::IntoIter<Lsn>>,
}

impl<'l> PageMaker<'l> {
    /// For a layer with these clears, whose longest runs of records begin from these pages.
    pub fn new(clears: &'l [Clear], bases: &'l Bases, redo: &'l dyn Redo) -> PageMaker<'l> {
        PageMaker { clears, bases, redo, run: None, ends: Bases::default() }
    }

    /// The pages that were made, as they are after the layer.
    pub fn into_ends(self) -> Bases {
        self.ends
    }

    fn begin_run(&self, versions: &KeyVersions<'_>) -> Option<Run> {
        if versions.records_max() < RECORDS_PER_IMAGE {
            return None;
        }
        let key = versions.key();
        let target = key.as_target()?;
        let page = match self.bases.get(&key) {
            Some(Some(base)) => Page::from_slice(base)?,
            Some(None) => Page::zeroed(),
            None if versions.is_complete() => Page::zeroed(),
            None => return None,
        };
        let clears = self.clears.iter().filter(|clear| clear.range.contains(&key));
        let clears: Vec<Lsn> = clears.map(|clear| clear.lsn).collect();
        Some(Run { target, page, records: 0, clears: clears.into_iter().peekable() })
    }
}

impl MakePages for PageMaker<'_> {
    fn begin(&mut self, versions: &KeyVersions<'_>) {
        self.run = self.begin_run(versions);
    }

    #[inline]
    fn take(&mut self, version: &Row<'_>) -> Option<&[u8]> {
        let Some(is_stored) = self.run.as_mut()?.take(version, self.redo) else {
            self.run = None;
            return None;
        };
        let page = &self.run.as_ref()?.page;
        is_stored.then(|| &page.bytes()[..])
    }

    fn end(&mut self, key: Key) {
        let Some(mut run) = self.run.take() else { return };
        if run.clears.next().is_some() {
            run.page.zero();
        }
        self.ends.insert(key, Some(run.page.into_bytes()));
    }
}

impl Run {
    /// Whether the page is stored in place of this version; `None` where it cannot be made.
    fn take(&mut self, version: &Row<'_>, redo: &dyn Redo) -> Option<bool> {
        let Row { lsn, kind, bytes } = *version;
        while self.clears.next_if(|clear| *clear <= lsn).is_some() {
            self.page.zero();
            self.records = 0;
        }
        apply_version(redo, self.target, lsn, (kind, bytes), &mut self.page).ok()?;
        self.records = kind.records_since_image(self.records);
        let is_stored = self.records >= RECORDS_PER_IMAGE;
        if is_stored {
            self.records = 0;
        }
        Some(is_stored)
    }
}
