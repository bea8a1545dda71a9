//! What a record does to a page: one module for each resource manager, as `rmgr` has one for each payload.
//!
//! Redo is exact up to what Postgres itself leaves open (docs/formats/redo.md). The caller applies each record that touches a page once,
//! in order; nothing here compares the page's LSN with the record's.
//! Records and pages are outside input: whatever they say, redo ends with a page or an error.

pub(crate) mod heap;
pub(crate) mod heap2;
pub(crate) mod slru;

mod brin;
mod btree;
mod generic;
mod gin;
mod gist;
mod hash;
mod index_tuple;
mod sequence;
mod spgist;
mod tuple;

use crate::{
    BlockRef, Fork, Lsn, Page, PageError, PageKey, Record, Slru, Target, Version, WalError, rmgr,
    rmid, visibility_map,
};

/// A record that cannot be applied. The caller knows its LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedoError {
    /// There is no redo for records of this kind.
    #[error("no redo for {name} records (resource manager {rmid}, info {info:#04X})")]
    Unsupported {
        /// The kind, as `pg_waldump` prints it.
        name: String,
        /// Its resource manager.
        rmid: u8,
        /// Its `xl_info`.
        info: u8,
    },
    /// The record's payload is too short or contradicts itself.
    #[error("malformed {name} record")]
    Malformed {
        /// The kind, as `pg_waldump` prints it.
        name: String,
    },
    /// The page is not one to which this record can be applied.
    #[error("{name} record does not fit {target}: {reason}")]
    Page {
        /// The kind, as `pg_waldump` prints it.
        name: String,
        /// The page.
        target: Target,
        /// What does not fit.
        reason: PageError,
    },
    /// A full-page image is damaged.
    #[error("{target}: {reason}")]
    Image {
        /// The page.
        target: Target,
        /// The damage.
        reason: WalError,
    },
    /// What was kept of the record cannot be read.
    #[error("the record that is kept for {target} cannot be read: {reason}")]
    Kept {
        /// The page.
        target: Target,
        /// The damage.
        reason: WalError,
    },
    /// The record does not touch this page: `effects` did not name it.
    #[error("{name} record does not touch {target}")]
    NotTouched {
        /// The kind, as `pg_waldump` prints it.
        name: String,
        /// The page.
        target: Target,
    },
}

impl RedoError {
    pub(crate) fn malformed(record: &Record) -> RedoError {
        RedoError::Malformed { name: record.name() }
    }

    pub(crate) fn unsupported(record: &Record) -> RedoError {
        RedoError::Unsupported { name: record.name(), rmid: record.rmid, info: record.info }
    }
}

/// Why a redo function gave up, before the record's name and the page are added to it.
#[derive(Debug)]
pub(crate) enum Fault {
    /// No redo for this kind.
    Unsupported,
    /// The payload makes no sense.
    Malformed,
    /// The record has nothing to do with this page.
    NotTouched,
    /// The page does not fit the payload.
    Page(PageError),
}

impl Fault {
    #[cold]
    fn of(self, record: &Record, target: Target) -> RedoError {
        match self {
            Fault::Unsupported => RedoError::unsupported(record),
            Fault::Malformed => RedoError::malformed(record),
            Fault::NotTouched => RedoError::NotTouched { name: record.name(), target },
            Fault::Page(reason) => RedoError::Page { name: record.name(), target, reason },
        }
    }
}

impl From<PageError> for Fault {
    fn from(reason: PageError) -> Fault {
        Fault::Page(reason)
    }
}

/// What a redo function of one page gives: `None` in an `Option` is a payload that makes no sense.
pub(crate) type Outcome = Result<(), Fault>;

/// The redo function of a resource manager for the pages that its records name.
type BlockRedo = fn(&Record, &BlockRef, Lsn, &mut Page) -> Outcome;

/// Applies the record to one page that its effects name. `end`, the record's end, becomes the page's LSN.
/// `page` is the page as it was, zeros where nothing was before; it is of no use after an error.
pub fn redo(
    version: Version,
    record: &Record,
    end: Lsn,
    target: Target,
    page: &mut Page,
) -> Result<(), RedoError> {
    let outcome = match target {
        Target::Page(key) => match record.blocks.iter().find(|block| block.key == key) {
            Some(block) => return redo_named(version, record, end, block, page),
            None => redo_visibility(record, key, page),
        },
        Target::Slru(area, number) => slru::redo(record, area, number, page),
    };
    outcome.map_err(|fault| fault.of(record, target))
}

/// As [`redo`], of what a [`crate::KeptRecord`] left of the record for this target, or [`crate::Outline::kept_commit`] of a commit.
pub fn redo_kept(
    version: Version,
    kept: &[u8],
    end: Lsn,
    target: Target,
    page: &mut Page,
) -> Result<(), RedoError> {
    if let (Target::Slru(Slru::Clog, number), Ok(xid)) = (target, kept.try_into()) {
        let outcome = slru::redo_commit(u32::from_le_bytes(xid), number, page);
        return outcome
            .map_err(|_| RedoError::NotTouched { name: "Transaction/COMMIT".to_owned(), target });
    }
    // Filled where it is: a record is large to be moved.
    let mut record = Record::empty();
    record
        .fill_kept(version, target, kept)
        .map_err(|damage| RedoError::Kept { target, reason: damage.into() })?;
    redo(version, &record, end, target, page)
}

/// As [`redo`], for a page that the record names, by one of its references.
pub fn redo_named(
    version: Version,
    record: &Record,
    end: Lsn,
    block: &BlockRef,
    page: &mut Page,
) -> Result<(), RedoError> {
    let outcome = match version {
        Version::V15 if block.has_image_to_apply() => {
            restore(block, end, page)?;
            match record.rmid {
                rmid::GIST => gist::after_restore(record, block, end, page),
                rmid::HASH => hash::after_restore(record, block, page),
                _ => Ok(()),
            }
        }
        Version::V15 => redo_block(record, block, end, page),
    };
    outcome.map_err(|fault| fault.of(record, Target::Page(block.key)))
}

/// Whether there is redo for the pages that records of this kind name.
pub(crate) fn is_supported(rmid: u8) -> bool {
    block_redo(rmid).is_some()
}

/// xlogutils.c, `XLogReadBufferForRedoExtended`: a page restored as new keeps no LSN.
fn restore(block: &BlockRef, end: Lsn, page: &mut Page) -> Result<(), RedoError> {
    if let Some(image) = &block.image {
        let target = Target::Page(block.key);
        image.restore(page).map_err(|reason| RedoError::Image { target, reason })?;
    }
    if !page.is_new() {
        page.set_lsn(end);
    }
    Ok(())
}

fn block_redo(rmid: u8) -> Option<BlockRedo> {
    match rmid {
        rmid::HEAP => Some(|record, block, _, page| heap::redo(record, block, page)),
        rmid::HEAP2 => Some(|record, block, _, page| heap2::redo(record, block, page)),
        rmid::BTREE => Some(|record, block, _, page| btree::redo(record, block, page)),
        rmid::HASH => Some(|record, block, _, page| hash::redo(record, block, page)),
        rmid::GIN => Some(|record, block, _, page| gin::redo(record, block, page)),
        rmid::GIST => Some(gist::redo),
        rmid::SPGIST => Some(|record, block, _, page| spgist::redo(record, block, page)),
        rmid::BRIN => Some(|record, block, _, page| brin::redo(record, block, page)),
        rmid::SEQUENCE => Some(|record, _, _, page| sequence::redo(record, page)),
        rmid::GENERIC => Some(|_, block, _, page| generic::redo(block, page)),
        _ => None,
    }
}

fn redo_block(record: &Record, block: &BlockRef, end: Lsn, page: &mut Page) -> Outcome {
    if record.rmid == rmid::HEAP2 && block.key.fork.fork == Fork::VisibilityMap {
        return heap2::set_visibility(record, end, page);
    }
    if record.rmid == rmid::HASH && hash::only_locks(record, block) {
        return Ok(());
    }
    block_redo(record.rmid).ok_or(Fault::Unsupported)?(record, block, end, page)?;
    page.set_lsn(end);
    Ok(())
}

/// A visibility map's page that the record changes without naming it. Clearing bits leaves its LSN alone (`visibilitymap_clear`).
fn redo_visibility(record: &Record, key: PageKey, page: &mut Page) -> Outcome {
    if key.fork.fork != Fork::VisibilityMap {
        return Err(Fault::NotTouched);
    }
    match record.rmid {
        rmid::HEAP => heap::clear_visibility(record, key, page),
        rmid::HEAP2 => heap2::clear_visibility(record, key, page),
        rmid::STORAGE => match rmgr::storage::Storage::parse(record.info, record.main) {
            Some(rmgr::storage::Storage::Truncate(truncate)) => {
                visibility_map::Place::of(truncate.blocks).clear_from_here(page);
                Ok(())
            }
            _ => Err(Fault::Malformed),
        },
        _ => Err(Fault::NotTouched),
    }
}

#[cfg(test)]
mod tests;
