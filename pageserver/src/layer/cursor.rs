//! Reads all versions of some layers in order, once, past the cache, a few blocks at a time.

use std::{collections::VecDeque, sync::Arc};

use wal_format::Lsn;

use super::{
    block::Block,
    reader::{Contents, Layer},
};
use crate::{change::Value, error::Error, key::Key};

/// Blocks that are in memory at once: 1 MiB before compression.
const BLOCKS_AHEAD: usize = if cfg!(test) { 2 } else { 32 };

/// Where a reader is in layers that are disjoint in keys and follow each other.
pub struct Cursor {
    layers: VecDeque<Arc<Layer>>,
    contents: Option<Arc<Contents>>,
    next_block: usize,
    blocks: VecDeque<Block>,
    position: usize,
}

impl Cursor {
    /// At the first version; [`Cursor::fill`] comes first.
    pub fn new(layers: impl IntoIterator<Item = Arc<Layer>>) -> Cursor {
        Cursor {
            layers: layers.into_iter().collect(),
            contents: None,
            next_block: 0,
            blocks: VecDeque::new(),
            position: 0,
        }
    }

    /// The next version's key; `None` at the end, or where the cursor is to be filled.
    pub fn key(&self) -> Option<Key> {
        self.blocks.front().map(|block| block.key(self.position))
    }

    /// Whether there is more to read before the next version is known.
    pub fn must_fill(&self) -> bool {
        self.blocks.is_empty() && !self.layers.is_empty()
    }

    /// Takes the next version.
    pub fn take(&mut self) -> Option<(Lsn, Value)> {
        let block = self.blocks.front()?;
        let version = (block.lsn(self.position), block.value(self.position));
        self.position += 1;
        if self.position == block.len() {
            self.blocks.pop_front();
            self.position = 0;
        }
        Some(version)
    }

    /// Reads the next blocks.
    pub async fn fill(&mut self) -> Result<(), Error> {
        while self.must_fill() {
            let Some(layer) = self.layers.front() else { return Ok(()) };
            let contents = match &self.contents {
                Some(contents) => contents.clone(),
                None => layer.contents().await?,
            };
            let end = contents.block_count().min(self.next_block + BLOCKS_AHEAD);
            let blocks = layer.blocks_past_cache(&contents, self.next_block..end).await?;
            self.blocks.extend(blocks.into_iter().filter(|block| !block.is_empty()));
            self.next_block = end;
            if end == contents.block_count() {
                self.layers.pop_front();
                (self.contents, self.next_block) = (None, 0);
            } else {
                self.contents = Some(contents);
            }
        }
        Ok(())
    }
}
