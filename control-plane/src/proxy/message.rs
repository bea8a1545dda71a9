//! Messages of Postgres' protocol after the startup packet: a type, a length, a body.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest message that is read before a session begins. A backend's notices and errors are
/// bounded by nothing but sense; a client's are bounded further where they are read.
pub(crate) const BACKEND_BYTES_MAX: usize = 1 << 20;

/// The longest message of a SASL exchange: Postgres' `PG_MAX_SASL_MESSAGE_LENGTH` (src/include/libpq/sasl.h).
pub(crate) const SASL_BYTES_MAX: usize = 1024;

/// Codes of authentication requests: src/include/libpq/pqcomm.h.
pub(crate) const OK: u32 = 0;
pub(crate) const SASL: u32 = 10;
pub(crate) const SASL_CONTINUE: u32 = 11;
pub(crate) const SASL_FINAL: u32 = 12;

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its type.
    pub kind: u8,
    /// What follows its length.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads one of at most so many bytes.
    pub(crate) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        bytes_max: usize,
    ) -> io::Result<Message> {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await? as usize;
        let body_bytes = length.checked_sub(4).filter(|bytes| *bytes <= bytes_max);
        let Some(body_bytes) = body_bytes else {
            let what = format!("a message of type {:?} says a length of {length}", kind as char);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        };
        let mut body = vec![0; body_bytes];
        stream.read_exact(&mut body).await?;
        Ok(Message { kind, body })
    }

    /// The bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self.kind, &self.body)
    }

    /// A field of an `ErrorResponse` or `NoticeResponse`: `C` is the SQLSTATE, `M` the sentence.
    pub(crate) fn field(&self, field: u8) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        let found = fields.find(|text| text.first() == Some(&field))?;
        Some(String::from_utf8_lossy(&found[1..]).into_owned())
    }
}

/// The bytes of a message.
pub(crate) fn encode(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() + 4) as u32;
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// An authentication request.
pub(crate) fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    encode(b'R', &[&code.to_be_bytes(), data].concat())
}

/// `NegotiateProtocolVersion`: protocol 3.0 is spoken, and these extensions are not known.
pub(crate) fn negotiate_version<'a>(extensions: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let names: Vec<&[u8]> = extensions.collect();
    let mut body = 0_u32.to_be_bytes().to_vec();
    body.extend_from_slice(&(names.len() as u32).to_be_bytes());
    for name in names {
        body.extend_from_slice(name);
        body.push(0);
    }
    encode(b'v', &body)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], bytes_max: usize) -> io::Result<Message> {
        let mut stream = bytes;
        let read = Message::read(&mut stream, bytes_max).now_or_never();
        read.expect("a slice is never waited for")
    }

    #[test]
    fn a_message_is_written_and_read_alike() {
        let message = Message { kind: b'p', body: b"n,,n=,r=abc".to_vec() };
        assert_eq!(read(&message.encode(), SASL_BYTES_MAX).expect("it is whole"), message);
    }

    #[test]
    fn a_message_that_claims_to_be_too_long_is_refused_without_room_made_for_it() {
        let claims = [b'p', 0xFF, 0xFF, 0xFF, 0xFF];
        let refused = read(&claims, SASL_BYTES_MAX).expect_err("it is too long");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert!(read(&[b'p', 0, 0, 0, 3], SASL_BYTES_MAX).is_err(), "a length below its own size");
    }

    #[test]
    fn an_errors_fields_are_found_by_their_letter() {
        let error = Message { kind: b'E', body: b"SFATAL\0C57P03\0Mstarting up\0\0".to_vec() };
        assert_eq!(error.field(b'C').as_deref(), Some("57P03"));
        assert_eq!(error.field(b'M').as_deref(), Some("starting up"));
        assert_eq!(error.field(b'Q'), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = read(&bytes, SASL_BYTES_MAX) {
                prop_assert!(message.body.len() <= SASL_BYTES_MAX);
                let _any_field = message.field(b'C');
            }
        }
    }
}
