//! Numbers of 7 bits a byte, lowest first; the highest bit says that another byte follows.

/// Adds a number.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A few numbers, put together in a register before they are copied to where they belong: bytes that
/// were written one by one just before are read slowly as one word.
#[derive(Clone, Copy, Default)]
pub struct Varints {
    encoded: u128,
    bytes: u32,
}

impl Varints {
    /// Adds a number below 2^28: at most the fourth one.
    #[inline]
    pub fn put_small(&mut self, number: u32) {
        debug_assert!(number < 1 << 28);
        let sevens = (number.max(1).ilog2() + 7) / 7;
        let spread = number & 0x7F
            | (number & 0x3F80) << 1
            | (number & 0x1F_C000) << 2
            | (number & 0xFE0_0000) << 3;
        // All bytes but the last are followed by another one.
        let follows = 0x0080_8080 & ((1_u32 << (8 * (sevens - 1))) - 1);
        self.encoded |= u128::from(spread | follows) << (8 * self.bytes);
        self.bytes += sevens;
    }

    /// Adds the bytes to others.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        // As many bytes each time are copied faster than just those that count.
        let end = out.len() + self.bytes as usize;
        out.extend_from_slice(&self.encoded.to_le_bytes());
        out.truncate(end);
    }
}

/// Takes a number from the front; `None` where there is none, or one above 64 bits.
#[inline]
pub fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        let bits = u64::from(byte & 0x7F);
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return (bits << shift >> shift == bits).then_some(number);
        }
    }
    None
}

/// A signed number as one of which those near 0 are small.
#[inline]
pub fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

/// The number that [`zigzag`] was given.
#[inline]
pub fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_read_back_as_it_was_written(
            number in prop_oneof![any::<u64>(), 0..300_u64, Just(u64::MAX)]
        ) {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            prop_assert!(out.len() <= 10);
            let mut rest = out.as_slice();
            prop_assert_eq!(take_varint(&mut rest), Some(number));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(take_varint(&mut &out[..out.len() - 1]), None);
        }
    }

    proptest! {
        #[test]
        fn small_numbers_that_were_put_together_are_as_they_were_one_by_one(
            numbers in prop::collection::vec(prop_oneof![0..1_u32 << 28, 0..300_u32], 0..5)
        ) {
            let (mut together, mut out, mut expected) = (Varints::default(), vec![7], vec![7]);
            for number in &numbers {
                together.put_small(*number);
                put_varint(&mut expected, u64::from(*number));
            }
            together.append_to(&mut out);
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_number_above_64_bits_is_refused() {
        assert_eq!(take_varint(&mut &[0xFF; 11][..]), None);
        let mut largest = [0xFF; 10];
        largest[9] = 1;
        assert_eq!(take_varint(&mut &largest[..]), Some(u64::MAX));
        largest[9] = 2;
        assert_eq!(take_varint(&mut &largest[..]), None);
    }
}
