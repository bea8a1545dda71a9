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

/// The longest header of a connection's first frame. It is taken before it is known whether its token
/// is good for anything; the token is most of it.
pub const HELLO_BYTES_MAX: usize = 4 << 10;

/// What a side takes from the other; a frame that claims more is refused before memory is given.
#[derive(Clone, Copy, Debug)]
pub struct FrameBounds {
    /// The longest header.
    pub header_bytes_max: usize,
    /// The longest payload.
    pub payload_bytes_max: usize,
}

/// How TLS begins (RFC 8446, section 5.1): as a length it is above every bound.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

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
    /// The other side speaks TLS.
    #[error(
        "the other side speaks TLS, and this one does not: give this process --tls-cert, --tls-key and \
         --tls-ca, or the other one none of them"
    )]
    Tls,
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
    FrameBounds::ANY.lengths(prefix)
}

impl FrameBounds {
    /// Every frame that there is.
    pub const ANY: FrameBounds =
        FrameBounds { header_bytes_max: HEADER_BYTES_MAX, payload_bytes_max: PAYLOAD_BYTES_MAX };
    /// A connection's first frame.
    pub const HELLO: FrameBounds =
        FrameBounds { header_bytes_max: HELLO_BYTES_MAX, payload_bytes_max: 0 };

    /// The lengths of the header and of the payload that follow a prefix.
    pub fn lengths(self, prefix: [u8; PREFIX_BYTES]) -> Result<(usize, usize), WireError> {
        let mut lengths = &prefix[..];
        let header = lengths.get_u32_le() as usize;
        let payload = lengths.get_u32_le() as usize;
        let checked = check("header", header, self.header_bytes_max)
            .and_then(|()| check("payload", payload, self.payload_bytes_max));
        match checked {
            Err(_) if prefix.starts_with(&TLS_HANDSHAKE) => Err(WireError::Tls),
            checked => checked.map(|()| (header, payload)),
        }
    }
}

/// The header that these bytes hold, all of them.
pub fn decode_header<H: DeserializeOwned>(header: &[u8]) -> Result<H, WireError> {
    decode_within::<H, HEADER_BYTES_MAX>(header)
}

/// The header of a connection's first frame: what it claims to hold is bounded, too.
pub fn decode_hello<H: DeserializeOwned>(header: &[u8]) -> Result<H, WireError> {
    decode_within::<H, HELLO_BYTES_MAX>(header)
}

fn decode_within<H: DeserializeOwned, const BYTES_MAX: usize>(
    header: &[u8],
) -> Result<H, WireError> {
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
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

    #[test]
    fn a_first_frame_is_bounded_before_anybody_is_known() {
        let prefix = |header: u32, payload: u32| {
            let mut prefix = [0; PREFIX_BYTES];
            let mut fields = &mut prefix[..];
            fields.put_u32_le(header);
            fields.put_u32_le(payload);
            prefix
        };
        let most = HELLO_BYTES_MAX as u32;
        assert_eq!(FrameBounds::HELLO.lengths(prefix(most, 0)), Ok((HELLO_BYTES_MAX, 0)));
        for (header, payload) in [(most + 1, 0), (1, 1)] {
            let refused = FrameBounds::HELLO.lengths(prefix(header, payload));
            assert!(matches!(refused, Err(WireError::TooLong { .. })), "{refused:?}");
        }
        // A short header that claims to hold a long text.
        let claim = encode_head(&"x".repeat(5000), 0).expect("it is encoded");
        assert!(decode_hello::<String>(&claim[PREFIX_BYTES..PREFIX_BYTES + 20]).is_err());
        let client_hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01];
        assert_eq!(FrameBounds::HELLO.lengths(client_hello), Err(WireError::Tls));
    }
}
