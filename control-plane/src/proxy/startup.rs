//! What a client sends first: a request for encryption, for a cancel, or for a session.
//!
//! Postgres reads these in `ProcessStartupPacket` (src/backend/postmaster/postmaster.c).

use super::Refusal;

/// The longest startup packet, its length included: Postgres' `MAX_STARTUP_PACKET_LENGTH`, and the
/// length itself.
pub(crate) const STARTUP_BYTES_MAX: usize = 10_004;

/// The longest cancel key that protocol 3.2 allows.
const CANCEL_KEY_BYTES_MAX: usize = 256;

/// The length that stands before each packet counts itself.
const LENGTH_BYTES: usize = 4;

/// These stand where a startup message has its version: major in the upper, minor in the lower half.
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;
const PROTOCOL_MAJOR: u32 = 3;

/// The first packet of a connection, or of an encrypted stream in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// TLS is asked for.
    Ssl,
    /// Encryption by GSSAPI is asked for.
    GssEncryption,
    /// The query of another connection is to be cancelled.
    Cancel(CancelKey),
    /// A session is asked for.
    Startup(Startup),
}

/// What names a session to whoever wants to cancel its query: `BackendKeyData`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CancelKey {
    /// The process, as `pg_backend_pid()` says it.
    pub process: i32,
    /// What only the session's client knows.
    pub secret: Vec<u8>,
}

/// The parameters of a session, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Startup {
    /// The minor version of protocol 3 that the client would speak.
    pub minor: u16,
    pub parameters: Vec<Parameter>,
}

/// A name and its value; neither holds a zero byte.
pub(crate) type Parameter = (Vec<u8>, Vec<u8>);

impl Startup {
    /// The last value of a parameter, as Postgres takes it.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let is_it = |(key, _): &&Parameter| key == name.as_bytes();
        self.parameters.iter().rev().find(is_it).map(|(_, value)| value.as_slice())
    }

    /// The names of parameters that are extensions of the protocol; none of them is known here.
    pub(crate) fn extensions(&self) -> impl Iterator<Item = &[u8]> {
        let names = self.parameters.iter().map(|(name, _)| name.as_slice());
        names.filter(|name| name.starts_with(b"_pq_."))
    }

    /// The packet, its length included, in protocol 3.0 and without extensions.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = (PROTOCOL_MAJOR << 16).to_be_bytes().to_vec();
        for (name, value) in &self.parameters {
            if !name.starts_with(b"_pq_.") {
                for text in [name, value] {
                    body.extend_from_slice(text);
                    body.push(0);
                }
            }
        }
        body.push(0);
        with_length(&body)
    }
}

impl CancelKey {
    /// The request that cancels the session's query, its length included.
    pub(crate) fn request(&self) -> Vec<u8> {
        let mut body = CANCEL_REQUEST.to_be_bytes().to_vec();
        body.extend_from_slice(&self.process.to_be_bytes());
        body.extend_from_slice(&self.secret);
        with_length(&body)
    }

    /// The body of `BackendKeyData`, and of a cancel request after its code.
    pub(crate) fn decode(bytes: &[u8]) -> Option<CancelKey> {
        let (process, secret) = bytes.split_first_chunk::<4>()?;
        let fits = (4..=CANCEL_KEY_BYTES_MAX).contains(&secret.len());
        fits.then(|| CancelKey { process: i32::from_be_bytes(*process), secret: secret.to_vec() })
    }

    /// The body of `BackendKeyData`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.process.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.secret);
        bytes
    }
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let length = (body.len() + LENGTH_BYTES) as u32;
    [&length.to_be_bytes(), body].concat()
}

/// How many bytes follow a packet's length.
pub(crate) fn body_length(length: [u8; LENGTH_BYTES]) -> Result<usize, Refusal> {
    let length = u32::from_be_bytes(length) as usize;
    if (2 * LENGTH_BYTES..=STARTUP_BYTES_MAX).contains(&length) {
        return Ok(length - LENGTH_BYTES);
    }
    Err(Refusal::Protocol(format!(
        "invalid length of startup packet: {length} bytes, between {} and {STARTUP_BYTES_MAX} were \
         expected",
        2 * LENGTH_BYTES
    )))
}

/// Reads what follows the length.
pub(crate) fn decode(body: &[u8]) -> Result<Packet, Refusal> {
    let short = || Refusal::Protocol("incomplete startup packet".to_owned());
    let (code, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
    match u32::from_be_bytes(*code) {
        SSL_REQUEST if rest.is_empty() => Ok(Packet::Ssl),
        GSSENC_REQUEST if rest.is_empty() => Ok(Packet::GssEncryption),
        SSL_REQUEST | GSSENC_REQUEST => {
            Err(Refusal::Protocol("a request for encryption has no body".to_owned()))
        }
        CANCEL_REQUEST => CancelKey::decode(rest).map(Packet::Cancel).ok_or_else(|| {
            Refusal::Protocol("invalid length of a cancel request's key".to_owned())
        }),
        version if version >> 16 == PROTOCOL_MAJOR => {
            // The lower half.
            let minor = (version & 0xFFFF) as u16;
            Ok(Packet::Startup(Startup { minor, parameters: parameters(rest)? }))
        }
        version => Err(Refusal::Unsupported(format!(
            "unsupported frontend protocol {}.{}: server supports 3.0",
            version >> 16,
            version & 0xFFFF
        ))),
    }
}

/// Names and values, each ended by a zero byte, and one more zero byte at the very end.
fn parameters(mut rest: &[u8]) -> Result<Vec<Parameter>, Refusal> {
    let layout = || {
        Refusal::Protocol(
            "invalid startup packet layout: expected terminator as last byte".to_owned(),
        )
    };
    let mut text = || {
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(layout)?;
        let (text, after) = rest.split_at(end);
        rest = &after[1..];
        Ok(text.to_vec())
    };
    let mut found = Vec::new();
    loop {
        let name = text()?;
        if name.is_empty() {
            break;
        }
        found.push((name, text()?));
    }
    if rest.is_empty() { Ok(found) } else { Err(layout()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn startup(pairs: &[(&str, &str)]) -> Startup {
        let pair = |(name, value): &(&str, &str)| (name.as_bytes().into(), value.as_bytes().into());
        Startup { minor: 0, parameters: pairs.iter().map(pair).collect() }
    }

    #[test]
    fn a_startup_message_is_written_and_read_alike_without_what_the_backend_would_not_know() {
        let sent = startup(&[("user", "app"), ("database", "shop")]);
        assert_eq!(decode(&sent.encode()[4..]).expect("it is whole"), Packet::Startup(sent));
        let newer = startup(&[("user", "app"), ("_pq_.colour", "blue")]);
        assert_eq!(newer.extensions().collect::<Vec<_>>(), [b"_pq_.colour"]);
        let read = decode(&newer.encode()[4..]).expect("it is whole");
        assert_eq!(read, Packet::Startup(startup(&[("user", "app")])));
    }

    #[test]
    fn requests_are_what_libpq_sends() {
        assert_eq!(decode(&[4, 210, 22, 47]).expect("an SSLRequest"), Packet::Ssl);
        assert_eq!(decode(&[4, 210, 22, 48]).expect("a GSSENCRequest"), Packet::GssEncryption);
        let key = CancelKey { process: 258, secret: vec![9, 8, 7, 6] };
        let bytes = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 1, 2, 9, 8, 7, 6];
        assert_eq!(key.request(), bytes);
        assert_eq!(decode(&bytes[4..]).expect("a CancelRequest"), Packet::Cancel(key));
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_a_byte_is_read() {
        for length in [0, 4, 7, 10_005, u32::MAX] {
            let refused = body_length(length.to_be_bytes());
            assert!(matches!(refused, Err(Refusal::Protocol(_))), "{length} was accepted");
        }
        assert_eq!(body_length(8_u32.to_be_bytes()).ok(), Some(4));
        assert_eq!(body_length(10_004_u32.to_be_bytes()).ok(), Some(10_000));
    }

    #[test]
    fn another_major_version_and_a_layout_that_is_not_ended_are_refused() {
        assert!(matches!(decode(&[0, 2, 0, 0, 0]), Err(Refusal::Unsupported(_))));
        for bad in
            [&b"\0\x03\0\0user\0app\0"[..], b"\0\x03\0\0user\0", b"\0\x03\0\0\0more", b"\0\x03"]
        {
            assert!(matches!(decode(bad), Err(Refusal::Protocol(_))), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_and_never_panic(
            head in prop::sample::select(vec![CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST, 3 << 16, 3 << 16 | 2, 0]),
            body in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let packet = [&head.to_be_bytes()[..], &body].concat();
            if let Ok(Packet::Startup(startup)) = decode(&packet) {
                let again = decode(&startup.encode()[4..]).expect("what was read can be written");
                let Packet::Startup(again) = again else { panic!("it was a startup message") };
                let kept = |(name, _): &&Parameter| !name.starts_with(b"_pq_.");
                let parameters: Vec<_> = startup.parameters.iter().filter(kept).cloned().collect();
                prop_assert_eq!(again.parameters, parameters);
            }
            let _any_bytes_at_all = decode(&body);
        }
    }
}
