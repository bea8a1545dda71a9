//! What a merge keeps of one key: its versions go in by rising LSN, and what is stored comes out.
//!
//! - Versions that no kept LSN sees go: below the cutoff, of all versions that the same reads see,
//!   the newest is enough, and what it is made from.
//! - So many records in a row are followed by a page, as in a layer that is flushed: a read redoes
//!   fewer than [`RECORDS_PER_IMAGE`] records of a run.
//! - A page that cannot be made keeps its records: a read will say what is wrong with them.

use bytes::Bytes;
use wal_format::{Lsn, PAGE_BYTES, Page, Target};

use crate::{
    change::Value,
    key::Key,
    redo::{Redo, apply_version},
    timeline::{RECORDS_PER_IMAGE, retention::Retained},
};

/// A version, as it is stored.
pub type Version = (Lsn, Value);

/// Gives the page of a key as it was before the merged runs; `None` where it is not to be had.
pub type Base<'b> = &'b mut dyn FnMut(Key) -> Option<Option<Bytes>>;

/// One key's versions on their way from the merged runs into their successor.
pub struct Fold<'f> {
    key: Key,
    retained: &'f Retained,
    redo: &'f dyn Redo,
    /// When the key was emptied, by rising LSN.
    clears: Vec<Lsn>,
    /// Since the last version or clear that needs nothing older.
    chain: Vec<Version>,
    /// Whether the chain begins with what was before the merged runs.
    needs_base: bool,
    /// The page could not be made from the chain.
    is_broken: bool,
    /// Seen by the same reads, and not given out yet; the end of `chain`.
    pending: usize,
    seen_first_by: Option<Lsn>,
}

impl<'f> Fold<'f> {
    /// No version yet. `clears` are the LSNs at which the key was emptied, in order.
    pub fn new(key: Key, clears: Vec<Lsn>, retained: &'f Retained, redo: &'f dyn Redo) -> Fold<'f> {
        Fold {
            key,
            retained,
            redo,
            clears,
            chain: Vec::new(),
            needs_base: true,
            is_broken: false,
            pending: 0,
            seen_first_by: None,
        }
    }

    /// Takes the next version, and gives those that are finished to `out`.
    pub fn push(&mut self, (lsn, value): Version, base: Base<'_>, out: &mut Vec<Version>) {
        let count = self.clears.partition_point(|clear| *clear <= lsn);
        for clear in self.clears.drain(..count).collect::<Vec<_>>() {
            self.clear(clear, base, out);
        }
        self.see(lsn, base, out);
        if value.is_complete() {
            self.begin();
        }
        self.chain.push((lsn, value));
        self.pending += 1;
        if self.records() >= RECORDS_PER_IMAGE {
            self.make_image(base);
        }
        if self.seen_first_by.is_none() || self.is_broken {
            self.give(out);
        }
        if self.is_broken {
            self.chain.clear();
        }
    }

    /// Gives what is left.
    pub fn finish(mut self, base: Base<'_>, out: &mut Vec<Version>) {
        for clear in std::mem::take(&mut self.clears) {
            self.clear(clear, base, out);
        }
        self.close(base, out);
    }

    /// The key was emptied: what the same reads see is hidden, and nothing older is needed.
    fn clear(&mut self, lsn: Lsn, base: Base<'_>, out: &mut Vec<Version>) {
        self.see(lsn, base, out);
        self.begin();
    }

    /// Turns to the reads that see `lsn`; what only earlier ones see is finished.
    fn see(&mut self, lsn: Lsn, base: Base<'_>, out: &mut Vec<Version>) {
        let seen_first_by = self.retained.seen_first_by(lsn);
        if seen_first_by != self.seen_first_by {
            self.close(base, out);
            self.seen_first_by = seen_first_by;
        }
    }

    /// Nothing older matters to what comes now; what waits is hidden by it.
    fn begin(&mut self) {
        self.chain.clear();
        self.pending = 0;
        (self.needs_base, self.is_broken) = (false, false);
    }

    /// All versions that the same reads see are there: the newest is enough, as an image where
    /// that is no larger.
    fn close(&mut self, base: Base<'_>, out: &mut Vec<Version>) {
        let waiting = &self.chain[self.chain.len() - self.pending..];
        let bytes: usize = waiting.iter().map(|(_, value)| value.bytes().len()).sum();
        if waiting.len() > 1 && bytes >= PAGE_BYTES {
            self.make_image(base);
        }
        self.give(out);
    }

    fn give(&mut self, out: &mut Vec<Version>) {
        let start = self.chain.len() - self.pending;
        out.extend_from_slice(&self.chain[start..]);
        self.pending = 0;
    }

    /// The records at the end of the chain, of which the first may initialise the page.
    fn records(&self) -> usize {
        let is_image = |version: Option<&Version>| {
            version.is_some_and(|(_, value)| matches!(value, Value::Image(_)))
        };
        self.chain.len() - usize::from(is_image(self.chain.first()))
    }

    /// Turns the newest version into the page that it makes; what of the chain was not given out
    /// yet is not needed any more.
    fn make_image(&mut self, base: Base<'_>) {
        let target = self.key.as_target().filter(|_| !self.is_broken);
        let page = target.and_then(|target| self.page(target, base));
        match (page, self.chain.last()) {
            (Some(page), Some((lsn, _))) => {
                let image = (*lsn, Value::Image(page));
                // Above the cutoff the versions before it have been given out already.
                self.begin();
                self.chain.push(image);
                self.pending = 1;
            }
            _ => self.is_broken = true,
        }
    }

    fn page(&self, target: Target, base: Base<'_>) -> Option<Bytes> {
        let (_, first) = self.chain.first()?;
        let mut page = Page::zeroed();
        if self.needs_base
            && !first.is_complete()
            && let Some(bytes) = base(self.key)?
        {
            page = Page::from_slice(&bytes)?;
        }
        for (lsn, value) in &self.chain {
            apply_version(self.redo, target, *lsn, value.as_parts(), &mut page).ok()?;
        }
        Some(page.into_bytes())
    }
}

#[cfg(test)]
mod tests;
