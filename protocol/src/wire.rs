//! Framing: a header that serde describes, and a payload of raw bytes.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | header's length in bytes, little-endian |
//! | 4 | 4 | payload's length in bytes, little-endian |
//! | 8 | … | header: bincode 2, standard configuration |
//! | … | … | payload: WAL or pages as they are |
//!
//! TCP's own checksum is the only one here: WAL records and pages that need more carry their own.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes before the header.
pub const PREFIX_BYTES: usize = 8;
/// The longest header: a list of every relation of a large database fits.
pub const HEADER_BYTES_MAX: usize = 64 << 20;
/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// A frame that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A length is above its bound.
    #[error("a frame's {part} of {bytes} bytes is above the bound of {max}")]
    TooLong {
        /// `header` or `payload`.
        part: &'static str,
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The header does not decode.
    #[error("a frame's header does not decode: {0}")]
    BadHeader(String),
}

/// The frame's first part, `PREFIX_BYTES` and the header; the payload is sent behind it as it is.
pub fn encode_head<H: Serialize>(header: &H, payload_bytes: usize) -> Result<Bytes, WireError> {
    let mut head = vec![0; PREFIX_BYTES];
    bincode::serde::encode_into_std_write(header, &mut head, bincode::config::standard())
        .map_err(|error| WireError::BadHeader(error.to_string()))?;
    let header_bytes = head.len() - PREFIX_BYTES;
    check("header", header_bytes, HEADER_BYTES_MAX)?;
    check("payload", payload_bytes, PAYLOAD_BYTES_MAX)?;
    let mut prefix = &mut head[..PREFIX_BYTES];
    prefix.put_u32_le(header_bytes as u32);
    prefix.put_u32_le(payload_bytes as u32);
    Ok(Bytes::from(head))
}

/// The whole frame in one buffer.
pub fn encode<H: Serialize>(header: &H, payload: &[u8]) -> Result<Bytes, WireError> {
    let head = encode_head(header, payload.len())?;
    let mut frame = BytesMut::with_capacity(head.len() + payload.len());
    frame.put_slice(&head);
    frame.put_slice(payload);
    Ok(frame.freeze())
}

/// The lengths of the header and of the payload that follow a prefix.
pub fn decode_prefix(prefix: [u8; PREFIX_BYTES]) -> Result<(usize, usize), WireError> {
    let mut prefix = &prefix[..];
    let header = prefix.get_u32_le() as usize;
    let payload = prefix.get_u32_le() as usize;
    check("header", header, HEADER_BYTES_MAX)?;
    check("payload", payload, PAYLOAD_BYTES_MAX)?;
    Ok((header, payload))
}

/// The header that these bytes hold, all of them.
pub fn decode_header<H: DeserializeOwned>(header: &[u8]) -> Result<H, WireError> {
    let config = bincode::config::standard().with_limit::<HEADER_BYTES_MAX>();
    let (value, used) = bincode::serde::decode_from_slice(header, config)
        .map_err(|error| WireError::BadHeader(error.to_string()))?;
    if used != header.len() {
        return Err(WireError::BadHeader(format!("{} bytes are left over", header.len() - used)));
    }
    Ok(value)
}

fn check(part: &'static str, bytes: usize, max: usize) -> Result<(), WireError> {
    if bytes > max {
        return Err(WireError::TooLong { part, bytes, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Term;
    use crate::quorum::ProposerMessage;
    use wal_format::Lsn;

    #[test]
    fn a_frame_is_read_back_as_it_was_written() {
        let message = ProposerMessage::Append {
            generation: 1,
            term: Term(7),
            begin: Lsn(0x100),
            commit_lsn: Lsn(0x80),
        };
        let frame = encode(&message, b"wal").expect("a small frame encodes");
        let (prefix, rest) = frame.split_at(PREFIX_BYTES);
        let prefix = prefix.try_into().expect("a prefix has its length");
        let (header, payload) = decode_prefix(prefix).expect("the prefix is ours");
        assert_eq!(payload, 3);
        assert_eq!(decode_header(&rest[..header]), Ok(message));
        assert_eq!(&rest[header..], b"wal");
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused() {
        assert!(matches!(decode_prefix([0xFF; 8]), Err(WireError::TooLong { .. })));
        assert!(decode_header::<ProposerMessage>(&[0xFF; 3]).is_err());
    }
}
