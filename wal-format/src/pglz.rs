//! Postgres' own compression, the unpacking side (pg_lzcompress.c: `pglz_decompress`).
//!
//! A control byte says of the eight items after it, lowest bit first, whether each is a literal byte (0) or a copy
//! of earlier output (1): two bytes of a 12-bit offset and a length of 3 to 17, or three bytes with lengths up to 273.

/// The length from which a third byte is added to it.
const LONG_LENGTH: usize = 18;

/// Unpacks `from` to exactly `to`: both must end together.
pub(crate) fn decompress(from: &[u8], to: &mut [u8]) -> Result<(), &'static str> {
    const SHORT: &str = "its pglz data ends too early";
    let mut input = from.iter().copied();
    let mut written = 0;
    while written < to.len() {
        let mut control = input.next().ok_or(SHORT)?;
        for _ in 0..8 {
            if written == to.len() {
                break;
            }
            if control & 1 == 0 {
                to[written] = input.next().ok_or(SHORT)?;
                written += 1;
            } else {
                let first = usize::from(input.next().ok_or(SHORT)?);
                let second = usize::from(input.next().ok_or(SHORT)?);
                let mut length = (first & 0x0F) + 3;
                if length == LONG_LENGTH {
                    length += usize::from(input.next().ok_or(SHORT)?);
                }
                let offset = (first & 0xF0) << 4 | second;
                if offset == 0 || offset > written {
                    return Err("its pglz data refers to bytes before its beginning");
                }
                // Source and destination may overlap: the copy then repeats what it just wrote.
                let end = to.len().min(written + length);
                for at in written..end {
                    to[at] = to[at - offset];
                }
                written = end;
            }
            control >>= 1;
        }
    }
    match input.next() {
        None => Ok(()),
        Some(_) => Err("its pglz data goes on after the page"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_overlapping_copies_unpack() {
        // "ab", then 8 bytes from 2 back, then a long copy of 20 bytes from 1 back.
        let packed = [0b0000_1100, b'a', b'b', 0x05, 0x02, 0x0F, 0x01, 2];
        let mut page = [0; 30];
        decompress(&packed, &mut page).unwrap();
        assert_eq!(page.split_at(10), (&b"ababababab"[..], &[b'b'; 20][..]));
    }

    #[test]
    fn damaged_data_is_refused() {
        let mut page = [0; 30];
        for packed in
            [&[][..], &[0], &[1, 0x00, 0x01], &[0b10, b'a', 0x00], &[0b10, b'a', 0x00, 0x00]]
        {
            assert!(decompress(packed, &mut page).is_err());
        }
        assert!(decompress(&[0, b'a', b'b'], &mut page[..1]).is_err());
    }
}
