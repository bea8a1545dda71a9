//! A full-page image in a WAL record, and the page it stands for (xlogreader.c: `RestoreBlockImage`).

use std::cell::RefCell;

use zstd::bulk::Decompressor;

use crate::{Damage, PAGE_BYTES, Page, WalError, pglz};

thread_local! {
    /// Making one takes many times longer than unpacking a page.
    static ZSTANDARD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// How an image's bytes are packed (`wal_compression`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// As they are.
    None,
    /// Postgres' own.
    Pglz,
    /// An LZ4 block.
    Lz4,
    /// A Zstandard frame.
    Zstd,
}

/// The full image of a page, without the hole between its line pointers and its tuples.
#[derive(Clone, Debug)]
pub struct BlockImage<'a> {
    /// The number of the block reference that has it.
    pub block: u8,
    /// The image, packed.
    pub bytes: &'a [u8],
    /// Where the hole begins; 0 where there is none.
    pub hole_offset: u16,
    /// How long the hole is; 0 where there is none.
    pub hole_bytes: u16,
    /// How the bytes are packed.
    pub compression: Compression,
    /// Redo puts the image in the page's place; else it is there for consistency checks only (`BKPIMAGE_APPLY`).
    pub apply: bool,
}

impl BlockImage<'_> {
    /// Puts the image in the page's place, with zeros in the hole.
    pub fn restore(&self, page: &mut Page) -> Result<(), WalError> {
        let page = page.bytes_mut();
        let hole_offset = usize::from(self.hole_offset);
        let hole_bytes = usize::from(self.hole_bytes);
        let filled = PAGE_BYTES
            .checked_sub(hole_bytes)
            .filter(|filled| hole_offset <= *filled)
            .ok_or_else(|| self.damaged("its hole does not fit a page"))?;
        let unpacked =
            page.get_mut(..filled).ok_or_else(|| self.damaged("its hole does not fit a page"))?;
        self.unpack(unpacked).map_err(|reason| self.damaged(reason))?;
        page.copy_within(hole_offset..filled, hole_offset + hole_bytes);
        page[hole_offset..hole_offset + hole_bytes].fill(0);
        Ok(())
    }

    /// Unpacks the image to exactly `to`.
    fn unpack(&self, to: &mut [u8]) -> Result<(), &'static str> {
        let exact = |right: bool| right.then_some(()).ok_or("it unpacks to another length");
        match self.compression {
            Compression::None => {
                exact(self.bytes.len() == to.len())?;
                to.copy_from_slice(self.bytes);
                Ok(())
            }
            Compression::Pglz => pglz::decompress(self.bytes, to),
            Compression::Lz4 => {
                let unpacked = lz4_flex::block::decompress_into(self.bytes, to)
                    .map_err(|_| "it is no LZ4 block of a page")?;
                exact(unpacked == to.len())
            }
            Compression::Zstd => {
                let unpacked = ZSTANDARD.with(|context| {
                    let mut context = context.try_borrow_mut().ok()?;
                    let context = match &mut *context {
                        Some(context) => context,
                        none => none.insert(Decompressor::new().ok()?),
                    };
                    context.decompress_to_buffer(self.bytes, to).ok()
                });
                let unpacked = unpacked.ok_or("it is no Zstandard frame of a page")?;
                exact(unpacked == to.len())
            }
        }
    }

    fn damaged(&self, reason: &'static str) -> WalError {
        WalError::Record(Damage::Image { block: self.block, reason })
    }
}
