//! The pages that redo changes: side by side in one piece of memory, found through a table for each fork.

use anyhow::{Result, bail};
use memmap2::{Advice, MmapMut, MmapOptions};
use rustc_hash::FxHashMap;
use wal_format::{Fork, PAGE_BYTES, Page, RelationFork, Slru, Target};

use crate::{fetch::fetch, files::Files};

/// Address space for pages; memory is taken for those that are touched.
const MEMORY_BYTES: usize = 8 << 30;

/// Forks that are found at once.
const RECENT: usize = 64;

/// A page's place in the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(u32);

impl Slot {
    /// No page's.
    pub const NONE: Slot = Slot(u32::MAX);

    /// The first page that was touched has 0, the next one 1.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// All pages that were touched. One that is touched for the first time is read from its file, as Postgres does.
pub struct Pages {
    /// In huge pages where the kernel has them: with pages of 4 KiB nearly every touch of a page waits for an address translation too.
    memory: MmapMut,
    /// Pages of it that are taken.
    used: usize,
    /// Each fork's number in `slots`.
    forks: FxHashMap<RelationFork, usize>,
    /// Some of these, by their relations' numbers: looked at first.
    recent: [Option<(RelationFork, usize)>; RECENT],
    /// By fork and block.
    slots: Vec<Vec<Slot>>,
    /// By SLRU and page.
    slrus: [Vec<Slot>; Slru::ALL.len()],
    files: Files,
}

impl Pages {
    pub fn new(files: Files) -> Result<Pages> {
        let memory = MmapOptions::new().len(MEMORY_BYTES).no_reserve_swap().map_anon()?;
        memory.advise(Advice::HugePage)?;
        Ok(Pages {
            memory,
            used: 0,
            forks: FxHashMap::default(),
            recent: [None; RECENT],
            slots: Vec::new(),
            slrus: Default::default(),
            files,
        })
    }

    /// Forgets all pages, but keeps the memory: as a server has its buffers before it begins to recover.
    pub fn start_anew(&mut self, files: Files) {
        self.used = 0;
        self.forks.clear();
        self.recent = [None; RECENT];
        self.slots.clear();
        self.slrus.iter_mut().for_each(Vec::clear);
        self.files = files;
    }

    /// Where the page is; `is_new`: where it is not yet known its contents do not matter.
    #[inline]
    pub fn slot(&mut self, target: Target, is_new: bool) -> Result<Slot> {
        match self.known(target) {
            Some(&Slot::NONE) | None => self.take(target, is_new),
            Some(known) => Ok(*known),
        }
    }

    /// Lets it come from memory where the page is, without waiting for it.
    #[inline]
    pub fn look_up(&self, target: Target) {
        if let Some(place) = self.known(target) {
            fetch(place);
        }
    }

    #[inline]
    fn known(&self, target: Target) -> Option<&Slot> {
        let (slots, number) = match target {
            Target::Page(key) => match &self.recent[recent(key.fork)] {
                Some((fork, slots)) if *fork == key.fork => (&self.slots[*slots], key.block),
                _ => return None,
            },
            Target::Slru(slru, page) => (&self.slrus[slru as usize], page),
        };
        slots.get(number as usize)
    }

    /// Likewise, for a page of a fork that is not known as a recent one, or one that is not there yet.
    #[cold]
    fn take(&mut self, target: Target, is_new: bool) -> Result<Slot> {
        let known = *self.place(target);
        if known != Slot::NONE {
            return Ok(known);
        }
        let number = self.used;
        if number == MEMORY_BYTES / PAGE_BYTES {
            bail!("the WAL touches more pages than {MEMORY_BYTES} bytes hold");
        }
        self.used += 1;
        let new = Slot(number as u32);
        *self.place(target) = new;
        let page = Page::from_array_mut(&mut self.memory.as_chunks_mut().0[number]);
        if is_new {
            page.zero();
        } else {
            self.files.load(target, page)?;
        }
        Ok(new)
    }

    fn place(&mut self, target: Target) -> &mut Slot {
        let (slots, number) = match target {
            Target::Page(key) => {
                let next = self.slots.len();
                let number = *self.forks.entry(key.fork).or_insert(next);
                if number == next {
                    self.slots.push(Vec::new());
                }
                self.recent[recent(key.fork)] = Some((key.fork, number));
                (&mut self.slots[number], key.block as usize)
            }
            Target::Slru(slru, page) => (&mut self.slrus[slru as usize], page as usize),
        };
        if slots.len() <= number {
            slots.resize(number + 1, Slot::NONE);
        }
        &mut slots[number]
    }

    /// The page as it is now.
    pub fn page(&self, slot: Slot) -> &Page {
        Page::from_array(&self.memory.as_chunks().0[slot.0 as usize])
    }

    /// Likewise, to be changed.
    pub fn page_mut(&mut self, slot: Slot) -> &mut Page {
        Page::from_array_mut(&mut self.memory.as_chunks_mut().0[slot.0 as usize])
    }

    /// The fork has so many blocks from now on.
    pub fn cut(&mut self, fork: RelationFork, blocks: u32) {
        if let Some(number) = self.forks.get(&fork) {
            self.slots[*number].truncate(blocks as usize);
        }
        self.files.cut(fork, blocks);
    }

    /// Calls for every page of relations' main forks, and of SLRUs.
    pub fn each(&self, mut call: impl FnMut(Target, &Page) -> Result<()>) -> Result<()> {
        for (fork, number) in self.forks.iter().filter(|(fork, _)| fork.fork == Fork::Main) {
            for (block, slot) in (0..).zip(&self.slots[*number]) {
                if *slot != Slot::NONE {
                    call(Target::Page(fork.block(block)), self.page(*slot))?;
                }
            }
        }
        for (slru, slots) in Slru::ALL.into_iter().zip(&self.slrus) {
            for (number, slot) in (0..).zip(slots).filter(|(_, slot)| **slot != Slot::NONE) {
                call(Target::Slru(slru, number), self.page(*slot))?;
            }
        }
        Ok(())
    }
}

/// A fork's place among the recent ones.
fn recent(fork: RelationFork) -> usize {
    fork.relation.number as usize % RECENT
}
