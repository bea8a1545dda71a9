//! A position in the WAL, in bytes since its beginning.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes in a WAL page (`XLOG_BLCKSZ`).
pub const WAL_PAGE_BYTES: u64 = 8192;

/// A position in the WAL, in bytes (Postgres: `XLogRecPtr`). Written `0/16B3748`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// No position (Postgres: `InvalidXLogRecPtr`).
    pub const INVALID: Lsn = Lsn(0);
    /// Above every position.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// Whether this names a position at all.
    pub fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The position rounded up to Postgres' `MAXALIGN`, 8 bytes.
    pub fn max_align(self) -> Lsn {
        Lsn((self.0 + 7) & !7)
    }

    /// The start of the WAL page that holds this position.
    pub fn page_start(self) -> Lsn {
        Lsn(self.0 - self.0 % WAL_PAGE_BYTES)
    }

    /// Bytes from the start of the position's WAL page.
    pub fn page_offset(self) -> u64 {
        self.0 % WAL_PAGE_BYTES
    }

    /// The start of the segment that holds this position.
    pub fn segment_start(self, segment_bytes: u64) -> Lsn {
        Lsn(self.0 - self.0 % segment_bytes)
    }

    /// Bytes from the start of the position's segment.
    pub fn segment_offset(self, segment_bytes: u64) -> u64 {
        self.0 % segment_bytes
    }

    /// `self - earlier`, in bytes; zero where `earlier` is not earlier.
    pub fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<u64> for Lsn {
    type Output = Lsn;

    fn add(self, bytes: u64) -> Lsn {
        Lsn(self.0 + bytes)
    }
}

impl std::ops::AddAssign<u64> for Lsn {
    fn add_assign(&mut self, bytes: u64) {
        self.0 += bytes;
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an LSN: write two hexadecimal numbers with a slash, as in 0/16B3748")]
pub struct LsnParseError(pub String);

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Lsn, LsnParseError> {
        let bad = || LsnParseError(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let half = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(part, 16).ok()).flatten().ok_or_else(bad)
        };
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// Text for people (JSON), a number for machines.
impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Lsn)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_written_and_read_as_postgres_does() {
        let lsn = Lsn(0x0000_0001_0ABC_DEF8);
        assert_eq!(lsn.to_string(), "1/ABCDEF8");
        assert_eq!("1/ABCDEF8".parse(), Ok(lsn));
        for bad in ["", "/", "1/", "12", "x/1", "1/123456789", "+1/2", "1/2/3"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad} was taken for an LSN");
        }
    }

    #[test]
    fn an_lsn_knows_its_page_and_segment() {
        let lsn = Lsn(0x0100_2003);
        assert_eq!(lsn.page_start(), Lsn(0x0100_2000));
        assert_eq!(lsn.page_offset(), 3);
        assert_eq!(lsn.segment_start(16 << 20), Lsn(0x0100_0000));
        assert_eq!(lsn.max_align(), Lsn(0x0100_2008));
    }
}
