//! A page before redo, said in few bytes: a base, and runs of bytes laid over it.

use wal_format::{PAGE_BYTES, PAGE_HEADER_BYTES, Page};

use super::cursor::{Cursor, put_counted};

/// Runs that are shorter than this do not pay for their own header.
const GAP_BYTES_MIN: usize = 8;

/// What is below the runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing was written yet.
    Zeros,
    /// Every byte is noise from this seed.
    Noise(u16),
    /// A page that is in order, with items of noise.
    Orderly {
        /// Of the noise.
        seed: u16,
        /// Its items.
        items: u8,
        /// Its special space in units of 8 bytes.
        special: u8,
    },
}

/// A page before redo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageShape {
    pub base: Base,
    /// Bytes that are skipped, and those that then stand there.
    pub runs: Vec<(u16, Vec<u8>)>,
}

impl PageShape {
    /// The shape of a real page.
    pub fn of(page: &Page) -> PageShape {
        let bytes = page.bytes();
        let mut runs = Vec::new();
        let (mut end, mut at) = (0, 0);
        while at < PAGE_BYTES {
            if bytes[at] == 0 {
                at += 1;
                continue;
            }
            let begin = at;
            let mut zeros = 0;
            while at < PAGE_BYTES && zeros < GAP_BYTES_MIN {
                zeros = if bytes[at] == 0 { zeros + 1 } else { 0 };
                at += 1;
            }
            runs.push(((begin - end) as u16, bytes[begin..at - zeros].to_vec()));
            end = at - zeros;
        }
        PageShape { base: Base::Zeros, runs }
    }

    pub fn decode(input: &mut Cursor<'_>) -> PageShape {
        let base = match input.u8() % 3 {
            0 => Base::Zeros,
            1 => Base::Noise(input.u16()),
            _ => Base::Orderly { seed: input.u16(), items: input.u8(), special: input.u8() },
        };
        let count = usize::from(input.u16());
        let mut runs = Vec::new();
        while runs.len() < count && !input.is_empty() {
            runs.push((input.u16(), input.counted().to_vec()));
        }
        PageShape { base, runs }
    }

    pub fn encode(&self, to: &mut Vec<u8>) {
        match self.base {
            Base::Zeros => to.push(0),
            Base::Noise(seed) => {
                to.push(1);
                to.extend(seed.to_le_bytes());
            }
            Base::Orderly { seed, items, special } => {
                to.push(2);
                to.extend(seed.to_le_bytes());
                to.extend([items, special]);
            }
        }
        to.extend((self.runs.len() as u16).to_le_bytes());
        for (skip, bytes) in &self.runs {
            to.extend(skip.to_le_bytes());
            put_counted(to, bytes);
        }
    }

    pub fn page(&self) -> Box<Page> {
        let mut page = Page::zeroed();
        match self.base {
            Base::Zeros => {}
            Base::Noise(seed) => noise(u64::from(seed), page.bytes_mut()),
            Base::Orderly { seed, items, special } => orderly(seed, items, special, &mut page),
        }
        let mut at = 0;
        for (skip, bytes) in &self.runs {
            at += usize::from(*skip);
            let Some(rest) = page.bytes_mut().get_mut(at..) else { break };
            let count = bytes.len().min(rest.len());
            rest[..count].copy_from_slice(&bytes[..count]);
            at += count;
        }
        page
    }
}

/// Line pointers and items as they are on a page that Postgres wrote, but for what the items say.
fn orderly(seed: u16, items: u8, special: u8, page: &mut Page) {
    let special = usize::from(special % 128) * 8;
    page.init(special);
    noise(u64::from(seed), &mut page.bytes_mut()[PAGE_BYTES - special..]);
    let mut random = Random(u64::from(seed) | 1 << 32);
    for offset in 1..=u16::from(items) {
        let bytes = 8 + random.next() as usize % 48;
        let Ok(item) = page.reserve_item(offset, bytes, wal_format::Placement::Overwrite) else {
            break;
        };
        noise(random.next(), item);
        // Of a heap's tuple, where its data begin; else no worse than other noise.
        if bytes > PAGE_HEADER_BYTES {
            item[22] = PAGE_HEADER_BYTES as u8;
        }
    }
}

fn noise(seed: u64, to: &mut [u8]) {
    let mut random = Random(seed | 1 << 40);
    for piece in to.chunks_mut(8) {
        piece.copy_from_slice(&random.next().to_le_bytes()[..piece.len()]);
    }
}

/// xorshift64\*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
