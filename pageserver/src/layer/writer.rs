//! Builds a layer object in memory, part after part.

use bytes::Bytes;
use wal_format::Lsn;

use super::{
    Clear,
    block::BlockBuilder,
    filter::FilterBuilder,
    format::{
        BLOCK_BYTES, COMPRESSION, Compression, FLUSH_COMPRESSION, FOOTER_BYTES, Footer, IndexRow,
        LayerKind, encode_clears, encode_index, seal,
    },
    memory::{KeyVersions, MemoryLayer, Row},
    name::{LayerName, LayerSummary},
};
use crate::{
    change::{Value, ValueKind},
    error::Error,
    key::Key,
};

/// A finished layer, not yet stored.
pub struct WrittenLayer {
    /// What the manifest will say of it.
    pub summary: LayerSummary,
    /// The object.
    pub object: Bytes,
}

/// A layer while it is written.
pub struct LayerWriter {
    name: LayerName,
    compression: Compression,
    out: Vec<u8>,
    block: BlockBuilder,
    index: Vec<IndexRow>,
    filter: FilterBuilder,
    versions: Option<(Key, Key)>,
    /// Whether the block has versions of the last key.
    is_begun: bool,
}

impl LayerWriter {
    /// An empty layer of this name.
    pub fn new(name: LayerName) -> LayerWriter {
        LayerWriter::with(name, COMPRESSION, Vec::new())
    }

    /// An empty layer that will be merged soon; `buffer` is empty, and becomes the object's.
    pub fn flushed(name: LayerName, buffer: Vec<u8>) -> LayerWriter {
        LayerWriter::with(name, FLUSH_COMPRESSION, buffer)
    }

    fn with(name: LayerName, compression: Compression, buffer: Vec<u8>) -> LayerWriter {
        LayerWriter {
            name,
            compression,
            out: buffer,
            block: BlockBuilder::new(compression),
            index: Vec::new(),
            filter: FilterBuilder::default(),
            versions: None,
            is_begun: false,
        }
    }

    /// The object's length so far, about: what is not compressed yet counts for a quarter.
    pub fn bytes(&self) -> usize {
        self.out.len() + self.block.bytes() / 4
    }

    /// The last key that was added.
    pub fn last_key(&self) -> Option<Key> {
        self.versions.map(|(_, last)| last)
    }

    /// Adds a version; keys and, within a key, LSNs must rise.
    pub fn add(&mut self, key: Key, lsn: Lsn, value: &Value) -> Result<(), Error> {
        if self.last_key() != Some(key) {
            self.begin_key(key);
        }
        self.add_next(key, lsn, value.as_parts())
    }

    fn begin_key(&mut self, key: Key) {
        self.filter.add(key);
        let first = self.versions.map_or(key, |(first, _)| first);
        self.versions = Some((first, key));
        self.is_begun = false;
    }

    /// Adds the next version of the last key.
    #[inline]
    fn add_next(&mut self, key: Key, lsn: Lsn, value: (ValueKind, &[u8])) -> Result<(), Error> {
        if !self.is_begun {
            self.block.begin_key(key, lsn);
            self.is_begun = true;
        }
        self.block.add_next(lsn, value);
        if self.block.bytes() >= BLOCK_BYTES { self.close_block() } else { Ok(()) }
    }

    /// Closes the object. `None` where nothing at all was added: there is no layer to store.
    pub fn finish(mut self, clears: &[Clear]) -> Result<Option<WrittenLayer>, Error> {
        self.close_block()?;
        if self.versions.is_none() && clears.is_empty() {
            return Ok(None);
        }
        let starts = clears.iter().map(|clear| clear.range.start);
        let ends = clears.iter().map(|clear| clear.range.end);
        let first = self.versions.map(|(first, _)| first).into_iter().chain(starts).min();
        let last = self.versions.map(|(_, last)| last).into_iter().chain(ends).max();

        let clears_part = self.seal(&encode_clears(clears))?;
        let filter_part = self.seal(&self.filter.finish())?;
        let index_part = self.seal(&encode_index(&self.index))?;
        let footer = Footer {
            kind: self.name.kind,
            from: self.name.from,
            to: self.name.to,
            clears: clears_part,
            filter: filter_part,
            index: index_part,
        };
        self.out.extend_from_slice(&footer.encode());
        debug_assert_eq!(self.out.len() as u64, index_part.end() + FOOTER_BYTES as u64);
        let summary = LayerSummary {
            name: self.name,
            bytes: self.out.len() as u64,
            clears_at: clears_part.offset,
            first_key: first.unwrap_or(Key::MAX),
            last_key: last.unwrap_or(Key::MIN),
            last_commit_time: self.versions.and_then(|(_, last)| last_commit_time(last)),
            folded_to: Lsn::INVALID,
            kept_points: 0,
        };
        Ok(Some(WrittenLayer { summary, object: Bytes::from(self.out) }))
    }

    fn close_block(&mut self) -> Result<(), Error> {
        let offset = self.out.len() as u64;
        let row = self.block.finish(offset, &mut self.out).map_err(cannot_compress)?;
        self.index.extend(row);
        self.is_begun = false;
        Ok(())
    }

    fn seal(&mut self, raw: &[u8]) -> Result<super::format::Locator, Error> {
        let offset = self.out.len() as u64;
        seal(raw, self.compression, offset, &mut self.out).map_err(cannot_compress)
    }
}

/// The latest commit's time, where a layer's last key is a piece of history with a commit.
fn last_commit_time(last: Key) -> Option<i64> {
    let (_, latest) = last.as_history()?;
    (latest != i64::MIN).then_some(latest)
}

fn cannot_compress(error: std::io::Error) -> Error {
    Error::Unavailable(format!("a layer cannot be compressed: {error}"))
}

/// Makes the pages that are stored in place of some versions.
pub trait MakePages {
    /// Begins a key.
    fn begin(&mut self, versions: &KeyVersions<'_>);

    /// Takes the key's next version; the page where that is stored instead.
    fn take(&mut self, version: &Row<'_>) -> Option<&[u8]>;

    /// The key has no more.
    fn end(&mut self, key: Key);
}

/// The delta layer of everything in a frozen layer, up to `to`; of some versions `pages` makes the page.
/// `buffer` is empty, and becomes the object's.
pub fn write_delta(
    layer: &MemoryLayer,
    to: Lsn,
    nonce: u64,
    buffer: Vec<u8>,
    pages: &mut impl MakePages,
) -> Result<WrittenLayer, Error> {
    let name = LayerName { kind: LayerKind::Delta, from: layer.from(), to, nonce };
    let mut writer = LayerWriter::flushed(name, buffer);
    for versions in layer.sorted().keys() {
        let key = versions.key();
        writer.begin_key(key);
        pages.begin(&versions);
        versions.try_for_each(|row| {
            let page = pages.take(&row).map(|page| (ValueKind::Image, page));
            writer.add_next(key, row.lsn, page.unwrap_or((row.kind, row.bytes)))
        })?;
        pages.end(key);
    }
    for (key, lsn, value) in layer.history().pieces() {
        writer.add(key, lsn, &value)?;
    }
    let written = writer.finish(layer.clears())?;
    written.ok_or_else(|| Error::Invalid("an empty layer is not written".to_owned()))
}
