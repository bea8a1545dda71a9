//! Reads: from memory, then layer after layer from the newest back, then in the ancestor.

use std::{collections::BTreeMap, ops::Range, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::poll;
use wal_format::{Lsn, PAGE_BYTES, Page, RelationFork, Target};

use super::{Timeline, kept::KeptPages, reconstruct::Chain};
use crate::{
    error::Error,
    key::{Key, KeyKind},
    layer::{
        Clear,
        block::Block,
        cleared_at,
        memory::MemoryLayer,
        reader::{Contents, Layer, READ_BLOCKS_MAX},
    },
};

/// How long a read waits for an ancestor that is still ingesting up to the branch point.
const ANCESTOR_WAIT: Duration = Duration::from_secs(10);
/// The most pages that are read at once: what they are made from is in memory together.
const PAGES_AT_ONCE_MAX: usize = 128;
/// What stands where nothing was written.
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

impl Timeline {
    /// A key's value as of `at`; `None` where it has none (never written, or cleared).
    pub async fn get(&self, key: Key, at: Lsn) -> Result<Option<Bytes>, Error> {
        let chains = self.collect(&[key], at).await?;
        let redo = self.engine.redo.as_ref();
        chains.first().map_or(Ok(None), |chain| chain.value(key, redo))
    }

    /// `count` pages of a fork, 8,192 bytes each, with checksums where the cluster has them.
    /// A page that has no value, beyond the end or in a gap, is zeros.
    pub async fn pages(
        &self,
        fork: RelationFork,
        first: u32,
        count: u32,
        at: Lsn,
    ) -> Result<Bytes, Error> {
        let end = first.checked_add(count).ok_or_else(|| {
            Error::Invalid(format!("{count} pages from block {first} go beyond the last block"))
        })?;
        let targets: Vec<Target> =
            (first..end).map(|block| Target::Page(fork.block(block))).collect();
        self.target_pages(&targets, at).await
    }

    /// Any pages, as [`Timeline::pages`] gives them, in the order asked for.
    pub async fn target_pages(&self, targets: &[Target], at: Lsn) -> Result<Bytes, Error> {
        let pages = self.pages_in_parts(targets, at).await?;
        let mut out = BytesMut::with_capacity(pages.len() * PAGE_BYTES);
        pages.iter().for_each(|page| out.extend_from_slice(page));
        Ok(out.freeze())
    }

    /// The same, each page by itself: one that is stored as it is served is not copied.
    pub async fn pages_in_parts(&self, targets: &[Target], at: Lsn) -> Result<Vec<Bytes>, Error> {
        let mut pages = Vec::with_capacity(targets.len());
        for targets in targets.chunks(PAGES_AT_ONCE_MAX) {
            let mut keys: Vec<Key> = targets.iter().map(|target| Key::target(*target)).collect();
            keys.sort_unstable();
            keys.dedup();
            let chains = self.collect(&keys, at).await?;
            for target in targets {
                let position = keys.binary_search(&Key::target(*target));
                let chain = position.ok().and_then(|position| chains.get(position));
                pages.push(match chain {
                    Some(chain) => self.page(chain, *target)?,
                    None => Bytes::from_static(&ZEROS),
                });
            }
        }
        Ok(pages)
    }

    fn page(&self, chain: &Chain, target: Target) -> Result<Bytes, Error> {
        let image = chain.stored_image().filter(|image| image.len() == PAGE_BYTES);
        if let (Some(image), false) = (image, self.facts.checksums) {
            return Ok(image.clone());
        }
        let mut page = Page::zeroed();
        if !chain.make_page(target, self.engine.redo.as_ref(), &mut page)? {
            return Ok(Bytes::from_static(&ZEROS));
        }
        if let (Target::Page(key), true) = (target, self.facts.checksums) {
            page.set_checksum(key.block);
        }
        Ok(page.into_bytes())
    }

    /// All keys of a range that have a value as of `at`, in order, with their values. All of them
    /// are in memory together: the range is the caller's to bound.
    pub async fn scan(&self, range: Range<Key>, at: Lsn) -> Result<Vec<(Key, Bytes)>, Error> {
        self.check_readable(at)?;
        match self.scan_once(range.clone(), at).await {
            // As in `collect`.
            Err(Error::Missing { .. }) => self.scan_once(range, at).await,
            scanned => scanned,
        }
    }

    async fn scan_once(&self, range: Range<Key>, at: Lsn) -> Result<Vec<(Key, Bytes)>, Error> {
        // History is kept by key too, but it is not the database's.
        let range = range.start..range.end.min(KeyKind::History.all().start);
        let mut found = Scan { range, chains: BTreeMap::new(), clears: Vec::new() };
        let (mut timeline, mut at) = (self, at);
        loop {
            for layer in timeline.scan_memory(&mut found, at)?.iter().rev() {
                if layer.holds_versions_at(at) && layer.may_hold(&found.range) {
                    found.scan_layer(layer, at).await?;
                }
            }
            let Some((ancestor, lsn)) = timeline.ancestor_at(at).await? else { break };
            (timeline, at) = (ancestor, lsn);
        }
        let redo = self.engine.redo.as_ref();
        let value = |(key, chain): (Key, Chain)| {
            chain.value(key, redo).map(|value| value.map(|value| (key, value))).transpose()
        };
        found.chains.into_iter().filter_map(value).collect()
    }

    /// What is known of these keys, which are sorted, back to where nothing older matters.
    pub(super) async fn collect(&self, keys: &[Key], at: Lsn) -> Result<Vec<Chain>, Error> {
        self.check_readable(at)?;
        match self.collect_any(keys, at, Refuses::WhatIsGone).await {
            // It may have been merged since it was looked up, and removed by a scrub.
            Err(Error::Missing { .. }) => self.collect_any(keys, at, Refuses::WhatIsGone).await,
            collected => collected,
        }
    }

    /// A key's value as of the beginning of one of the timeline's runs. Such an LSN may be one
    /// that reads are refused at; but of what is at or below it, the newest version of each key is
    /// kept whenever runs are merged. This holds for the timeline alone: its ancestors refuse what
    /// they have given up.
    pub(super) async fn value_before(&self, key: Key, run: Lsn) -> Result<Option<Bytes>, Error> {
        let chains = self.collect_any(&[key], run, Refuses::OnlyAncestors).await?;
        let redo = self.engine.redo.as_ref();
        chains.first().map_or(Ok(None), |chain| chain.value(key, redo))
    }

    async fn collect_any(
        &self,
        keys: &[Key],
        at: Lsn,
        mut refuses: Refuses,
    ) -> Result<Vec<Chain>, Error> {
        let mut wanted = Wanted::new(keys);
        let (mut timeline, mut at) = (self, at);
        loop {
            let layers = timeline.collect_memory(&mut wanted, at, refuses)?;
            if wanted.is_complete() {
                break;
            }
            for (place, layer) in layers.iter().enumerate().rev() {
                if layer.holds_versions_at(at) && layer.may_hold(&wanted.hull) {
                    let older = &layers[..place];
                    wanted
                        .collect_layer(layer, at, || timeline.read_layers_ahead(older, keys, at))
                        .await?;
                    if wanted.is_complete() {
                        return Ok(wanted.chains);
                    }
                }
            }
            let Some((ancestor, lsn)) = timeline.ancestor_at(at).await? else { break };
            (timeline, at, refuses) = (ancestor, lsn, Refuses::WhatIsGone);
        }
        Ok(wanted.chains)
    }

    /// Refuses LSNs that ingest has not reached, and those before all history; what is not retained
    /// is refused by each timeline in the moment in which its layers are looked up.
    fn check_readable(&self, at: Lsn) -> Result<(), Error> {
        let ingested = self.last_record_lsn();
        if at > ingested {
            return Err(Error::NotYet { asked: at, ingested });
        }
        let mut root = self;
        while let Some(ancestor) = &root.facts.ancestor {
            root = &ancestor.timeline;
        }
        let oldest = root.facts.origin.point.lsn;
        if at < oldest { Err(Error::Gone { asked: at, oldest }) } else { Ok(()) }
    }

    /// The ancestor, and as of which LSN it answers a read at `at`.
    async fn ancestor_at(&self, at: Lsn) -> Result<Option<(&Timeline, Lsn)>, Error> {
        let Some(ancestor) = &self.facts.ancestor else { return Ok(None) };
        let lsn = at.min(ancestor.lsn);
        let timeline = &ancestor.timeline;
        if timeline.last_record_lsn() < lsn && lsn > timeline.facts.origin.point.lsn {
            timeline.wait_for(lsn, ANCESTOR_WAIT).await?;
        }
        Ok(Some((timeline, lsn)))
    }

    /// Reads the layers in memory, and gives those in the object store as of the same moment.
    fn collect_memory(
        &self,
        wanted: &mut Wanted<'_>,
        at: Lsn,
        refuses: Refuses,
    ) -> Result<Arc<Vec<Arc<Layer>>>, Error> {
        let state = self.state.read();
        if refuses == Refuses::WhatIsGone {
            state.retained.check(at)?;
        }
        let memory = [&state.open].into_iter();
        for layer in memory.chain(state.frozen.iter().rev().map(|frozen| &*frozen.layer)) {
            wanted.collect_memory(layer, at, &self.kept);
        }
        wanted.chains.iter_mut().for_each(|chain| chain.keep_in(&self.kept, at));
        Ok(state.layers.clone())
    }

    fn scan_memory(&self, found: &mut Scan, at: Lsn) -> Result<Arc<Vec<Arc<Layer>>>, Error> {
        let state = self.state.read();
        state.retained.check(at)?;
        found.scan_memory(&state.open, at);
        for frozen in state.frozen.iter().rev() {
            found.scan_memory(&frozen.layer, at);
        }
        Ok(state.layers.clone())
    }
}

/// Which LSNs are not read.
#[derive(Clone, Copy, PartialEq)]
enum Refuses {
    WhatIsGone,
    OnlyAncestors,
}

/// Some keys, sorted, and what was found of them.
struct Wanted<'a> {
    keys: &'a [Key],
    chains: Vec<Chain>,
    hull: Range<Key>,
}

impl<'a> Wanted<'a> {
    fn new(keys: &'a [Key]) -> Wanted<'a> {
        debug_assert!(keys.is_sorted());
        let hull = match keys {
            [first, .., last] => *first..last.next(),
            [only] => only.only(),
            [] => Key::MIN..Key::MIN,
        };
        Wanted { keys, chains: keys.iter().map(|_| Chain::default()).collect(), hull }
    }

    fn is_complete(&self) -> bool {
        self.chains.iter().all(Chain::is_complete)
    }

    fn collect_memory(&mut self, layer: &MemoryLayer, at: Lsn, kept: &KeptPages) {
        let clears: Vec<&Clear> =
            layer.clears().iter().filter(|clear| clear.overlaps(&self.hull)).collect();
        for (key, chain) in self.keys.iter().zip(&mut self.chains) {
            if !chain.is_complete() {
                let floor = cleared_at(clears.iter().copied(), *key, at);
                chain.extend(layer.versions(*key, at), floor, kept.get(*key));
            }
        }
    }

    /// Takes what the layer has; calls `when_waiting` once if that has to be waited for.
    async fn collect_layer(
        &mut self,
        layer: &Layer,
        at: Lsn,
        when_waiting: impl FnOnce(),
    ) -> Result<(), Error> {
        let mut reading = pin!(self.collect_blocks(layer, at));
        if let Poll::Ready(read) = poll!(reading.as_mut()) {
            return read;
        }
        when_waiting();
        reading.await
    }

    async fn collect_blocks(&mut self, layer: &Layer, at: Lsn) -> Result<(), Error> {
        let contents = layer.contents().await?;
        let clears: Vec<&Clear> = contents.clears_in(&self.hull).collect();
        let floors: Vec<Option<Lsn>> =
            self.keys.iter().map(|key| cleared_at(clears.iter().copied(), *key, at)).collect();
        let mut blocks = contents.blocks_in(&self.hull);
        loop {
            let numbers = self.last_blocks(&contents, &mut blocks, at);
            if numbers.is_empty() {
                break;
            }
            for block in layer.blocks(&contents, &numbers).await?.iter().rev() {
                self.collect_block(block, &floors, at);
            }
        }
        for (chain, floor) in self.chains.iter_mut().zip(&floors) {
            if floor.is_some() {
                chain.complete();
            }
        }
        Ok(())
    }

    /// The positions of the keys from `first` to `last`.
    fn positions(&self, first: Key, last: Key) -> Range<usize> {
        let start = self.keys.partition_point(|key| *key < first);
        let end = self.keys.partition_point(|key| *key <= last);
        start..end.max(start)
    }

    /// Some of the blocks that are wanted, from the last one back, since a key's newest versions
    /// come last; takes them from `blocks`. Of one key with many blocks only one at a time: it
    /// may be enough.
    fn last_blocks(&self, contents: &Contents, blocks: &mut Range<usize>, at: Lsn) -> Vec<usize> {
        let mut numbers: Vec<usize> = Vec::new();
        // Those before this position may still need a block.
        let mut keys = self.keys.len();
        while keys > 0 && numbers.len() < READ_BLOCKS_MAX {
            let key = self.keys[keys - 1];
            if self.chains[keys - 1].is_complete() || !contents.may_have(key) {
                keys -= 1;
                continue;
            }
            let Some(number) = contents.last_block_from(key, blocks) else { break };
            let row = contents.block(number);
            if row.last < key {
                keys -= 1;
                continue;
            }
            let is_of_one_key = row.first == row.last;
            let goes_on =
                numbers.last().is_some_and(|next| contents.block(*next).first == row.last);
            if goes_on && is_of_one_key {
                break;
            }
            blocks.end = number;
            if !is_of_one_key || row.first_lsn <= at {
                numbers.push(number);
            }
            // Only versions of its first key can be in the block before, too.
            keys = self.keys.partition_point(|key| *key <= row.first);
        }
        numbers.reverse();
        numbers
    }

    fn collect_block(&mut self, block: &Block, floors: &[Option<Lsn>], at: Lsn) {
        if block.is_empty() {
            return;
        }
        for wanted in self.positions(block.key(0), block.key(block.len() - 1)) {
            let (key, chain) = (self.keys[wanted], &mut self.chains[wanted]);
            let end = block.position(key, Lsn(at.0.saturating_add(1)));
            for position in (0..end).rev() {
                let lsn = block.lsn(position);
                let is_hidden = floors[wanted].is_some_and(|floor| lsn < floor);
                if chain.is_complete() || block.key(position) != key || is_hidden {
                    break;
                }
                chain.push(lsn, block.value(position));
            }
        }
    }
}

/// All keys of a range, as far as they were found, and all clears met on the way: those of newer
/// layers hide what older ones hold.
struct Scan {
    range: Range<Key>,
    chains: BTreeMap<Key, Chain>,
    clears: Vec<Clear>,
}

impl Scan {
    fn scan_memory(&mut self, layer: &MemoryLayer, at: Lsn) {
        self.take_clears(layer.clears(), at);
        for key in layer.keys(&self.range) {
            let floor = self.floor(key);
            let chain = self.chains.entry(key).or_default();
            if !chain.is_complete() {
                chain.extend(layer.versions(key, at), floor, None);
            }
        }
    }

    async fn scan_layer(&mut self, layer: &Layer, at: Lsn) -> Result<(), Error> {
        let contents = layer.contents().await?;
        let range = self.range.clone();
        self.take_clears(contents.clears_in(&range), at);
        let mut blocks = contents.blocks_in(&self.range);
        while blocks.start < blocks.end {
            let start = blocks.end.saturating_sub(READ_BLOCKS_MAX).max(blocks.start);
            let numbers: Vec<usize> = (start..blocks.end).collect();
            for block in layer.blocks(&contents, &numbers).await?.iter().rev() {
                self.scan_block(block, at);
            }
            blocks.end = start;
        }
        Ok(())
    }

    fn scan_block(&mut self, block: &Block, at: Lsn) {
        let start = block.position(self.range.start, Lsn(0));
        let end = block.position(self.range.end, Lsn(0));
        let mut floor_of: Option<(Key, Option<Lsn>)> = None;
        for position in (start..end).rev() {
            let (key, lsn) = (block.key(position), block.lsn(position));
            if lsn > at {
                continue;
            }
            let floor = match floor_of {
                Some((known, floor)) if known == key => floor,
                _ => self.floor(key),
            };
            floor_of = Some((key, floor));
            if floor.is_some_and(|floor| lsn < floor) {
                continue;
            }
            let chain = self.chains.entry(key).or_default();
            if !chain.is_complete() {
                chain.push(lsn, block.value(position));
            }
        }
    }

    /// The newest of the clears met so far; all of them are at or below the LSN of the scan,
    /// which may be above the LSN as of which an ancestor is read.
    fn floor(&self, key: Key) -> Option<Lsn> {
        cleared_at(&self.clears, key, Lsn::MAX)
    }

    fn take_clears<'b>(&mut self, clears: impl IntoIterator<Item = &'b Clear>, at: Lsn) {
        let of_range = |clear: &&Clear| clear.lsn <= at && clear.overlaps(&self.range);
        self.clears.extend(clears.into_iter().filter(of_range).cloned());
    }
}
