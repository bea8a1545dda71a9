//! The pages that redo changes: side by side in one piece of memory, found through a table for each fork.

use anyhow::{Context, Result, bail};
use memmap2::{Advice, MmapMut, MmapOptions};
use rustc_hash::FxHashMap;
use wal_format::{Fork, PAGE_BYTES, Page, RelationFork, Target};

use crate::files::Files;

/// Address space for pages; memory is taken for those that are touched.
const MEMORY_BYTES: usize = 8 << 30;

/// Forks that are found at once.
const RECENT: usize = 64;

/// A page's place in the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(u32);

impl Slot {
    const NONE: Slot = Slot(u32::MAX);

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
    slrus: FxHashMap<Target, Slot>,
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
            slrus: FxHashMap::default(),
            files,
        })
    }

    /// Forgets all pages, but keeps the memory: as a server has its buffers before it begins to recover.
    pub fn start_anew(&mut self, files: Files) {
        self.used = 0;
        self.forks.clear();
        self.recent = [None; RECENT];
        self.slots.clear();
        self.slrus.clear();
        self.files = files;
    }

    /// Where the page is; `is_new`: where it is not yet known its contents do not matter.
    pub fn slot(&mut self, target: Target, is_new: bool) -> Result<Slot> {
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
        let key = match target {
            Target::Page(key) => key,
            Target::Slru(..) => return self.slrus.entry(target).or_insert(Slot::NONE),
        };
        let recent = &mut self.recent[key.fork.relation.number as usize % RECENT];
        let number = match *recent {
            Some((fork, number)) if fork == key.fork => number,
            _ => {
                let next = self.slots.len();
                let number = *self.forks.entry(key.fork).or_insert(next);
                if number == next {
                    self.slots.push(Vec::new());
                }
                *recent = Some((key.fork, number));
                number
            }
        };
        let slots = &mut self.slots[number];
        let block = key.block as usize;
        if slots.len() <= block {
            slots.resize(block + 1, Slot::NONE);
        }
        &mut slots[block]
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
        for (target, slot) in &self.slrus {
            call(*target, self.page(*slot)).with_context(|| target.to_string())?;
        }
        Ok(())
    }
}
