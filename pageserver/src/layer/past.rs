//! Finds places in the history that a layer holds: one block of it is read.

use std::ops::Range;

use protocol::BranchPoint;
use wal_format::Lsn;

use super::{
    block::Block,
    format::Damage,
    history::{Piece, Span},
    reader::{Contents, Layer},
};
use crate::{
    error::Error,
    key::{Key, KeyKind},
};

impl Layer {
    /// Whether there can be history in it.
    pub fn may_have_history(&self) -> bool {
        self.may_hold(&KeyKind::History.all())
    }

    /// The last record that ends at or before `lsn`.
    pub async fn at_or_before(&self, lsn: Lsn) -> Result<Option<BranchPoint>, Error> {
        let contents = self.contents().await?;
        // The first piece that ends at or behind `lsn`; otherwise the last of the piece before.
        let wanted = Key::history(lsn, i64::MIN);
        let mut blocks = contents.blocks_in(&KeyKind::History.all());
        let behind = blocks.clone().find_from(|number| contents.block(number).last >= wanted);
        blocks.end = behind.map_or(blocks.end, |number| number + 1);
        while let Some(number) = blocks.next_back() {
            let block = self.history_block(&contents, number).await?;
            let last = block.position(wanted, Lsn::INVALID).min(block.len().saturating_sub(1));
            for position in (0..=last).rev() {
                let Some(piece) = self.piece(&contents, number, &block, position)? else { break };
                if let Some(point) = piece.at_or_before(lsn) {
                    return Ok(Some(point));
                }
            }
        }
        Ok(None)
    }

    /// The first commit, among records that end at or before `limit`, that is later than `time`.
    pub async fn first_commit_after(&self, time: i64, limit: Lsn) -> Result<Option<Span>, Error> {
        let contents = self.contents().await?;
        let is_later = |key: Key| key.as_history().is_some_and(|(_, latest)| latest > time);
        let blocks = contents.blocks_in(&KeyKind::History.all());
        let first = blocks.clone().find_from(|number| is_later(contents.block(number).last));
        // The first such piece has the commit, unless it begins a run whose earlier pieces were
        // given up: then the latest commit may have been one of theirs.
        for number in first.unwrap_or(blocks.end)..blocks.end {
            let block = self.history_block(&contents, number).await?;
            for position in 0..block.len() {
                if is_later(block.key(position))
                    && let Some(piece) = self.piece(&contents, number, &block, position)?
                    && let Some(commit) = piece.first_later_than(time)
                {
                    return Ok(Some(commit).filter(|commit| commit.end <= limit));
                }
            }
        }
        Ok(None)
    }

    /// The latest commit's time among the run's records up to `lsn`, or a little behind.
    pub async fn latest_commit_at(&self, lsn: Lsn) -> Result<Option<i64>, Error> {
        let contents = self.contents().await?;
        let wanted = Key::history(lsn, i64::MIN);
        let blocks = contents.blocks_in(&KeyKind::History.all());
        let found = blocks.find_from(|number| contents.block(number).last >= wanted);
        let Some(number) = found else { return Ok(self.summary().last_commit_time) };
        let block = self.history_block(&contents, number).await?;
        let position = block.position(wanted, Lsn::INVALID);
        let piece = (position < block.len()).then(|| block.key(position)).and_then(Key::as_history);
        Ok(piece.map(|(_, latest)| latest).filter(|latest| *latest != i64::MIN))
    }

    async fn history_block(&self, contents: &Contents, number: usize) -> Result<Block, Error> {
        let blocks = self.blocks(contents, &[number]).await?;
        blocks.into_iter().next().ok_or(Error::ShuttingDown)
    }

    /// The piece of history at a position of a block; `None` where something else is there.
    fn piece(
        &self,
        contents: &Contents,
        number: usize,
        block: &Block,
        position: usize,
    ) -> Result<Option<Piece>, Error> {
        if position >= block.len() || block.key(position).as_history().is_none() {
            return Ok(None);
        }
        let value = block.value(position);
        let piece = Piece::decode(value.bytes());
        piece.map(Some).ok_or_else(|| {
            self.corrupt(Damage {
                offset: contents.block(number).locator.offset,
                expected: "record ends and commit times".to_owned(),
                found: format!("{} other bytes", value.bytes().len()),
            })
        })
    }
}

/// The first number of a range for which something holds that, once it holds, goes on to hold.
trait FindFrom {
    fn find_from(self, holds: impl Fn(usize) -> bool) -> Option<usize>;
}

impl FindFrom for Range<usize> {
    fn find_from(self, holds: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut low, mut high) = (self.start, self.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        (low < self.end).then_some(low)
    }
}
