//! Hash's records (Postgres: `src/include/access/hash_xlog.h`).

use super::{INFO_MASK, Offsets};
use crate::fields::Fields;

/// What a Hash record's main data says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hash<'a> {
    /// `XLOG_HASH_INIT_META_PAGE`: block 0 becomes the meta page.
    InitMeta(InitMeta),
    /// `XLOG_HASH_INIT_BITMAP_PAGE`: block 0 becomes a bitmap of so many bytes, block 1 is the meta page.
    InitBitmap(u16),
    /// `XLOG_HASH_INSERT`: block 0 gets the item in its data under this number, block 1 is the meta page.
    Insert(u16),
    /// `XLOG_HASH_ADD_OVFL_PAGE`: block 0 is the new page, 1 the one before it, 2 a bitmap, 3 a new bitmap, 4 the meta page.
    AddOverflow(AddOverflow),
    /// `XLOG_HASH_SPLIT_ALLOCATE_PAGE`: block 0 is the bucket, 1 the new one, 2 the meta page.
    SplitAllocate(SplitAllocate),
    /// `XLOG_HASH_SPLIT_PAGE`: block 0 comes as an image.
    SplitPage,
    /// `XLOG_HASH_SPLIT_COMPLETE`: flags of blocks 0 and 1.
    SplitComplete {
        /// The bucket's flags.
        old_flags: u16,
        /// The new bucket's flags.
        new_flags: u16,
    },
    /// `XLOG_HASH_MOVE_PAGE_CONTENTS` of so many tuples: block 0 is only locked, 1 gets the tuples in its data, 2 loses those in its.
    MoveContents(u16),
    /// `XLOG_HASH_SQUEEZE_PAGE`: block 0 is only locked, 1 gets tuples, 2 becomes unused, 3 and 4 are its neighbours, 5 its bitmap, 6 the meta page.
    Squeeze(Squeeze),
    /// `XLOG_HASH_DELETE`: block 0 is only locked, 1 loses the items in its data.
    Delete {
        /// The page has no dead items left.
        clear_dead: bool,
    },
    /// `XLOG_HASH_SPLIT_CLEANUP` of block 0.
    SplitCleanup,
    /// `XLOG_HASH_UPDATE_META_PAGE`: the number of tuples in block 0.
    UpdateMeta(f64),
    /// `XLOG_HASH_VACUUM_ONE_PAGE`: these items of block 0 go, block 1 is the meta page.
    VacuumOnePage(Offsets<'a>),
}

/// `xl_hash_init_meta_page`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InitMeta {
    /// The tuples expected.
    pub tuples: f64,
    /// The hash function.
    pub function: u32,
    /// Tuples in a bucket.
    pub fill: u16,
}

/// `xl_hash_add_ovfl_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddOverflow {
    /// Bytes of a bitmap.
    pub bitmap_bytes: u16,
    /// The page was one that was free.
    pub was_free: bool,
}

/// `xl_hash_split_allocate_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitAllocate {
    /// The new bucket's number.
    pub new_bucket: u32,
    /// The bucket's flags.
    pub old_flags: u16,
    /// The new bucket's flags.
    pub new_flags: u16,
    /// The meta page's data begin with new masks.
    pub has_masks: bool,
    /// The meta page's data end with a new split point.
    pub has_split_point: bool,
}

/// `xl_hash_squeeze_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squeeze {
    /// The page before the one that goes.
    pub previous: u32,
    /// The page after it.
    pub next: u32,
    /// How many tuples move.
    pub tuples: u16,
    /// They move to the page before it.
    pub to_previous: bool,
}

impl<'a> Hash<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<Hash<'a>> {
        let mut fields = Fields::new(main);
        match info & INFO_MASK {
            0x00 => Some(Hash::InitMeta(InitMeta {
                tuples: f64::from_bits(fields.u64()?),
                function: fields.u32()?,
                fill: fields.u16()?,
            })),
            0x10 => Some(Hash::InitBitmap(fields.u16()?)),
            0x20 => Some(Hash::Insert(fields.u16()?)),
            0x30 => {
                let (bitmap_bytes, was_free) = (fields.u16()?, fields.u8()? != 0);
                Some(Hash::AddOverflow(AddOverflow { bitmap_bytes, was_free }))
            }
            0x40 => {
                let new_bucket = fields.u32()?;
                let (old_flags, new_flags, parts) = (fields.u16()?, fields.u16()?, fields.u8()?);
                Some(Hash::SplitAllocate(SplitAllocate {
                    new_bucket,
                    old_flags,
                    new_flags,
                    has_masks: parts & 1 != 0,
                    has_split_point: parts & 2 != 0,
                }))
            }
            0x50 => Some(Hash::SplitPage),
            0x60 => {
                let (old_flags, new_flags) = (fields.u16()?, fields.u16()?);
                Some(Hash::SplitComplete { old_flags, new_flags })
            }
            0x70 => Some(Hash::MoveContents(fields.u16()?)),
            0x80 => {
                let (previous, next, tuples) = (fields.u32()?, fields.u32()?, fields.u16()?);
                fields.skip(1)?;
                let to_previous = fields.u8()? != 0;
                Some(Hash::Squeeze(Squeeze { previous, next, tuples, to_previous }))
            }
            0x90 => Some(Hash::Delete { clear_dead: fields.u8()? != 0 }),
            0xA0 => Some(Hash::SplitCleanup),
            0xB0 => Some(Hash::UpdateMeta(f64::from_bits(fields.u64()?))),
            0xC0 => {
                fields.skip(4)?;
                let count = usize::try_from(fields.i32()?).ok()?;
                Some(Hash::VacuumOnePage(Offsets::take(&mut fields, count)?))
            }
            _ => None,
        }
    }
}
