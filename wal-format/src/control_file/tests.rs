//! `pg_control` written, read and damaged.

use super::*;

/// A file as initdb makes it, with a value of its own in every field.
pub(crate) fn example() -> ControlFile {
    ControlFile {
        version: Version::V15,
        system_id: 0x6789_ABCD_EF01_2345,
        state: ClusterState::Shutdown,
        time: 1_700_000_000,
        checkpoint: Lsn(0x150_0028),
        checkpoint_copy: CheckPoint {
            redo: Lsn(0x150_0028),
            timeline_id: 1,
            previous_timeline_id: 1,
            full_page_writes: true,
            next_xid: 740,
            next_oid: 16384,
            next_multi: 1,
            next_multi_offset: 0,
            oldest_xid: 717,
            oldest_xid_database: 1,
            oldest_multi: 1,
            oldest_multi_database: 5,
            time: 1_699_999_999,
            oldest_commit_ts_xid: 0,
            newest_commit_ts_xid: 0,
            oldest_active_xid: 0,
        },
        unlogged_lsn: Lsn(1000),
        recovery: RecoveryBounds {
            min_recovery_point: Lsn(0x11),
            min_recovery_timeline: 2,
            backup_start: Lsn(0x12),
            backup_end: Lsn(0x13),
            backup_end_required: true,
        },
        settings: WalSettings {
            wal_level: 1,
            wal_log_hints: true,
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 3,
            max_locks_per_transaction: 64,
            track_commit_timestamp: true,
        },
        geometry: Geometry {
            max_align: 8,
            page_bytes: 8192,
            relation_segment_blocks: 131_072,
            wal_page_bytes: 8192,
            wal_segment_bytes: 16 << 20,
            name_bytes: 64,
            index_keys_max: 32,
            toast_chunk_bytes: 1996,
            large_object_bytes: 2048,
            float8_by_value: true,
        },
        data_checksum_version: 1,
        nonce: std::array::from_fn(|at| at as u8),
    }
}

#[test]
fn a_control_file_is_read_back_as_it_was_written() {
    let file = example();
    let bytes = file.encode();
    assert_eq!(bytes.len(), CONTROL_FILE_BYTES);
    assert_eq!(ControlFile::decode(&bytes), Ok(file));
}

#[test]
fn a_damaged_control_file_is_refused() {
    let bytes = example().encode();
    for at in 0..CHECKSUM_AT + 4 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        assert!(ControlFile::decode(&damaged).is_err(), "byte {at}");
        assert!(ControlFile::decode(&bytes[..at]).is_err(), "{at} bytes");
    }
}

#[test]
fn another_version_is_refused_by_its_numbers() {
    let mut bytes = example().encode();
    bytes[8..12].copy_from_slice(&1700_u32.to_le_bytes());
    let expected =
        ControlFileError::Version { control_version: 1700, catalog_version: 202_209_061 };
    assert_eq!(ControlFile::decode(&bytes), Err(expected));
}

#[test]
fn a_geometry_that_is_not_ours_is_refused_by_name() {
    let mut file = example();
    file.geometry.page_bytes = 16384;
    let expected = ControlFileError::Field { field: "blcksz", value: 16384 };
    assert_eq!(ControlFile::decode(&file.encode()), Err(expected));
}
