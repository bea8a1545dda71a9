//! The meta page of a hash index (Postgres: `src/include/access/hash.h`, `HashMetaPageData`; hashpage.c, `_hash_init_metabuffer`).

use super::{NONE, Opaque, init as init_page, page_flag};
use crate::{
    BlockRef, PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageError,
    fields::Fields,
    redo::{Fault, Outcome},
    rmgr::hash::{InitMeta, SplitAllocate},
};

/// `HASH_MAGIC`.
const MAGIC: u32 = 0x0644_0640;
/// `HASH_VERSION`.
const VERSION: u32 = 4;
/// `HASH_MAX_SPLITPOINTS`.
const SPLIT_POINTS: usize = 98;
/// `HASH_MAX_BITMAPS`.
const BITMAPS: usize = 1024;
/// The most buckets that an index begins with.
const BUCKETS_MAX: u32 = 0x4000_0000;
/// Bytes of a page without header and special space (`hashm_bsize`).
const ROOM_BYTES: u16 = (PAGE_BYTES - PAGE_HEADER_BYTES - super::SPECIAL_BYTES) as u16;
/// Bytes of a bitmap, the largest power of two that there is room for (`hashm_bmsize`).
const BITMAP_BYTES: u16 = 1 << ROOM_BYTES.ilog2();
/// `HASH_SPLITPOINT_GROUPS_WITH_ONE_PHASE`: groups of buckets that come at once; later ones come in four phases.
const SINGLE_PHASE_GROUPS: u32 = 10;

/// Positions of the fields in the page.
mod at {
    use super::{BITMAPS, PAGE_HEADER_BYTES, SPLIT_POINTS};

    pub const START: usize = PAGE_HEADER_BYTES;
    pub const VERSION: usize = START + 4;
    pub const TUPLES: usize = START + 8;
    pub const FILL: usize = START + 16;
    pub const PAGE_ROOM: usize = START + 18;
    pub const BITMAP_BYTES: usize = START + 20;
    pub const BITMAP_SHIFT: usize = START + 22;
    pub const MAX_BUCKET: usize = START + 24;
    pub const HIGH_MASK: usize = START + 28;
    pub const LOW_MASK: usize = START + 32;
    pub const SPLIT_POINT: usize = START + 36;
    pub const FIRST_FREE: usize = START + 40;
    pub const BITMAPS_USED: usize = START + 44;
    pub const FUNCTION: usize = START + 48;
    pub const SPARES: usize = START + 52;
    pub const BITMAP_BLOCKS: usize = SPARES + SPLIT_POINTS * 4;
    /// With the padding to a multiple of 8.
    pub const END: usize = START + (BITMAP_BLOCKS + BITMAPS * 4 - START).next_multiple_of(8);
}

/// A new index's meta page.
pub(super) fn init(init: InitMeta, page: &mut Page) -> Outcome {
    let flags = page_flag::META;
    init_page(page, Opaque { previous: NONE, next: NONE, bucket: NONE, flags })?;
    let wanted = init.tuples / f64::from(init.fill);
    let buckets = if wanted <= 2.0 {
        2
    } else if wanted >= f64::from(BUCKETS_MAX) {
        BUCKETS_MAX
    } else {
        total_buckets(split_point(wanted as u32))
    };
    let high_mask = (buckets + 1).next_power_of_two() - 1;
    let first = split_point(buckets);
    put(page, at::START, MAGIC);
    put(page, at::VERSION, VERSION);
    let shorts = [
        (at::FILL, init.fill),
        (at::PAGE_ROOM, ROOM_BYTES),
        (at::BITMAP_BYTES, BITMAP_BYTES),
        (at::BITMAP_SHIFT, BITMAP_BYTES.ilog2() as u16 + 3),
    ];
    for (position, value) in shorts {
        page.bytes_mut()[position..position + 2].copy_from_slice(&value.to_le_bytes());
    }
    put(page, at::MAX_BUCKET, buckets - 1);
    put(page, at::HIGH_MASK, high_mask);
    put(page, at::LOW_MASK, high_mask >> 1);
    put(page, at::SPLIT_POINT, first);
    put(page, at::FUNCTION, init.function);
    put(page, spare(first)?, 1);
    page.set_lower(at::END);
    Ok(())
}

/// `hash_xlog_init_bitmap_page` on the meta page.
pub(super) fn add_first_bitmap(page: &mut Page) -> Outcome {
    page.bounds()?;
    let block = get(page, at::MAX_BUCKET).wrapping_add(2);
    add_bitmap(page, block)
}

/// The number of tuples changes.
pub(super) fn change_tuples(page: &mut Page, change: impl FnOnce(f64) -> f64) -> Outcome {
    page.bounds()?;
    let bits = u64::from(get(page, at::TUPLES + 4)) << 32 | u64::from(get(page, at::TUPLES));
    let new = change(f64::from_bits(bits)).to_bits();
    put(page, at::TUPLES, new as u32);
    put(page, at::TUPLES + 4, (new >> 32) as u32);
    Ok(())
}

/// `hash_xlog_add_ovfl_page` on the meta page.
pub(super) fn add_overflow_page(
    first_free: u32,
    was_free: bool,
    new_bitmap: Option<u32>,
    page: &mut Page,
) -> Outcome {
    set_first_free(first_free, page)?;
    if was_free {
        return Ok(());
    }
    let spare = spare(get(page, at::SPLIT_POINT))?;
    let mut pages = 1;
    if let Some(block) = new_bitmap {
        add_bitmap(page, block)?;
        pages += 1;
    }
    let spares = get(page, spare).wrapping_add(pages);
    put(page, spare, spares);
    Ok(())
}

/// Where the search for a free overflow page begins.
pub(super) fn set_first_free(first_free: u32, page: &mut Page) -> Outcome {
    page.bounds()?;
    put(page, at::FIRST_FREE, first_free);
    Ok(())
}

/// `hash_xlog_split_allocate_page` on the meta page.
pub(super) fn add_bucket(block: &BlockRef, split: SplitAllocate, page: &mut Page) -> Outcome {
    page.bounds()?;
    let mut fields = Fields::new(block.data);
    let mut word = || fields.u32().ok_or(Fault::Malformed);
    put(page, at::MAX_BUCKET, split.new_bucket);
    if split.has_masks {
        put(page, at::LOW_MASK, word()?);
        put(page, at::HIGH_MASK, word()?);
    }
    if split.has_split_point {
        let point = word()?;
        put(page, spare(point)?, word()?);
        put(page, at::SPLIT_POINT, point);
    }
    Ok(())
}

fn add_bitmap(page: &mut Page, block: u32) -> Outcome {
    let used = get(page, at::BITMAPS_USED);
    if used as usize >= BITMAPS {
        return Err(PageError::Content("the meta page has no room for a bitmap").into());
    }
    put(page, at::BITMAP_BLOCKS + used as usize * 4, block);
    put(page, at::BITMAPS_USED, used + 1);
    Ok(())
}

/// Where the number of overflow pages before a split point stands.
fn spare(point: u32) -> Result<usize, Fault> {
    let out_of_range = PageError::Content("the meta page has no such split point");
    if point as usize >= SPLIT_POINTS {
        return Err(out_of_range.into());
    }
    Ok(at::SPARES + point as usize * 4)
}

/// The phase in which this many buckets are there (hashutil.c, `_hash_spareindex`).
fn split_point(buckets: u32) -> u32 {
    let group = buckets.max(1).next_power_of_two().ilog2();
    if group < SINGLE_PHASE_GROUPS {
        return group;
    }
    SINGLE_PHASE_GROUPS + (group - SINGLE_PHASE_GROUPS) * 4 + (((buckets - 1) >> (group - 3)) & 3)
}

/// The buckets that are there after a phase (hashutil.c, `_hash_get_totalbuckets`).
fn total_buckets(phase: u32) -> u32 {
    if phase < SINGLE_PHASE_GROUPS {
        return 1 << phase;
    }
    let group = SINGLE_PHASE_GROUPS + (phase - SINGLE_PHASE_GROUPS) / 4;
    let before = 1 << (group - 1);
    before + before / 4 * ((phase - SINGLE_PHASE_GROUPS) % 4 + 1)
}

fn get(page: &Page, position: usize) -> u32 {
    let bytes = page.bytes();
    u32::from_le_bytes([
        bytes[position],
        bytes[position + 1],
        bytes[position + 2],
        bytes[position + 3],
    ])
}

fn put(page: &mut Page, position: usize, value: u32) {
    page.bytes_mut()[position..position + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_come_in_groups_of_four_phases_once_there_are_many() {
        assert_eq!(split_point(2), 1);
        assert_eq!(split_point(512), 9);
        assert_eq!(split_point(513), 10);
        assert_eq!(split_point(1024), 13);
        assert_eq!(total_buckets(10), 640);
        for phase in 0..93 {
            assert_eq!(split_point(total_buckets(phase)), phase);
        }
    }
}
