//! Records spoiled on purpose: whether redo looks at each kind's payload at all, and the comparison at what it does.

use wal_format::{Lsn, Page, Record, Target, Version, redo};

use crate::{coverage::Tally, replay::difference};

/// How many spoiled records of each kind are tried.
const TRIED_MAX: u64 = 400;
/// How many bytes of one record are.
const BYTES_TRIED: u64 = 8;

/// Applies the record with one byte of its payload spoiled: it must be refused, or the page must differ from the image, at
/// least for some byte of some record of each kind.
pub fn try_some(record: &Record, index: usize, end: Lsn, page: &Page, tally: &mut Tally) {
    if tally.spoiled >= TRIED_MAX {
        return;
    }
    let target = Target::Page(record.blocks[index].key);
    for step in 0..BYTES_TRIED {
        let wrong;
        let mut spoiled = Record {
            blocks: record.blocks.iter().cloned().collect(),
            main: record.main,
            ..*record
        };
        let at = (end.0 / 8).wrapping_mul(7) + step * 3;
        let block = &mut spoiled.blocks[index];
        if step % 2 == 0 && !block.data.is_empty() {
            wrong = spoil(block.data, at);
            block.data = &wrong;
        } else if !spoiled.main.is_empty() {
            wrong = spoil(spoiled.main, at);
            spoiled.main = &wrong;
        } else {
            continue;
        }
        tally.spoiled += 1;
        let mut page = page.clone();
        let outcome = redo(Version::V15, &spoiled, end, target, &mut page);
        tally.caught += u64::from(outcome.is_err() || difference(record, index, &page).is_some());
    }
}

fn spoil(bytes: &[u8], at: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = (at % bytes.len() as u64) as usize;
    bytes[at] ^= 1 << (at % 8);
    bytes
}
