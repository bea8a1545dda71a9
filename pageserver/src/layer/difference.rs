//! A value as what differs from one of the same length: the records that change a page one after the
//! other are alike, but for a few bytes here and there. Of every eight bytes, in their order: one byte
//! whose bit i says whether byte i differs, then those that do. Bytes that the value does not have do not
//! differ.

use std::ops::Range;

/// The longest value that stands as a difference: so much may have to be known of the one before.
pub const BYTES_MAX: usize = 256;
/// Bytes that a byte of bits stands for.
const GROUP_BYTES: usize = 8;
/// With room for a whole group behind the last one.
const ENCODED_ROOM: usize = BYTES_MAX + BYTES_MAX / GROUP_BYTES + GROUP_ROOM;
/// Room for a group's bits and bytes, of which some may not count.
const GROUP_ROOM: usize = 16;

/// Makes differences from the value that it was last shown.
pub struct Differences {
    /// In groups, the last with zeros behind.
    before: [[u8; GROUP_BYTES]; BYTES_MAX / GROUP_BYTES],
    before_bytes: usize,
    encoded: [u8; ENCODED_ROOM],
}

impl Differences {
    /// No value before.
    pub fn new() -> Differences {
        let before = [[0; GROUP_BYTES]; BYTES_MAX / GROUP_BYTES];
        Differences { before, before_bytes: 0, encoded: [0; ENCODED_ROOM] }
    }

    /// Forgets the value before.
    pub fn forget(&mut self) {
        self.before_bytes = 0;
    }

    /// Takes the value that is before the next one.
    pub fn show(&mut self, value: &[u8]) {
        let whole = value.len().next_multiple_of(GROUP_BYTES);
        match self.before.as_flattened_mut().get_mut(..whole) {
            Some(before) => {
                let (before, behind) = before.split_at_mut(value.len());
                before.copy_from_slice(value);
                behind.fill(0);
                self.before_bytes = value.len();
            }
            None => self.forget(),
        }
    }

    /// What makes `value` of the one before, where they are alike in length and that is shorter. Then `value`
    /// is the one before.
    #[inline]
    pub fn encode(&mut self, value: &[u8]) -> Option<&[u8]> {
        if self.before_bytes != value.len() {
            self.show(value);
            return None;
        }
        let mut end = 0;
        for (before, group) in self.before.iter_mut().zip(groups(value)) {
            let [was, is] = [*before, group].map(u64::from_le_bytes);
            end += put_group(self.encoded[end..].first_chunk_mut()?, differing(was ^ is), group);
            *before = group;
        }
        (end < value.len()).then(|| &self.encoded[..end])
    }
}

/// The bytes of a value by eight, the last with zeros behind.
#[inline]
fn groups(value: &[u8]) -> impl Iterator<Item = [u8; GROUP_BYTES]> {
    let (groups, rest) = value.as_chunks::<GROUP_BYTES>();
    let rest = (!rest.is_empty()).then(|| match value.last_chunk() {
        // Those of its last eight bytes that are in no group before.
        Some(last) => {
            let known = 8 * (GROUP_BYTES - rest.len());
            (u64::from_le_bytes(*last) >> known).to_le_bytes()
        }
        None => std::array::from_fn(|at| rest.get(at).copied().unwrap_or(0)),
    });
    groups.iter().copied().chain(rest)
}

/// Says of a group which bytes differ, and those; how many bytes that takes.
#[inline]
fn put_group(out: &mut [u8; GROUP_ROOM], differ: u8, group: [u8; GROUP_BYTES]) -> usize {
    out[0] = differ;
    let mut end = 1;
    // Each byte is written, and the next over it where it does not count: nothing to guess for the processor.
    for (at, byte) in group.into_iter().enumerate() {
        out[end % GROUP_ROOM] = byte;
        end += usize::from(differ >> at & 1);
    }
    end
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
