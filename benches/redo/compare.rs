//! Are the pages those of the server that wrote the WAL? As Postgres compares a redone page with its after-image: under its masks.

use std::path::Path;

use anyhow::{Result, ensure};
use redo_oracle::masks;
use wal_format::{Page, Target, rmid};

use crate::{files::Files, pages::Pages};

/// The page's special space: a B-tree's.
const BTREE_SPECIAL_BYTES: usize = 16;

/// Every page of relations' main forks and of SLRUs is as the server left it; of other forks Postgres' own recovery makes something
/// else, too. pgbench has heaps and B-trees. How many pages there are.
pub fn with_server(pages: &Pages, after: &Path) -> Result<usize> {
    let mut files = Files::new(after);
    let mut compared = 0;
    pages.each(|target, page| {
        let mut theirs = Page::zeroed();
        files.load(target, &mut theirs)?;
        let mut ours = page.clone();
        if let Target::Page(key) = target {
            for page in [&mut ours, &mut *theirs] {
                let special = page.bounds().map_or(0, |bounds| page.bytes().len() - bounds.special);
                let kind = if special == BTREE_SPECIAL_BYTES { rmid::BTREE } else { rmid::HEAP };
                masks::mask(kind, key.block, page);
            }
        }
        let differ = (0..).zip(ours.bytes().iter().zip(theirs.bytes()));
        let first = { differ }.find(|(_, (ours, theirs))| ours != theirs);
        ensure!(ours == *theirs, "{target} is {page:?} and on the server {theirs:?}: {first:?}");
        compared += 1;
        Ok(())
    })?;
    ensure!(compared > 0, "the WAL changed no page");
    Ok(compared)
}
