//! SLRU segment files, made of pages.
//!
//! A segment file holds 32 pages. Postgres extends and truncates an SLRU a page and a segment at a
//! time, so pages are missing only where nothing was ever written; it wants a file for each
//! segment from the oldest to the newest all the same. The oldest is found by the gap: page
//! numbers wrap around, and the widest run without a page is what lies outside.

use bytes::{Bytes, BytesMut};
use wal_format::{PAGE_BYTES, SLRU_SEGMENT_PAGES, Slru};

use super::BackupFile;
use crate::data_directory::slru_file;

const SEGMENT_BYTES: usize = SLRU_SEGMENT_PAGES as usize * PAGE_BYTES;

/// How many segments an SLRU can have before its page numbers wrap around: transaction ids,
/// multixacts and member offsets have 32 bits (clog.c, multixact.c, commit_ts.c: `*_PER_PAGE`).
fn segments_max(slru: Slru) -> u32 {
    let per_page: u64 = match slru {
        Slru::Clog => 32_768,
        Slru::MultiXactOffsets => 2_048,
        Slru::MultiXactMembers => 1_636,
        Slru::CommitTs => 819,
    };
    let pages = (1u64 << 32).div_ceil(per_page);
    pages.div_ceil(u64::from(SLRU_SEGMENT_PAGES)) as u32
}

/// The segment files that hold these pages, which come in the order of their numbers. All are
/// whole but the newest, which ends with its last page.
pub(super) fn segment_files(
    slru: Slru,
    pages: Vec<(u32, Bytes)>,
) -> impl Iterator<Item = BackupFile> {
    let mut present: Vec<u32> = pages.iter().map(|(page, _)| page / SLRU_SEGMENT_PAGES).collect();
    present.dedup();
    let window = window(&present, segments_max(slru));
    let newest = window.last().copied();
    window.into_iter().map(move |segment| {
        let first = segment * SLRU_SEGMENT_PAGES;
        let from = pages.partition_point(|(page, _)| *page < first);
        let to = pages.partition_point(|(page, _)| *page / SLRU_SEGMENT_PAGES <= segment);
        let mut contents = BytesMut::with_capacity(SEGMENT_BYTES);
        for (page, bytes) in &pages[from..to] {
            contents.resize((page - first) as usize * PAGE_BYTES, 0);
            contents.extend_from_slice(bytes);
        }
        if Some(segment) != newest {
            contents.resize(SEGMENT_BYTES, 0);
        }
        BackupFile { path: slru_file(slru, segment), contents: contents.freeze() }
    })
}

/// All segments from the oldest to the newest, where these are those with pages, in rising order.
fn window(present: &[u32], segments_max: u32) -> Vec<u32> {
    let (Some(&first), Some(&last)) = (present.first(), present.last()) else { return Vec::new() };
    // From the newest of all to the first, around the end of the numbers.
    let around = (first + segments_max).saturating_sub(last);
    let widest = present
        .windows(2)
        .map(|pair| (pair[1] - pair[0], pair[1], pair[0]))
        .fold((around, first, last), |widest, gap| if gap.0 > widest.0 { gap } else { widest });
    let (_, oldest, newest) = widest;
    if oldest <= newest {
        (oldest..=newest).collect()
    } else {
        (oldest..segments_max).chain(0..=newest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fill: u8) -> Bytes {
        Bytes::from(vec![fill; PAGE_BYTES])
    }

    #[test]
    fn the_number_of_segments_is_postgres_own() {
        assert_eq!(segments_max(Slru::Clog), 0x1000);
        assert_eq!(segments_max(Slru::MultiXactOffsets), 0x10000);
        assert_eq!(segments_max(Slru::MultiXactMembers), 0x14079);
    }

    #[test]
    fn segments_between_the_oldest_and_the_newest_are_complete() {
        let pages = vec![(1, page(1)), (33, page(2)), (97, page(3)), (98, page(4))];
        let files: Vec<BackupFile> = segment_files(Slru::Clog, pages).collect();
        let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["pg_xact/0000", "pg_xact/0001", "pg_xact/0002", "pg_xact/0003"]);
        let sizes: Vec<usize> = files.iter().map(|file| file.contents.len()).collect();
        assert_eq!(sizes, [SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES, 3 * PAGE_BYTES]);
        assert!(files[0].contents[..PAGE_BYTES].iter().all(|&byte| byte == 0));
        assert_eq!(files[0].contents[PAGE_BYTES..2 * PAGE_BYTES], page(1));
        assert!(files[2].contents.iter().all(|&byte| byte == 0));
        assert_eq!(files[3].contents[2 * PAGE_BYTES..], page(4));
    }

    #[test]
    fn a_window_that_wraps_around_is_not_filled_on_its_outside() {
        assert_eq!(window(&[0, 1, 4094], 4096), [4094, 4095, 0, 1]);
        assert_eq!(window(&[3], 4096), [3]);
        assert!(window(&[], 4096).is_empty());
        assert_eq!(window(&[10, 12], 4096), [10, 11, 12]);
    }
}
