//! Damaged WAL gives errors that say where, and never a panic.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use wal_format::{
    CheckPoint, ControlFile, ControlState, Effect, Lsn, PAGE_BYTES, Page, RECORD_HEADER_BYTES,
    Record, Version, WAL_PAGE_BYTES, WalError, effects, record_checksum, redo,
};

use super::{BEGIN, END, golden_control, golden_wal, read, reader};

/// Bytes of the golden WAL up to its segment switch; after it all is zero for long.
const BUSY_BYTES: usize = 0x2_A168;

/// Where an error says that the damage is.
fn position(error: &WalError) -> Option<Lsn> {
    match error {
        WalError::Damaged { at, .. } => {
            assert!(error.to_string().contains(&at.to_string()), "{error}");
            Some(*at)
        }
        _ => None,
    }
}

/// A record's bytes after this damage, its length and its checksum made right again.
fn damaged_record(bytes: &[u8], damage: &[(prop::sample::Index, u8)], cut: usize) -> Bytes {
    let kept = bytes.len().saturating_sub(cut).max(RECORD_HEADER_BYTES);
    let mut bytes = BytesMut::from(&bytes[..kept]);
    for (at, value) in damage {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    let total_bytes = bytes.len() as u32;
    bytes[..4].copy_from_slice(&total_bytes.to_le_bytes());
    let checksum = record_checksum(&bytes);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    bytes.freeze()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_flipped_bit_changes_no_record_before_it_and_is_found(at in 0..BUSY_BYTES, bit in 0_u32..8) {
        let mut wal = golden_wal();
        let (whole, _) = read(&wal);
        wal[at] ^= 1 << bit;
        let (records, error) = read(&wal);
        let flipped = BEGIN + at as u64;
        let before = whole.iter().take_while(|record| record.end <= flipped).count();
        prop_assert_eq!(&records[..before], &whole[..before]);
        match error {
            Some(error) => {
                let found = position(&error).expect("damage has a position");
                // A wrong length is found at the latest where the next page does not agree.
                let next_page = flipped.page_start() + WAL_PAGE_BYTES;
                prop_assert!(found <= next_page, "flipped at {flipped}: {error}");
                prop_assert_eq!(records.len(), before, "nothing is read after the damage");
            }
            // Padding between records, and header bits that say nothing here.
            None => prop_assert_eq!(&records, &whole),
        }
    }

    #[test]
    fn truncated_wal_wants_more(length in 0..BUSY_BYTES) {
        let wal = golden_wal();
        let (records, error) = read(&wal[..length]);
        prop_assert_eq!(error, None);
        let end = BEGIN + length as u64;
        prop_assert!(records.iter().all(|record| record.end <= end));
        prop_assert_eq!(&read(&wal).0[..records.len()], &records[..]);
    }

    #[test]
    fn a_zero_tail_is_damage_where_it_is_final_and_wanted_where_it_is_not(length in 0..BUSY_BYTES) {
        let mut wal = golden_wal();
        wal.truncate(BUSY_BYTES);
        wal[length..].fill(0);
        let zeros = BEGIN + length as u64;
        let mut reader = reader();
        reader.feed(BEGIN, &wal).unwrap();
        while let Ok(Some(_)) = reader.next_record_before(zeros) {}
        prop_assert_eq!(reader.next_record_before(zeros), Ok(None));
        if let Err(error) = reader.next_record() {
            let found = position(&error).expect("damage has a position");
            prop_assert!(reader.record_end() <= found && found < BEGIN + wal.len() as u64);
        }
    }

    #[test]
    fn garbage_is_never_a_record(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
        let mut reader = reader();
        reader.feed(BEGIN, &bytes).unwrap();
        match reader.next_record() {
            Ok(found) => prop_assert_eq!(found, None),
            Err(error) => { position(&error).expect("damage has a position"); }
        }
    }

    #[test]
    fn a_damaged_record_never_panics(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop_oneof![Just(0_usize), 0_usize..80],
        page in prop_oneof![Just(vec![0; PAGE_BYTES]), prop::collection::vec(any::<u8>(), PAGE_BYTES)],
    ) {
        let (records, _) = read(&golden_wal());
        let bytes = damaged_record(&records[which.index(records.len())].bytes, &damage, cut);
        // An error is as good as a record: only a panic is not.
        if let Ok(record) = Record::parse(Version::V15, &bytes) {
            record.name();
            let file = ControlFile::decode(golden_control()).unwrap();
            let mut state = ControlState::from_control_file(&file);
            let before = state;
            if let Err(error) = state.apply(&record, END) {
                prop_assert_eq!(position(&error), Some(END));
                prop_assert_eq!(state, before);
            }
            for image in record.blocks.iter().filter_map(|block| block.image.as_ref()) {
                image.restore(&mut Page::zeroed()).ok();
            }
            CheckPoint::decode(record.main);
            for effect in effects(Version::V15, &record).unwrap_or_default() {
                if let Effect::Touch { target, .. } | Effect::TouchExisting { target } = effect {
                    let mut page = Page::from_slice(&page).expect("a page's bytes");
                    redo(Version::V15, &record, END, target, &mut page).ok();
                }
            }
        }
    }

    #[test]
    fn a_damaged_control_file_is_refused(at in 0_usize..292, bit in 0_u32..8) {
        let mut bytes = golden_control().to_vec();
        bytes[at] ^= 1 << bit;
        prop_assert!(ControlFile::decode(&bytes).is_err());
        prop_assert!(ControlFile::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn a_control_state_is_read_from_any_bytes_or_refused(bytes in prop::array::uniform32(any::<u8>())) {
        let mut stored = [bytes, bytes, bytes].concat();
        stored.truncate(wal_format::CONTROL_STATE_BYTES);
        if let Some(state) = ControlState::decode(&stored) {
            prop_assert_eq!(&state.encode()[..], &stored[..]);
        }
    }
}
