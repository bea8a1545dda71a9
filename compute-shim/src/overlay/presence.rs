//! Which units of a file are present locally: one bit each.

use std::ops::Range;

const WORD_BITS: u64 = u64::BITS as u64;

/// A set of units. Its memory follows the highest unit: 32 KiB for a file of 1 GiB.
#[derive(Default)]
pub(super) struct Presence {
    words: Vec<u64>,
}

impl Presence {
    pub(super) fn contains(&self, unit: u64) -> bool {
        let word = self.words.get((unit / WORD_BITS) as usize).copied().unwrap_or(0);
        word >> (unit % WORD_BITS) & 1 == 1
    }

    pub(super) fn insert(&mut self, units: Range<u64>) {
        let words = units.end.div_ceil(WORD_BITS) as usize;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        for unit in units {
            self.words[(unit / WORD_BITS) as usize] |= 1 << (unit % WORD_BITS);
        }
    }

    /// Removes all units from this one on.
    pub(super) fn remove_from(&mut self, unit: u64) {
        self.words.truncate(unit.div_ceil(WORD_BITS) as usize);
        if let Some(word) = self.words.get_mut((unit / WORD_BITS) as usize) {
            *word &= (1 << (unit % WORD_BITS)) - 1;
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_present_until_they_are_cut_off() {
        let mut presence = Presence::default();
        presence.insert(3..200);
        assert!(!presence.contains(2) && presence.contains(3) && presence.contains(199));
        assert!(!presence.contains(200) && !presence.contains(1 << 40));
        for cut in [130, 128, 65, 64, 5, 0] {
            presence.remove_from(cut);
            assert!(!presence.contains(cut), "unit {cut} came back");
            assert_eq!(presence.count(), cut.saturating_sub(3));
        }
    }
}
