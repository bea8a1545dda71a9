//! The files of the compute: what Postgres wrote, over what the pageserver has.
//!
//! A file is a sparse local file, a map of the 4 KiB units that are present in it, and an origin:
//! the pages of a relation at the pageserver that stand behind the units which are not present. The
//! kernel writes in 4 KiB units, half a page, so presence is kept by those. Bytes that were fetched
//! are not stored: the kernel's page cache keeps them, and the pageserver has them still.
//!
//! Invariants:
//! - A unit that is neither present nor below `origin_end` is zeros. `origin_end` never rises: it
//!   starts as the origin's length and falls to the smallest length that the file was ever cut to.
//! - `origin_end <= length`, and `origin_end` is a multiple of [`UNIT_BYTES`].
//! - Present units are never changed by what was fetched, even where they became present while the
//!   fetch was under way: an answer is put together, under the lock, after the fetch.
//! - What is missing from a file only shrinks, so that a fetch never has to be made twice.

mod backing;
mod presence;

use std::{io, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use wal_format::{PAGE_BYTES, RelationFork};

use self::presence::Presence;
use crate::ShimError;

pub use self::backing::Backing;

/// The unit that presence is kept by: the kernel's page.
pub const UNIT_BYTES: u64 = 4096;
const BLOCK_BYTES: u64 = PAGE_BYTES as u64;

/// Where pages come from that are not present.
#[async_trait]
pub trait PageSource: Send + Sync + 'static {
    /// Pages of a fork: `count` times [`PAGE_BYTES`].
    async fn pages(&self, fork: RelationFork, first: u32, count: u32) -> Result<Bytes, ShimError>;
}

/// What stands behind a file at the pageserver. The fork is another than the file's name says where
/// an unlogged relation starts as a copy of its `_init` fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The fork whose pages these are.
    pub fork: RelationFork,
    /// The block that the file begins with.
    pub first_block: u32,
    /// The blocks of the fork that the file holds.
    pub blocks: u32,
}

/// A file of the overlay.
pub struct OverlayFile {
    /// Names the local file.
    id: u64,
    origin: Option<Origin>,
    backing: Arc<Backing>,
    state: RwLock<State>,
}

struct State {
    /// The file's length in bytes.
    length: u64,
    /// Below this, what is not present is the origin's.
    origin_end: u64,
    present: Presence,
}

/// Pages that an answer needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// The fork.
    pub fork: RelationFork,
    /// The first block, in the fork.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The position of the first block in the file.
    offset: u64,
}

/// What reading found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// The bytes: fewer than asked for at the file's end.
    Ready(Bytes),
    /// Pages are needed first.
    Needs(Fetch),
}

/// Whether a change could be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Changing {
    /// It was made.
    Done,
    /// Half of a unit changes, and the other half must be fetched first.
    Needs(Fetch),
}

impl OverlayFile {
    /// A file with this origin and nothing written; empty where there is none.
    pub fn new(id: u64, origin: Option<Origin>, backing: Arc<Backing>) -> OverlayFile {
        let length = origin.map_or(0, |origin| u64::from(origin.blocks) * BLOCK_BYTES);
        let state = State { length, origin_end: length, present: Presence::default() };
        OverlayFile { id, origin, backing, state: RwLock::new(state) }
    }

    /// The file's length in bytes.
    pub fn length(&self) -> u64 {
        self.state.read().length
    }

    /// Bytes that are held locally.
    pub fn local_bytes(&self) -> u64 {
        self.state.read().present.count() * UNIT_BYTES
    }

    /// Reads without the pageserver, where nothing is missing.
    pub fn try_read(&self, offset: u64, size: usize) -> io::Result<Reading> {
        let state = self.state.read();
        let range = state.clip(offset, size);
        match self.missing(&state, &range) {
            Some(fetch) => Ok(Reading::Needs(fetch)),
            None => self.compose(&state, range, None).map(Reading::Ready),
        }
    }

    /// Reads, and fetches what is missing in one request.
    pub async fn read(
        &self,
        source: &dyn PageSource,
        offset: u64,
        size: usize,
    ) -> Result<Bytes, ShimError> {
        match self.try_read(offset, size).map_err(self.failed("reading"))? {
            Reading::Ready(bytes) => Ok(bytes),
            Reading::Needs(fetch) => {
                let pages = fetch.pages(source).await?;
                let state = self.state.read();
                let range = state.clip(offset, size);
                self.compose(&state, range, Some((fetch.offset, &pages)))
                    .map_err(self.failed("reading"))
            }
        }
    }

    /// Writes without the pageserver, where no half unit is missing.
    pub fn try_write(&self, offset: u64, data: &[u8]) -> io::Result<Changing> {
        if data.is_empty() {
            return Ok(Changing::Done);
        }
        let mut state = self.state.write();
        let end = offset + data.len() as u64;
        for (edge, last) in [(offset, offset), (end, end - 1)] {
            let unit = last / UNIT_BYTES * UNIT_BYTES;
            if !edge.is_multiple_of(UNIT_BYTES)
                && let Some(fetch) = self.missing(&state, &(unit..unit + UNIT_BYTES))
            {
                return Ok(Changing::Needs(fetch));
            }
        }
        self.backing.write(self.id, offset, data)?;
        state.present.insert(offset / UNIT_BYTES..end.div_ceil(UNIT_BYTES));
        state.length = state.length.max(end);
        state.check();
        Ok(Changing::Done)
    }

    /// Writes, and fetches the missing half of a unit first.
    pub async fn write(
        &self,
        source: &dyn PageSource,
        offset: u64,
        data: &[u8],
    ) -> Result<(), ShimError> {
        // Each round makes one of the two edges present, and nothing takes that back but a cut,
        // which makes it no longer missing.
        while let Changing::Needs(fetch) =
            self.try_write(offset, data).map_err(self.failed("writing"))?
        {
            self.fill(fetch, &fetch.pages(source).await?).map_err(self.failed("writing"))?;
        }
        Ok(())
    }

    /// Sets the file's length without the pageserver, where no unit is cut in half.
    pub fn try_resize(&self, length: u64) -> io::Result<Changing> {
        let mut state = self.state.write();
        let unit = length / UNIT_BYTES * UNIT_BYTES;
        if length != unit
            && let Some(fetch) = self.missing(&state, &(unit..unit + UNIT_BYTES))
        {
            return Ok(Changing::Needs(fetch));
        }
        if length < state.length {
            // The local file first: were it to fail later, cut-off bytes could come back.
            self.backing.cut(self.id, length)?;
            state.present.remove_from(length.div_ceil(UNIT_BYTES));
            state.origin_end = state.origin_end.min(unit);
        }
        state.length = length;
        state.check();
        Ok(Changing::Done)
    }

    /// Sets the file's length, and fetches the rest of a unit that is cut in half first.
    pub async fn resize(&self, source: &dyn PageSource, length: u64) -> Result<(), ShimError> {
        while let Changing::Needs(fetch) =
            self.try_resize(length).map_err(self.failed("truncating"))?
        {
            self.fill(fetch, &fetch.pages(source).await?).map_err(self.failed("truncating"))?;
        }
        Ok(())
    }

    /// Makes fetched units present where they are still missing.
    fn fill(&self, fetch: Fetch, pages: &[u8]) -> io::Result<()> {
        let mut state = self.state.write();
        let first = fetch.offset / UNIT_BYTES;
        for (unit, bytes) in (first..).zip(pages.chunks_exact(UNIT_BYTES as usize)) {
            if state.is_missing(unit) {
                self.backing.write(self.id, unit * UNIT_BYTES, bytes)?;
                state.present.insert(unit..unit + 1);
            }
        }
        Ok(())
    }

    /// The fewest blocks in a row that have all that is missing from a range.
    fn missing(&self, state: &State, range: &Range<u64>) -> Option<Fetch> {
        let origin = self.origin?;
        let end = range.end.min(state.origin_end).div_ceil(UNIT_BYTES);
        let mut units = range.start / UNIT_BYTES..end;
        let first = units.find(|unit| !state.present.contains(*unit))?;
        let last = units.rfind(|unit| !state.present.contains(*unit)).unwrap_or(first);
        let (first, last) = (first * UNIT_BYTES / BLOCK_BYTES, last * UNIT_BYTES / BLOCK_BYTES);
        Some(Fetch {
            fork: origin.fork,
            first: origin.first_block + first as u32,
            count: (last - first + 1) as u32,
            offset: first * BLOCK_BYTES,
        })
    }

    /// Puts a range together from what is present, what was fetched, and zeros.
    fn compose(
        &self,
        state: &State,
        range: Range<u64>,
        fetched: Option<(u64, &Bytes)>,
    ) -> io::Result<Bytes> {
        let units = range.start / UNIT_BYTES..range.end.div_ceil(UNIT_BYTES);
        if let Some((start, pages)) = fetched
            && !range.is_empty()
            && units.clone().all(|unit| state.is_missing(unit))
        {
            let from = (range.start - start) as usize;
            return Ok(pages.slice(from..from + (range.end - range.start) as usize));
        }
        let mut bytes = BytesMut::zeroed((range.end - range.start) as usize);
        let mut unit = units.start;
        while unit < units.end {
            let (present, missing) = (state.present.contains(unit), state.is_missing(unit));
            let mut next = unit + 1;
            while next < units.end
                && state.present.contains(next) == present
                && state.is_missing(next) == missing
            {
                next += 1;
            }
            let run = (unit * UNIT_BYTES).max(range.start)..(next * UNIT_BYTES).min(range.end);
            let into =
                &mut bytes[(run.start - range.start) as usize..(run.end - range.start) as usize];
            if present {
                self.backing.read(self.id, run.start, into)?;
            } else if missing {
                let (start, pages) = fetched.ok_or(io::ErrorKind::UnexpectedEof)?;
                let from = (run.start - start) as usize;
                let pages = pages.get(from..from + into.len());
                into.copy_from_slice(pages.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
            unit = next;
        }
        Ok(bytes.freeze())
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> ShimError {
        ShimError::io(format!("{what} file {} of the overlay", self.id))
    }
}

impl Drop for OverlayFile {
    fn drop(&mut self) {
        self.backing.remove(self.id);
    }
}

impl Fetch {
    /// The pages, from their source.
    pub async fn pages(&self, source: &dyn PageSource) -> Result<Bytes, ShimError> {
        source.pages(self.fork, self.first, self.count).await
    }
}

impl State {
    /// Whether the pageserver has this unit's bytes.
    fn is_missing(&self, unit: u64) -> bool {
        unit * UNIT_BYTES < self.origin_end && !self.present.contains(unit)
    }

    /// The part of a range that the file has.
    fn clip(&self, offset: u64, size: usize) -> Range<u64> {
        let end = (offset.saturating_add(size as u64)).min(self.length);
        offset.min(end)..end
    }

    fn check(&self) {
        assert!(self.origin_end <= self.length, "the origin reaches beyond the file's end");
        assert!(self.origin_end.is_multiple_of(UNIT_BYTES), "the origin ends within a unit");
    }
}

#[cfg(test)]
mod tests;
