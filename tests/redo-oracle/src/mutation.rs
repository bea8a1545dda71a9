//! Redo made wrong on purpose, so that the oracle can show that it would notice.

use wal_format::{PAGE_BYTES, Page};

/// How many places are tried before a page is left as it is: the masks may hide most of it.
const PLACES_TRIED_MAX: u64 = 64;
/// Of a page that redo made empty, a bit of the last so many bytes is wrong.
const TAIL_BYTES: u64 = 512;

/// A wrong redo function: of each page that a record of the resource manager changes, one bit is wrong that no mask hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    /// The resource manager.
    pub rmid: u8,
    /// Which bits.
    pub seed: u64,
}

impl Mutation {
    /// Spoils `after`, which redo made of `before`: best a byte that redo wrote. `mask` hides what is not compared.
    pub fn damage(&self, number: u64, before: &Page, after: &mut Page, mask: impl Fn(&mut Page)) {
        let masked = |page: &Page| {
            let mut page = page.clone();
            mask(&mut page);
            page
        };
        let (seen_before, seen) = (masked(before), masked(after));
        let written: Vec<usize> =
            (0..PAGE_BYTES).filter(|at| seen_before.bytes()[*at] != seen.bytes()[*at]).collect();
        let mut random = mixed(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for _ in 0..PLACES_TRIED_MAX {
            random = mixed(random);
            let at = match written.len() as u64 {
                // Where nothing writes again soon.
                0 => PAGE_BYTES - 1 - (random % TAIL_BYTES) as usize,
                count => written[(random % count) as usize],
            };
            let mut wrong = after.clone();
            wrong.bytes_mut()[at] ^= 1 << (random >> 60 & 7);
            if masked(&wrong) != seen {
                *after = wrong;
                return;
            }
        }
    }
}

/// splitmix64's finaliser.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damage_is_one_bit_that_the_mask_does_not_hide() {
        let before = Page::zeroed();
        let mut redone = Page::zeroed();
        redone.bytes_mut()[100..140].fill(7);
        for seed in 0..50 {
            let mut after = redone.clone();
            let mask = |page: &mut Page| page.bytes_mut()[..120].fill(0);
            Mutation { rmid: 0, seed }.damage(3, &before, &mut after, mask);
            let bits = |at: usize| (after.bytes()[at] ^ redone.bytes()[at]).count_ones();
            assert_eq!((0..PAGE_BYTES).map(bits).sum::<u32>(), 1);
            assert_eq!((120..140).map(bits).sum::<u32>(), 1);
        }
    }
}
