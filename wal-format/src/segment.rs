//! WAL segment files and their names (xlog_internal.h: `XLogFileName`, `XLogFromFileName`).

use crate::Lsn;

/// Bytes in a WAL segment where `initdb --wal-segsize` did not choose others.
pub const DEFAULT_SEGMENT_BYTES: u32 = 16 << 20;
/// The smallest segment that Postgres knows (`WalSegMinSize`).
pub const SEGMENT_BYTES_MIN: u32 = 1 << 20;
/// The largest segment that Postgres knows (`WalSegMaxSize`).
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// Whether Postgres knows segments of this size: a power of two from 1 MiB to 1 GiB (`IsValidWalSegSize`).
pub fn is_segment_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes)
}

/// One WAL segment file of one Postgres timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Segment {
    /// The Postgres timeline id, 1 where no archive recovery ever was.
    pub timeline_id: u32,
    /// The segment's number from the beginning of the WAL.
    pub number: u64,
}

impl Segment {
    /// The segment that holds the byte at `lsn`.
    pub fn containing(timeline_id: u32, lsn: Lsn, segment_bytes: u32) -> Segment {
        Segment { timeline_id, number: lsn.0 / u64::from(segment_bytes) }
    }

    /// The position of the segment's first byte.
    pub fn start(self, segment_bytes: u32) -> Lsn {
        Lsn(self.number * u64::from(segment_bytes))
    }

    /// The position after the segment's last byte.
    pub fn end(self, segment_bytes: u32) -> Lsn {
        self.start(segment_bytes) + u64::from(segment_bytes)
    }

    /// The file's name in `pg_wal`: 24 hexadecimal digits.
    pub fn file_name(self, segment_bytes: u32) -> String {
        let each = segments_per_id(segment_bytes);
        format!("{:08X}{:08X}{:08X}", self.timeline_id, self.number / each, self.number % each)
    }

    /// The segment of a file's name; `None` where the name is not a segment's.
    pub fn parse(name: &str, segment_bytes: u32) -> Option<Segment> {
        let upper_hex = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        if name.len() != 24 || !name.bytes().all(upper_hex) {
            return None;
        }
        let part = |at: usize| u32::from_str_radix(name.get(at..at + 8)?, 16).ok();
        let (timeline_id, id, segment) = (part(0)?, u64::from(part(8)?), u64::from(part(16)?));
        let each = segments_per_id(segment_bytes);
        (segment < each).then_some(Segment { timeline_id, number: id * each + segment })
    }
}

/// Segments in 4 GiB of WAL (`XLogSegmentsPerXLogId`).
fn segments_per_id(segment_bytes: u32) -> u64 {
    (1 << 32) / u64::from(segment_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_named_as_postgres_names_it() {
        let segment = Segment::containing(1, Lsn(0x2_FF12_3456), DEFAULT_SEGMENT_BYTES);
        assert_eq!(segment.file_name(DEFAULT_SEGMENT_BYTES), "0000000100000002000000FF");
        assert_eq!(segment.start(DEFAULT_SEGMENT_BYTES), Lsn(0x2_FF00_0000));
        assert_eq!(segment.end(DEFAULT_SEGMENT_BYTES), Lsn(0x3_0000_0000));
    }

    #[test]
    fn a_segment_name_is_read_back_for_every_size() {
        for bytes in [SEGMENT_BYTES_MIN, DEFAULT_SEGMENT_BYTES, SEGMENT_BYTES_MAX] {
            let segment = Segment::containing(3, Lsn(0x12_FEDC_BA98), bytes);
            assert_eq!(Segment::parse(&segment.file_name(bytes), bytes), Some(segment));
        }
    }

    #[test]
    fn other_files_of_pg_wal_are_not_segments() {
        for name in [
            "",
            "archive_status",
            "xlogtemp.123",
            "00000001000000000000000a",
            "000000010000000000000100",
            "00000001000000000000000A.partial",
            "00000002.history",
        ] {
            assert_eq!(Segment::parse(name, DEFAULT_SEGMENT_BYTES), None, "{name}");
        }
    }
}
