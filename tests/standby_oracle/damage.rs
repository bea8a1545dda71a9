//! Damage done to what is served before it is compared: the comparison must find exactly that.

use std::collections::BTreeSet;

use wal_format::{Fork, PAGE_BYTES, Page, PageKey, RelationFork};

use crate::{
    counters::XIDS_AHEAD,
    report::{Report, Subject},
    served::Served,
};

/// What is to be damaged.
#[derive(Clone, Default, Debug)]
pub struct Damage {
    subjects: BTreeSet<Subject>,
}

impl Damage {
    /// A byte in a page of each kind that a comparison has seen; a fork that is a block short; a file of each kind; a counter and a
    /// setting.
    pub fn of_everything(seen: &Report, served: &Served) -> Damage {
        let pages: Vec<PageKey> = seen.examples.values().copied().collect();
        let mut subjects: BTreeSet<Subject> = pages.iter().copied().map(Subject::Page).collect();
        let untouched = |fork: &RelationFork| pages.iter().all(|page| page.fork != *fork);
        let mut forks = served.head.forks.iter().filter(|size| {
            size.fork.fork == Fork::Main && size.blocks > 1 && untouched(&size.fork)
        });
        subjects.extend(forks.next().map(|size| Subject::Length(size.fork)));
        for folder in
            ["pg_xact/", "pg_multixact/offsets/", "pg_multixact/members/", "pg_commit_ts/"]
        {
            let path = served.files.keys().find(|path| path.starts_with(folder));
            subjects.extend(path.map(|path| Subject::SlruPage(path.clone(), 0)));
        }
        for part in ["pg_twophase/", "global/pg_filenode.map", "base/1/pg_filenode.map"] {
            let path = served.files.keys().find(|path| path.starts_with(part));
            subjects.extend(path.map(|path| Subject::File(path.clone())));
        }
        subjects.extend(["nextXid", "max_connections"].map(Subject::Counter));
        Damage { subjects }
    }

    /// What must be found.
    pub fn expected(&self) -> &BTreeSet<Subject> {
        &self.subjects
    }

    /// Damages all but pages, which are not asked for yet.
    pub fn spoil(&self, served: &mut Served) {
        for subject in &self.subjects {
            match subject {
                Subject::Length(fork) => {
                    let sizes = served.head.forks.iter_mut().filter(|size| size.fork == *fork);
                    sizes.for_each(|size| size.blocks -= 1);
                }
                Subject::File(path) => flip(served, path, 0),
                Subject::SlruPage(path, page) => flip(served, path, *page as usize * PAGE_BYTES),
                Subject::Counter("nextXid") => {
                    served.control.checkpoint_copy.next_xid += XIDS_AHEAD;
                }
                Subject::Counter(_) => served.control.settings.max_connections += 1,
                Subject::Page(_) | Subject::Folders(_) => {}
            }
        }
    }

    /// Damages a page: one bit of its first item.
    pub fn spoil_page(&self, key: PageKey, page: &mut Page) {
        if self.subjects.contains(&Subject::Page(key))
            && let Ok(bounds) = page.bounds()
        {
            page.bytes_mut()[bounds.upper] ^= 1;
        }
    }
}

fn flip(served: &mut Served, path: &str, at: usize) {
    if let Some(byte) = served.files.get_mut(path).and_then(|file| file.get_mut(at)) {
        *byte ^= 0x40;
    }
}
