//! The few messages of the replication protocol that a physical walreceiver and its walsender use
//! (Postgres' documentation, "Streaming Replication Protocol"). Integers are big-endian.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use wal_format::Lsn;

/// The longest message that a walreceiver has reason to send.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Protocol 3.0 in a startup packet, and what asks for something before it.
const PROTOCOL_3: u32 = 196_608;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// From 1970 to 2000, where Postgres' time begins.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);
/// `text` and `int4` (pg_type.dat).
const TEXT: (u32, i16) = (25, -1);
const INT4: (u32, i16) = (23, 4);

/// What a connection begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Startup {
    /// The session itself.
    Session,
    /// A wish for encryption, which is answered by one byte.
    Encryption,
}

/// What a walreceiver asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// Which cluster this is.
    IdentifySystem,
    /// WAL from here on.
    StartReplication(Lsn),
    /// Something else.
    Other,
}

/// A message: its tag and its body.
pub(super) struct Message {
    pub tag: u8,
    pub body: Bytes,
}

/// Reads a startup packet.
pub(super) async fn read_startup(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Startup> {
    let mut body = read_body(from).await?;
    match body.try_get_u32() {
        Ok(PROTOCOL_3) => Ok(Startup::Session),
        Ok(SSL_REQUEST | GSS_REQUEST) => Ok(Startup::Encryption),
        other => Err(invalid(format!("no startup packet of a walreceiver: {other:?}"))),
    }
}

/// Reads a message; none where the connection ends before it.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Message>> {
    let tag = match from.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        tag => tag?,
    };
    Ok(Some(Message { tag, body: read_body(from).await? }))
}

async fn read_body(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let length = from.read_u32().await? as usize;
    let body = length.checked_sub(4).filter(|body| *body <= MESSAGE_BYTES_MAX);
    let body = body.ok_or_else(|| invalid(format!("a message of {length} bytes")))?;
    let mut bytes = BytesMut::zeroed(body);
    from.read_exact(&mut bytes).await?;
    Ok(bytes.freeze())
}

impl Command {
    /// What a query's text asks.
    pub(super) fn parse(query: &[u8]) -> Command {
        let text = String::from_utf8_lossy(query);
        let mut words = text.trim_end_matches('\0').split_whitespace();
        match words.next() {
            Some("IDENTIFY_SYSTEM") => Command::IdentifySystem,
            // A slot may be named before the LSN; no slot's name has a slash.
            Some("START_REPLICATION") => words
                .find_map(|word| word.parse().ok())
                .map_or(Command::Other, Command::StartReplication),
            _ => Command::Other,
        }
    }
}

/// How far a standby says that it has replayed, where this is what it says.
pub(super) fn replayed(status: &[u8]) -> Option<Lsn> {
    let mut fields = status.strip_prefix(b"r")?;
    let (_written, _flushed) = (fields.try_get_u64().ok()?, fields.try_get_u64().ok()?);
    fields.try_get_u64().ok().map(Lsn)
}

/// Everybody is who they say, and may ask.
pub(super) fn welcome() -> Bytes {
    let mut out = BytesMut::new();
    message(&mut out, b'R', |body| body.put_u32(0));
    ready(&mut out);
    out.freeze()
}

/// The answer to [`Command::IdentifySystem`].
pub(super) fn system(id: u64, timeline: u32, end: Lsn) -> Bytes {
    let mut out = BytesMut::new();
    let columns = [("systemid", TEXT), ("timeline", INT4), ("xlogpos", TEXT), ("dbname", TEXT)];
    message(&mut out, b'T', |body| {
        body.put_u16(columns.len() as u16);
        for (name, (oid, bytes)) in columns {
            body.put_slice(name.as_bytes());
            // After the name's end: no table, no column of one; the type; no modifier; as text.
            body.put_u8(0);
            body.put_u32(0);
            body.put_u16(0);
            body.put_u32(oid);
            body.put_i16(bytes);
            body.put_i32(-1);
            body.put_u16(0);
        }
    });
    message(&mut out, b'D', |body| {
        body.put_u16(columns.len() as u16);
        for value in [id.to_string(), timeline.to_string(), end.to_string()] {
            body.put_u32(value.len() as u32);
            body.put_slice(value.as_bytes());
        }
        body.put_i32(-1);
    });
    message(&mut out, b'C', |body| body.put_slice(b"IDENTIFY_SYSTEM\0"));
    ready(&mut out);
    out.freeze()
}

/// From here on both sides send data.
pub(super) fn copy_both() -> Bytes {
    let mut out = BytesMut::new();
    message(&mut out, b'W', |body| {
        body.put_u8(0);
        body.put_u16(0);
    });
    out.freeze()
}

/// What stands before WAL that is sent.
pub(super) fn wal_head(begin: Lsn, length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(30);
    head.put_u8(b'd');
    // The message's length, itself included, and what follows of the head.
    head.put_u32((4 + 25 + length) as u32);
    head.put_u8(b'w');
    head.put_u64(begin.0);
    head.put_u64(begin.0 + length as u64);
    head.put_i64(now());
    head.freeze()
}

/// Says that all is well, where there is no WAL to send.
pub(super) fn keepalive(end: Lsn) -> Bytes {
    let mut out = BytesMut::new();
    message(&mut out, b'd', |body| {
        body.put_u8(b'k');
        body.put_u64(end.0);
        body.put_i64(now());
        body.put_u8(0);
    });
    out.freeze()
}

/// Refuses a command (`feature_not_supported`).
pub(super) fn refusal(why: &str) -> Bytes {
    let mut out = BytesMut::new();
    message(&mut out, b'E', |body| {
        for (field, value) in [(b'S', "ERROR"), (b'C', "0A000"), (b'M', why)] {
            body.put_u8(field);
            body.put_slice(value.as_bytes());
            body.put_u8(0);
        }
        body.put_u8(0);
    });
    ready(&mut out);
    out.freeze()
}

fn ready(out: &mut BytesMut) {
    message(out, b'Z', |body| body.put_u8(b'I'));
}

fn message(out: &mut BytesMut, tag: u8, fill: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::new();
    fill(&mut body);
    out.put_u8(tag);
    out.put_u32(body.len() as u32 + 4);
    out.put_slice(&body);
}

/// Microseconds since 2000.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH + POSTGRES_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_walreceiver_asks_is_understood() {
        let asked = |text: &str| Command::parse(text.as_bytes());
        assert_eq!(asked("IDENTIFY_SYSTEM\0"), Command::IdentifySystem);
        let start = Command::StartReplication(Lsn(0x1_6B00_0000));
        assert_eq!(asked("START_REPLICATION 1/6B000000 TIMELINE 1\0"), start);
        assert_eq!(asked("START_REPLICATION SLOT \"a\" 1/6B000000 TIMELINE 1\0"), start);
        assert_eq!(asked("START_REPLICATION TIMELINE 1\0"), Command::Other);
        assert_eq!(asked("TIMELINE_HISTORY 2\0"), Command::Other);
        assert_eq!(asked(""), Command::Other);
    }

    #[test]
    fn a_status_says_what_is_replayed_and_feedback_does_not() {
        let mut status = BytesMut::from(&b"r"[..]);
        for lsn in [30, 20, 10] {
            status.put_u64(lsn);
        }
        status.put_i64(0);
        status.put_u8(0);
        assert_eq!(replayed(&status), Some(Lsn(10)));
        assert_eq!(replayed(&status[..20]), None, "it is cut off");
        status[0] = b'h';
        assert_eq!(replayed(&status), None);
    }

    #[tokio::test]
    async fn a_message_that_nobody_has_reason_to_send_is_refused() {
        for length in [3_u32, 4 + MESSAGE_BYTES_MAX as u32 + 1, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert!(read(&mut &bytes[..]).await.is_err(), "{length}");
        }
        assert!(read(&mut &b""[..]).await.is_ok_and(|message| message.is_none()));
    }
}
