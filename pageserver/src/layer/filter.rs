//! Which keys a layer has versions of, in ten bits a key: whoever looks for one that it does not
//! have reads no block in 99 of 100 cases.

use crate::key::{KEY_BYTES, Key};

/// Bits for each key.
const BITS_PER_KEY: usize = 10;
/// Bits that are set for each key.
const PROBES: u32 = 7;

/// The hashes of a layer's keys, while it is written.
#[derive(Default)]
pub struct FilterBuilder {
    hashes: Vec<u64>,
}

impl FilterBuilder {
    /// Adds a key.
    pub fn add(&mut self, key: Key) {
        self.hashes.push(hash(key));
    }

    /// The filter's bytes; none where no key was added.
    pub fn finish(&self) -> Vec<u8> {
        let mut bits = vec![0_u8; (self.hashes.len() * BITS_PER_KEY).div_ceil(8)];
        let count = bits.len() as u64 * 8;
        for hash in &self.hashes {
            for bit in probes(*hash, count) {
                bits[(bit / 8) as usize] |= 1 << (bit % 8);
            }
        }
        bits
    }
}

/// A layer's filter.
pub struct Filter {
    bits: Vec<u8>,
}

impl Filter {
    /// Any bytes are a filter.
    pub fn new(bits: Vec<u8>) -> Filter {
        Filter { bits }
    }

    /// Whether the layer may have versions of this key; where not, it has none.
    pub fn may_have(&self, key: Key) -> bool {
        let count = self.bits.len() as u64 * 8;
        let is_set = |bit: u64| self.bits[(bit / 8) as usize] & 1 << (bit % 8) != 0;
        count > 0 && probes(hash(key), count).all(is_set)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.bits.len()
    }
}

/// Spread over `count` bits by a product, which costs a tenth of a division.
fn probes(hash: u64, count: u64) -> impl Iterator<Item = u64> {
    let (first, step) = (hash as u32, (hash >> 32) as u32 | 1);
    (0..PROBES).map(move |probe| {
        let spread = first.wrapping_add(probe.wrapping_mul(step));
        (u64::from(spread) * count) >> 32
    })
}

/// The last step of splitmix64, over the key's 18 bytes as three little-endian numbers.
fn hash(key: Key) -> u64 {
    let mut words = [0; 24];
    words[..KEY_BYTES].copy_from_slice(&key.encode());
    words.chunks_exact(8).fold(0, |hash, word| {
        let mut mixed = hash ^ word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    })
}

#[cfg(test)]
mod tests {
    use wal_format::{Fork, Relation};

    use super::*;

    fn key(relation: u32, block: u32) -> Key {
        let relation = Relation { tablespace: 1663, database: 5, number: relation };
        Key::page(relation.fork(Fork::Main).block(block))
    }

    #[test]
    fn every_key_is_found_and_few_others_are() {
        let mut builder = FilterBuilder::default();
        (0..10_000).for_each(|block| builder.add(key(100 + block % 7, block)));
        let filter = Filter::new(builder.finish());
        assert!((0..10_000).all(|block| filter.may_have(key(100 + block % 7, block))));
        let wrong = (0..10_000).filter(|block| filter.may_have(key(107, *block))).count();
        assert!(wrong < 200, "{wrong} of 10,000 keys that are not there seem to be");
        assert!(!Filter::new(FilterBuilder::default().finish()).may_have(key(1, 1)));
    }
}
