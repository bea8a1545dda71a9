//! Whether a clear hides anything that is older than the timeline.
//!
//! What is not certain counts as if it did: a clear too many costs a few bytes, one too few a wrong
//! page. So a key counts whenever its versions are from, and also where the ancestor itself has
//! emptied it since.

use std::{ops::Range, sync::Arc};

use wal_format::Lsn;

use crate::{
    error::Error,
    key::Key,
    layer::{memory::MemoryLayer, reader::Layer},
    timeline::Timeline,
};

impl Timeline {
    /// Whether the timelines that it came from may have anything in a range of keys.
    pub(super) async fn inherits_any(&self, range: &Range<Key>) -> Result<bool, Error> {
        let (mut next, mut at) = (self.facts.ancestor.as_ref(), Lsn::MAX);
        while let Some(ancestor) = next {
            at = at.min(ancestor.lsn);
            if ancestor.timeline.has_any(range, at).await? {
                return Ok(true);
            }
            next = ancestor.timeline.facts.ancestor.as_ref();
        }
        Ok(false)
    }

    /// Whether its own layers may have anything in a range of keys for a read at `at`.
    async fn has_any(&self, range: &Range<Key>, at: Lsn) -> Result<bool, Error> {
        let layers = {
            let state = self.state.read();
            // What was not ingested yet may be anything.
            let is_there = at <= state.last_record.lsn.max(self.facts.origin.point.lsn);
            let has_keys = |layer: &MemoryLayer| !layer.keys(range).is_empty();
            let mut frozen = state.frozen.iter();
            if !is_there || has_keys(&state.open) || frozen.any(|frozen| has_keys(&frozen.layer)) {
                return Ok(true);
            }
            state.layers.clone()
        };
        for layer in layers.iter().filter(|layer| layer.holds_versions_at(at)) {
            if layer.may_hold(range) && has_any(layer, range).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a layer has versions of any key of a range: at most two of its blocks are read.
async fn has_any(layer: &Arc<Layer>, range: &Range<Key>) -> Result<bool, Error> {
    let contents = layer.contents().await?;
    let blocks = contents.blocks_in(range);
    let is_certain = |number: usize| {
        let row = contents.block(number);
        range.contains(&row.first) || range.contains(&row.last)
    };
    if blocks.clone().any(is_certain) {
        return Ok(true);
    }
    let numbers: Vec<usize> = blocks.collect();
    let blocks = layer.blocks(&contents, &numbers).await?;
    let begins = |block: &crate::layer::block::Block, key| block.position(key, Lsn::INVALID);
    Ok(blocks.iter().any(|block| begins(block, range.start) < begins(block, range.end)))
}
