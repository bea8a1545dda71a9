//! BRIN's records (Postgres: `src/include/access/brin_xlog.h`).

use crate::fields::Fields;

/// `XLOG_BRIN_OPMASK`.
const KIND_MASK: u8 = 0x70;
/// `XLOG_BRIN_INIT_PAGE`: block 0 is made anew.
pub(crate) const INIT_PAGE: u8 = 0x80;

/// What a BRIN record's main data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brin {
    /// `XLOG_BRIN_CREATE_INDEX`: block 0 becomes the meta page.
    CreateIndex {
        /// Heap blocks in a range.
        pages_per_range: u32,
        /// The format's version.
        version: u16,
    },
    /// `XLOG_BRIN_INSERT`: block 0 gets the tuple in its data, block 1 is the range map.
    Insert(Insert),
    /// `XLOG_BRIN_UPDATE`: likewise; the item of block 2 with this number goes.
    Update(Insert, u16),
    /// `XLOG_BRIN_SAMEPAGE_UPDATE`: the item of block 0 with this number becomes the tuple in its data.
    SamePageUpdate(u16),
    /// `XLOG_BRIN_REVMAP_EXTEND`: block 0 is the meta page, block 1 becomes a page of the range map.
    ExtendRangeMap {
        /// The new page.
        block: u32,
    },
    /// `XLOG_BRIN_DESUMMARIZE`: block 0 is the range map, block 1 loses the item.
    Desummarize {
        /// The range in the map.
        range: Range,
        /// The item that goes.
        offset: u16,
    },
}

/// Where a heap block's range stands in the range map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// A heap block of the range.
    pub heap_block: u32,
    /// Heap blocks in a range.
    pub pages_per_range: u32,
}

/// `xl_brin_insert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert {
    /// The range that the tuple sums up.
    pub range: Range,
    /// The tuple's number.
    pub offset: u16,
}

impl Brin {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &[u8]) -> Option<Brin> {
        let mut fields = Fields::new(main);
        match info & KIND_MASK {
            0x00 => {
                let (pages_per_range, version) = (fields.u32()?, fields.u16()?);
                Some(Brin::CreateIndex { pages_per_range, version })
            }
            0x10 => Insert::read(&mut fields).map(Brin::Insert),
            0x20 => {
                let old = fields.u16()?;
                fields.skip(2)?;
                Some(Brin::Update(Insert::read(&mut fields)?, old))
            }
            0x30 => Some(Brin::SamePageUpdate(fields.u16()?)),
            0x40 => Some(Brin::ExtendRangeMap { block: fields.u32()? }),
            0x50 => {
                let pages_per_range = fields.u32()?;
                let range = Range { pages_per_range, heap_block: fields.u32()? };
                Some(Brin::Desummarize { range, offset: fields.u16()? })
            }
            _ => None,
        }
    }
}

impl Insert {
    fn read(fields: &mut Fields<'_>) -> Option<Insert> {
        let heap_block = fields.u32()?;
        let range = Range { heap_block, pages_per_range: fields.u32()? };
        Some(Insert { range, offset: fields.u16()? })
    }
}
