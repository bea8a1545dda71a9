//! A record and the pages before it, as an input says them. The lengths in the record's headers are right whatever the input is, so
//! that what is fuzzed is the payload and not the sums of `Record::parse`; those are the reader's target's.

use bytes::Bytes;
use wal_format::{BLOCK_ID_MAX, Fork, Page, PageKey, RECORD_HEADER_BYTES, Relation, Target};

use super::{
    cursor::{Cursor, put_counted},
    page_shape::PageShape,
};

/// The one relation of all blocks.
const RELATION: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub info: u8,
    pub xid: u32,
    /// The replication origin; 0 for none.
    pub origin: u16,
    pub blocks: Vec<Block>,
    /// What stands before redo on the pages that the record does not name.
    pub elsewhere: PageShape,
    pub main: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub id: u8,
    pub fork: u8,
    pub number: u32,
    pub will_init: bool,
    pub data: Vec<u8>,
    pub image: Option<Image>,
    /// The page before redo.
    pub before: PageShape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `bimg_info`.
    pub info: u8,
    pub hole_offset: u16,
    pub hole_bytes: u16,
    pub bytes: Vec<u8>,
}

impl Case {
    pub fn decode(input: &[u8]) -> Case {
        let mut input = Cursor::new(input);
        let (info, xid, origin) = (input.u8(), input.u32(), input.u16());
        let count = usize::from(input.u8() % (BLOCK_ID_MAX + 2));
        let mut blocks: Vec<Block> = Vec::new();
        while blocks.len() < count && !input.is_empty() {
            let first = blocks.last().map_or(0, |last| last.id + 1);
            let block = Block::decode(first, &mut input);
            if block.id > BLOCK_ID_MAX {
                break;
            }
            blocks.push(block);
        }
        let elsewhere = PageShape::decode(&mut input);
        Case { info, xid, origin, blocks, elsewhere, main: input.rest().to_vec() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut to = vec![self.info];
        to.extend(self.xid.to_le_bytes());
        to.extend(self.origin.to_le_bytes());
        to.push(self.blocks.len() as u8);
        let mut first = 0;
        for block in &self.blocks {
            block.encode(first, &mut to);
            first = block.id + 1;
        }
        self.elsewhere.encode(&mut to);
        to.extend(&self.main);
        to
    }

    /// The record's bytes (xlogrecord.h), its checksum zero.
    pub fn record(&self, rmid: u8) -> Bytes {
        let mut bytes = vec![0; RECORD_HEADER_BYTES];
        if self.origin != 0 {
            bytes.push(253);
            bytes.extend(self.origin.to_le_bytes());
        }
        for block in &self.blocks {
            block.put_header(&mut bytes);
        }
        // The short form of a header is the reader's matter.
        bytes.push(254);
        bytes.extend((self.main.len() as u32).to_le_bytes());
        for block in &self.blocks {
            bytes.extend(block.image.iter().flat_map(|image| &image.bytes));
            bytes.extend(&block.data);
        }
        bytes.extend(&self.main);
        let total_bytes = bytes.len() as u32;
        bytes[..4].copy_from_slice(&total_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.xid.to_le_bytes());
        bytes[16..18].copy_from_slice(&[self.info, rmid]);
        Bytes::from(bytes)
    }

    /// The page before redo.
    pub fn page(&self, target: Target) -> Box<Page> {
        let named = self.blocks.iter().find(|block| target == Target::Page(block.key()));
        named.map_or(&self.elsewhere, |block| &block.before).page()
    }

    /// A visibility map's page.
    pub fn elsewhere_key(&self) -> PageKey {
        RELATION.fork(Fork::VisibilityMap).block(u32::from(self.origin))
    }
}

impl Block {
    /// `first` is the smallest number that the block may have.
    fn decode(first: u8, input: &mut Cursor<'_>) -> Block {
        let bits = input.u8();
        let (has_image, gap) = (bits & 8 != 0, bits >> 5);
        Block {
            id: first + gap,
            fork: bits & 3,
            will_init: bits & 4 != 0,
            number: input.u32(),
            data: input.counted().to_vec(),
            image: has_image.then(|| Image {
                info: input.u8(),
                hole_offset: input.u16(),
                hole_bytes: input.u16(),
                bytes: input.counted().to_vec(),
            }),
            before: PageShape::decode(input),
        }
    }

    fn encode(&self, first: u8, to: &mut Vec<u8>) {
        let image = if self.image.is_some() { 8 } else { 0 };
        let init = if self.will_init { 4 } else { 0 };
        to.push(self.fork | init | image | (self.id - first) << 5);
        to.extend(self.number.to_le_bytes());
        put_counted(to, &self.data);
        if let Some(image) = &self.image {
            to.push(image.info);
            to.extend(image.hole_offset.to_le_bytes());
            to.extend(image.hole_bytes.to_le_bytes());
            put_counted(to, &image.bytes);
        }
        self.before.encode(to);
    }

    fn key(&self) -> PageKey {
        let fork = Fork::from_number(self.fork).unwrap_or(Fork::Main);
        RELATION.fork(fork).block(self.number)
    }

    /// `XLogRecordBlockHeader` and what follows it.
    fn put_header(&self, to: &mut Vec<u8>) {
        let has = |is: bool, bit: u8| if is { bit } else { 0 };
        let bits = has(self.image.is_some(), 0x10)
            | has(!self.data.is_empty(), 0x20)
            | has(self.will_init, 0x40);
        to.extend([self.id, self.fork | bits]);
        to.extend((self.data.len() as u16).to_le_bytes());
        if let Some(image) = &self.image {
            to.extend((image.bytes.len() as u16).to_le_bytes());
            to.extend(image.hole_offset.to_le_bytes());
            to.push(image.info);
            let is_packed = image.info & 0x1C != 0;
            if is_packed && image.info & 0x01 != 0 {
                to.extend(image.hole_bytes.to_le_bytes());
            }
        }
        for number in [RELATION.tablespace, RELATION.database, RELATION.number, self.number] {
            to.extend(number.to_le_bytes());
        }
    }
}
