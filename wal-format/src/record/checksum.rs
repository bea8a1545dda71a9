//! A record's checksum, CRC-32C.

use multiversion::{multiversion, target::match_target};

use super::{CHECKSUM_AT, RECORD_HEADER_BYTES};

/// What follows a record's header is no longer where the record is a short one.
const SHORT_BYTES_MAX: usize = 256;

/// CRC-32C of a record (xloginsert.c: `XLogRecordAssemble`): of what follows the header, then of the header
/// up to `xl_crc`. `bytes` has at least [`RECORD_HEADER_BYTES`].
pub fn record_checksum(bytes: &[u8]) -> u32 {
    let (header, rest) = bytes.split_at(RECORD_HEADER_BYTES);
    let header = &header[..CHECKSUM_AT];
    if rest.len() > SHORT_BYTES_MAX { long(rest, header) } else { short(rest, header) }
}

/// Several of the processor's instructions at work at once, with preparations that take longer than a short record.
fn long(rest: &[u8], header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(rest), header)
}

/// The processor's instruction one after the other, where it has one.
#[multiversion(targets("x86_64+sse4.2"))]
fn short(rest: &[u8], header: &[u8]) -> u32 {
    match_target! {
        "x86_64+sse4.2" => {
            use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
            let append = |before: u32, bytes: &[u8]| {
                let (eights, bytes) = bytes.as_chunks::<8>();
                let (fours, ones) = bytes.as_chunks::<4>();
                let eight = |crc, bytes: &[u8; 8]| _mm_crc32_u64(crc, u64::from_le_bytes(*bytes));
                let four = |crc, bytes: &[u8; 4]| _mm_crc32_u32(crc, u32::from_le_bytes(*bytes));
                let crc = eights.iter().fold(u64::from(before), eight) as u32;
                let crc = fours.iter().fold(crc, four);
                ones.iter().fold(crc, |crc, byte| _mm_crc32_u8(crc, *byte))
            };
            !append(append(!0, rest), header)
        }
        _ => long(rest, header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_record_has_the_checksum_that_a_long_one_is_given() {
        let bytes: Vec<u8> = (0..=u8::MAX).map(|byte| byte.wrapping_mul(31)).collect();
        for end in CHECKSUM_AT..bytes.len() {
            let (header, rest) = bytes[..end].split_at(CHECKSUM_AT);
            assert_eq!(short(rest, header), long(rest, header), "{} bytes", rest.len());
        }
    }
}
