//! Replication origins' progress, and Postgres' file of it.
//!
//! Source: `src/backend/replication/logical/origin.c` (`CheckPointReplicationOrigin`,
//! `StartupReplicationOrigin`): magic u32, then for each origin its id u16, 6 bytes of padding and
//! the remote LSN u64, then CRC-32C u32 of all that.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wal_format::Lsn;

/// Where the file stands in a data directory.
pub(crate) const FILE: &str = "pg_logical/replorigin_checkpoint";
/// `REPLICATION_STATE_MAGIC`.
const MAGIC: u32 = 0x1257_DADE;
/// Bytes of an origin in the file (`ReplicationStateOnDisk`).
const ENTRY_BYTES: usize = 16;

/// How far an origin's remote WAL was applied here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OriginProgress {
    pub remote_lsn: Lsn,
}

impl OriginProgress {
    /// The stored value: u64 little-endian.
    pub fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&self.remote_lsn.0.to_le_bytes())
    }

    /// The progress of a stored value; `None` where it is none.
    pub fn decode(value: &[u8]) -> Option<OriginProgress> {
        let bytes = value.try_into().ok()?;
        Some(OriginProgress { remote_lsn: Lsn(u64::from_le_bytes(bytes)) })
    }
}

/// The file that says this.
pub(crate) fn encode_file(origins: &[(u16, OriginProgress)]) -> Bytes {
    let mut file = BytesMut::with_capacity(4 + origins.len() * ENTRY_BYTES + 4);
    file.put_u32_le(MAGIC);
    for (origin, progress) in origins {
        file.put_u16_le(*origin);
        file.put_bytes(0, 6);
        file.put_u64_le(progress.remote_lsn.0);
    }
    let crc = crc32c::crc32c(&file);
    file.put_u32_le(crc);
    file.freeze()
}

/// What a file says; the error is what is wrong with it.
pub(crate) fn decode_file(file: &[u8]) -> Result<Vec<(u16, OriginProgress)>, String> {
    let Some((mut body, mut crc)) = file.len().checked_sub(4).map(|at| file.split_at(at)) else {
        return Err(format!("{} bytes are too few", file.len()));
    };
    let (expected, found) = (crc32c::crc32c(body), crc.get_u32_le());
    if expected != found {
        return Err(format!("checksum {found:08X} instead of {expected:08X}"));
    }
    if body.len() < 4 || (body.len() - 4) % ENTRY_BYTES != 0 || body.get_u32_le() != MAGIC {
        return Err("it does not hold whole entries behind its magic number".to_owned());
    }
    let mut origins = Vec::with_capacity(body.len() / ENTRY_BYTES);
    while body.has_remaining() {
        let origin = body.get_u16_le();
        body.advance(6);
        origins.push((origin, OriginProgress { remote_lsn: Lsn(body.get_u64_le()) }));
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_origins_is_read_back_and_damage_is_seen() {
        let origins = [(1, Lsn(0x1000)), (7, Lsn(0xFFFF_0000_0001))]
            .map(|(origin, remote_lsn)| (origin, OriginProgress { remote_lsn }));
        let file = encode_file(&origins);
        assert_eq!(decode_file(&file), Ok(origins.to_vec()));
        for at in 0..file.len() {
            let mut damaged = file.to_vec();
            damaged[at] ^= 1;
            assert!(decode_file(&damaged).is_err(), "damage at {at} was not seen");
        }
        assert!(decode_file(&[]).is_err());
    }
}
