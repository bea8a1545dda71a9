//! Redo in the order of the WAL, looking ahead: while a few records wait, all that they need of their pages is on its way from memory.

use std::{collections::VecDeque, ops::Range};

use anyhow::Result;
use wal_format::{
    ControlState, Effect, Fork, Lsn, PAGE_BYTES, PAGE_HEADER_BYTES, Page, Record, Records, Target,
    Version, list_effects, named_pages, redo, redo_named,
    rmgr::{heap::Heap, heap2::Heap2},
    rmid,
};

use crate::{
    fetch::fetch,
    pages::{Pages, Slot},
};

/// Touches of pages between a look at the header and line pointers, and the change itself.
const FAR: usize = 64;
/// Touches of pages between a look at the items and the change.
const NEAR: usize = 32;
/// How much of many items is fetched at each touch: what is asked for all at once keeps the processor waiting.
const FETCHED_AT_ONCE: usize = 1536;
/// Pages that are known to have been touched of late.
const RECENT: usize = 256;
/// What the processor takes from memory at once.
const LINE_BYTES: usize = 64;
/// Line pointers of a page that are looked at when items go: all that pgbench's have.
const POINTERS_BYTES: usize = 512;
/// A new item is expected to be no longer.
const ITEM_BYTES: usize = 128;

/// The cluster as the records leave it.
pub struct InOrder<'a> {
    control: ControlState,
    pages: &'a mut Pages,
    /// Of one record; its room serves the next.
    effects: Vec<Effect>,
    /// Pages that were touched of late, each in its place.
    recent: [Slot; RECENT],
    /// What is still to be done.
    touches: Vec<Touch>,
    /// Items that are still to be fetched, page by page.
    wanted: Wanted,
}

/// Bytes of pages, in the order in which they are to be fetched.
type Wanted = VecDeque<(Slot, Range<usize>)>;

/// A record that changes a page.
struct Touch {
    /// Its place among those at hand.
    record: usize,
    change: Change,
    slot: Slot,
    needs: Needs,
}

/// Which page a record changes.
enum Change {
    /// The one that this reference of the record names, by its index.
    Named(usize),
    /// Another one, or one that it names.
    Of(Target),
}

impl<'a> InOrder<'a> {
    pub fn new(control: ControlState, pages: &'a mut Pages) -> InOrder<'a> {
        InOrder {
            control,
            pages,
            recent: [Slot::NONE; RECENT],
            effects: Vec::new(),
            touches: Vec::new(),
            wanted: Wanted::new(),
        }
    }

    /// Decodes the next records, and applies them.
    pub fn apply(&mut self, records: Records) -> Result<()> {
        let records = records.decode(Version::V15)?;
        for (record, end) in &records {
            self.control.apply(record, *end)?;
            record.blocks.iter().for_each(|block| self.pages.look_up(Target::Page(block.key)));
        }
        for (index, (record, _)) in records.iter().enumerate() {
            match named_pages(Version::V15, record) {
                Some(blocks) => {
                    for (number, block) in blocks.iter().enumerate() {
                        let target = Target::Page(block.key);
                        let slot = self.pages.slot(target, block.is_made_anew())?;
                        self.touch(index, record, Change::Named(number), slot);
                    }
                }
                None => self.follow_effects(index, &records)?,
            }
        }
        self.apply_touches(&records)
    }

    fn touch(&mut self, index: usize, record: &Record, change: Change, slot: Slot) {
        let recent = &mut self.recent[slot.number() % RECENT];
        let is_recent = std::mem::replace(recent, slot) == slot;
        let needs = if is_recent { Needs::Nothing } else { Needs::of(record) };
        self.touches.push(Touch { record: index, change, slot, needs });
    }

    fn follow_effects(&mut self, index: usize, records: &[(Record, Lsn)]) -> Result<()> {
        let (record, _) = &records[index];
        let mut effects = std::mem::take(&mut self.effects);
        list_effects(Version::V15, record, &mut effects)?;
        for effect in effects.drain(..) {
            match effect {
                Effect::Touch { target, will_init } => {
                    let slot = self.pages.slot(target, will_init)?;
                    self.touch(index, record, Change::Of(target), slot);
                }
                Effect::TouchExisting { target } => {
                    self.apply_touches(records)?;
                    let slot = self.pages.slot(target, false)?;
                    if !self.pages.page(slot).is_new() {
                        self.touch(index, record, Change::Of(target), slot);
                    }
                }
                // What is done to whole forks waits for what was done to their pages.
                Effect::TruncateFork { fork, blocks } => {
                    self.apply_touches(records)?;
                    self.pages.cut(fork, blocks);
                }
                Effect::DropRelation(relation) => {
                    self.apply_touches(records)?;
                    for fork in Fork::ALL {
                        self.pages.cut(relation.fork(fork), 0);
                    }
                }
                _ => {}
            }
        }
        self.effects = effects;
        Ok(())
    }

    fn apply_touches(&mut self, records: &[(Record, Lsn)]) -> Result<()> {
        for touch in self.touches.iter().take(FAR) {
            touch.look_at_pointers(self.pages);
        }
        for touch in self.touches.iter().take(NEAR) {
            touch.look_at_items(self.pages, &mut self.wanted);
        }
        for (index, touch) in self.touches.iter().enumerate() {
            if let Some(touch) = self.touches.get(index + FAR) {
                touch.look_at_pointers(self.pages);
            }
            if let Some(touch) = self.touches.get(index + NEAR) {
                touch.look_at_items(self.pages, &mut self.wanted);
            }
            fetch_some(&mut self.wanted, self.pages);
            let (record, end) = &records[touch.record];
            let page = self.pages.page_mut(touch.slot);
            match touch.change {
                Change::Named(number) => {
                    redo_named(Version::V15, record, *end, &record.blocks[number], page)?;
                }
                Change::Of(target) => redo(Version::V15, record, *end, target, page)?,
            }
        }
        self.touches.clear();
        self.wanted.clear();
        Ok(())
    }
}

/// What a record needs of its page beside the header.
#[derive(Clone, Copy)]
enum Needs {
    /// The page was needed a moment ago.
    Nothing,
    /// The place of a new item.
    Place,
    /// Likewise, and an item.
    Item(u16),
    /// All items below one that goes.
    ItemsBelow(u16),
}

impl Needs {
    fn of(record: &Record) -> Needs {
        let needs = match record.rmid {
            rmid::HEAP => match Heap::parse(record.info, record.main) {
                Some(Heap::Update(update)) => Some(Needs::Item(update.old_offset)),
                Some(Heap::Delete(delete)) => Some(Needs::Item(delete.offset)),
                Some(Heap::Lock(lock)) => Some(Needs::Item(lock.offset)),
                _ => None,
            },
            rmid::HEAP2 => match Heap2::parse(record.info, record.main) {
                Some(Heap2::Prune(prune)) => {
                    let items = record.blocks.first().and_then(|block| prune.items(block.data));
                    let gone =
                        items.and_then(|items| items.unused.get(0).or(items.redirected.get(0)));
                    gone.map(Needs::ItemsBelow)
                }
                _ => None,
            },
            _ => None,
        };
        needs.unwrap_or(Needs::Place)
    }
}

impl Touch {
    /// Fetches the header, and the line pointers that are needed.
    fn look_at_pointers(&self, pages: &Pages) {
        let page = pages.page(self.slot);
        match self.needs {
            Needs::Nothing => {}
            Needs::Place => fetch_bytes(page, 0..PAGE_HEADER_BYTES),
            Needs::Item(item) => {
                let pointer = (PAGE_HEADER_BYTES + usize::from(item) * 4) % PAGE_BYTES;
                fetch_bytes(page, 0..PAGE_HEADER_BYTES);
                fetch_bytes(page, pointer..pointer + 1);
            }
            Needs::ItemsBelow(_) => fetch_bytes(page, 0..POINTERS_BYTES),
        }
    }

    /// Fetches the item that a line pointer points at, and where a new one goes; many items are only `wanted`.
    fn look_at_items(&self, pages: &Pages, wanted: &mut Wanted) {
        if matches!(self.needs, Needs::Nothing) {
            return;
        }
        let page = pages.page(self.slot);
        let Ok(bounds) = page.bounds() else { return };
        let place = bounds.upper.saturating_sub(ITEM_BYTES)..bounds.upper;
        match self.needs {
            Needs::Nothing => {}
            Needs::Place => fetch_bytes(page, place),
            Needs::Item(item) => {
                fetch_bytes(page, place);
                fetch_bytes(page, page.item_range(item).unwrap_or(0..0));
            }
            Needs::ItemsBelow(item) => {
                let end = page.item_range(item).map_or(bounds.upper, |range| range.end);
                wanted.push_back((self.slot, bounds.upper..end));
            }
        }
    }
}

/// Fetches some of the items that have been wanted for the longest time, the highest first: so they are moved.
fn fetch_some(wanted: &mut Wanted, pages: &Pages) {
    let Some((slot, range)) = wanted.front_mut() else { return };
    let from = range.end.saturating_sub(FETCHED_AT_ONCE).max(range.start);
    fetch_bytes(pages.page(*slot), from..range.end.max(from));
    range.end = from;
    if range.start >= range.end {
        wanted.pop_front();
    }
}

/// Lets these bytes of a page come from memory, without waiting for them.
fn fetch_bytes(page: &Page, range: Range<usize>) {
    let (lines, rest) = page.bytes()[range].as_chunks::<LINE_BYTES>();
    lines.iter().for_each(fetch);
    fetch(rest);
}
