//! A value as what differs from one of the same length: the records that change a page one after the
//! other are alike, but for a few bytes here and there. Of every eight bytes, in their order: one byte
//! whose bit i says whether byte i differs, then those that do. Bytes that the value does not have do not
//! differ.

use std::ops::Range;

/// The longest value that stands as a difference: so much may have to be known of the one before.
pub const BYTES_MAX: usize = 256;
/// Bytes that a byte of bits stands for.
const GROUP_BYTES: usize = 8;
const ENCODED_BYTES_MAX: usize = BYTES_MAX + BYTES_MAX / GROUP_BYTES;

/// Makes differences from the value that it was last shown.
pub struct Differences {
    before: [u8; BYTES_MAX],
    before_bytes: usize,
    encoded: [u8; ENCODED_BYTES_MAX],
}

impl Differences {
    /// No value before.
    pub fn new() -> Differences {
        let (before, encoded) = ([0; BYTES_MAX], [0; ENCODED_BYTES_MAX]);
        Differences { before, before_bytes: 0, encoded }
    }

    /// Forgets the value before.
    pub fn forget(&mut self) {
        self.before_bytes = 0;
    }

    /// Takes the value that is before the next one.
    #[inline]
    pub fn show(&mut self, value: &[u8]) {
        match self.before.get_mut(..value.len()) {
            Some(before) => {
                before.copy_from_slice(value);
                self.before_bytes = value.len();
            }
            None => self.forget(),
        }
    }

    /// What makes `value` of the one before, where they are alike in length and that is shorter.
    #[inline]
    pub fn encode(&mut self, value: &[u8]) -> Option<&[u8]> {
        if self.before_bytes != value.len() {
            return None;
        }
        let (before, before_rest) = self.before[..value.len()].as_chunks::<GROUP_BYTES>();
        let (groups, rest) = value.as_chunks::<GROUP_BYTES>();
        let mut end = 0;
        for (before, group) in before.iter().zip(groups) {
            end = put_group(&mut self.encoded, end, before, group);
        }
        if !rest.is_empty() {
            let [before, group] = [before_rest, rest].map(filled);
            end = put_group(&mut self.encoded, end, &before, &group);
        }
        (end < value.len()).then(|| &self.encoded[..end])
    }
}

#[inline]
fn put_group(
    encoded: &mut [u8; ENCODED_BYTES_MAX],
    mut end: usize,
    before: &[u8; GROUP_BYTES],
    group: &[u8; GROUP_BYTES],
) -> usize {
    let mut differ = differing(u64::from_le_bytes(*before) ^ u64::from_le_bytes(*group));
    encoded[end] = differ;
    end += 1;
    while differ != 0 {
        encoded[end] = group[differ.trailing_zeros() as usize % GROUP_BYTES];
        end += 1;
        differ &= differ - 1;
    }
    end
}

/// With zeros behind.
fn filled(rest: &[u8]) -> [u8; GROUP_BYTES] {
    let mut group = [0; GROUP_BYTES];
    group[..rest.len()].copy_from_slice(rest);
    group
}

/// Appends to `values` the value that differs so from the one that stands in them at `before`; `None` where
/// that makes no sense.
pub fn take_difference(
    values: &mut Vec<u8>,
    before: Range<usize>,
    mut encoded: &[u8],
) -> Option<()> {
    if before.is_empty() || before.len() > BYTES_MAX {
        return None;
    }
    let mut next = || {
        let (byte, rest) = encoded.split_first()?;
        encoded = rest;
        Some(*byte)
    };
    let start = values.len();
    values.extend_from_within(before);
    for group in values[start..].chunks_mut(GROUP_BYTES) {
        let mut differ = next()?;
        while differ != 0 {
            *group.get_mut(differ.trailing_zeros() as usize)? = next()?;
            differ &= differ - 1;
        }
    }
    encoded.is_empty().then_some(())
}

/// The bits of the bytes that are not 0.
#[inline]
fn differing(word: u64) -> u8 {
    const LOWEST: u64 = 0x0101_0101_0101_0101;
    const ALL_BUT_HIGHEST: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    let highest = (((word & ALL_BUT_HIGHEST) + ALL_BUT_HIGHEST) | word) >> 7 & LOWEST;
    // The bits come together in the highest byte.
    (highest.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let before = prop::collection::vec(any::<u8>(), 0..300);
        let changed = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..30);
        (before, changed).prop_map(|(before, changed)| {
            let mut value = before.clone();
            for (at, byte) in changed.iter().filter(|_| !before.is_empty()) {
                value[at.index(before.len())] = *byte;
            }
            (before, value)
        })
    }

    proptest! {
        #[test]
        fn a_difference_makes_the_value_again_and_is_shorter((before, value) in any_pair()) {
            let mut differences = Differences::new();
            differences.show(&[1; 20]);
            differences.show(&before);
            let differing = before.iter().zip(&value).filter(|(a, b)| a != b).count();
            let bytes = differing + value.len().div_ceil(GROUP_BYTES);
            let is_shorter = value.len() <= BYTES_MAX && bytes < value.len();
            let encoded = differences.encode(&value);
            prop_assert_eq!(encoded.map(<[u8]>::len), is_shorter.then_some(bytes));
            if let Some(encoded) = encoded {
                let mut values = [&before[..], b"between"].concat();
                let start = values.len();
                prop_assert!(take_difference(&mut values, 0..before.len(), encoded).is_some());
                prop_assert_eq!(&values[start..], &value[..]);
            }
            differences.forget();
            prop_assert_eq!(differences.encode(&value), None);
        }

        #[test]
        fn any_bytes_are_a_difference_or_refused(
            before in prop::collection::vec(any::<u8>(), 0..40),
            encoded in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut values = before.clone();
            if take_difference(&mut values, 0..before.len(), &encoded).is_some() {
                prop_assert_eq!(values.len(), 2 * before.len());
            }
        }
    }
}
