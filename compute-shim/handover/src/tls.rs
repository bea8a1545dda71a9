//! TLS 1.3 (RFC 8446) from where the proxy left it: records, the client's new keys, the end.

use core::{
    ffi::{c_int, c_void},
    ptr::null_mut,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    c,
    crypto::{IV_BYTES, KEY_BYTES_MAX, Key, OpenSsl, TAG_BYTES},
    proxy,
};

/// Bytes of a key and its IV, as the proxy sends them.
pub const SECRET_BYTES: usize = KEY_BYTES_MAX + IV_BYTES;
/// What the proxy sends when it leaves: the cipher, then for each direction, the client's first, the number
/// of the next record and the key.
pub const KEYS_BYTES: usize = 1 + 2 * (8 + SECRET_BYTES);

const HEADER_BYTES: usize = 5;
/// The most that a record says.
const TEXT_BYTES_MAX: usize = 1 << 14;
/// The longest record: 5.2 allows the client so much padding and tag.
const RECORD_BYTES_MAX: usize = HEADER_BYTES + TEXT_BYTES_MAX + 256;
/// A record that says so much: with the type of its content, and the tag.
const fn sealed_bytes(text: usize) -> usize {
    HEADER_BYTES + text + 1 + TAG_BYTES
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// A `KeyUpdate` but for its last byte, by which the other side is asked for one as well.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Records that are sealed with one key: AES-GCM is safe for some more (5.5).
const RECORDS_MAX: u64 = 1 << 24;

/// Records without text that a client may send at a stretch: Postgres cannot be interrupted meanwhile.
const IDLE_RECORDS_MAX: u32 = 32;

/// A session's state. It is large, and all zero until there is one, so that it costs nothing.
pub struct Tls {
    session: Option<Session>,
    /// The client asked for another key of this side: it is told of it before the next text.
    wants_key: bool,
    is_ended: bool,
    input: Input,
    output: Output,
}

struct Session {
    cipher: u8,
    opens: Key,
    seals: Key,
    /// Bytes of Postgres' protocol that were sealed, for the proxy to read.
    sent: &'static AtomicU64,
}

/// What was received.
struct Input {
    bytes: [u8; RECORD_BYTES_MAX],
    filled: usize,
    /// Where the first record ends, once it was opened, and what of its text was not taken yet.
    record_end: usize,
    text: (usize, usize),
}

/// Sealed records that the kernel did not take yet.
struct Output {
    bytes: [u8; sealed_bytes(TEXT_BYTES_MAX) + sealed_bytes(KEY_UPDATE.len() + 1)],
    filled: usize,
    sent: usize,
    /// The text in it.
    text: usize,
}

/// What a record was.
enum Record {
    Text,
    End,
    /// The client has another key now; whether it asks for one of this side.
    Key {
        asks: bool,
    },
}

impl Tls {
    /// There is none.
    pub const NONE: Tls = Tls {
        session: None,
        wants_key: false,
        is_ended: false,
        input: Input { bytes: [0; RECORD_BYTES_MAX], filled: 0, record_end: 0, text: (0, 0) },
        output: Output {
            bytes: [0; sealed_bytes(TEXT_BYTES_MAX) + sealed_bytes(KEY_UPDATE.len() + 1)],
            filled: 0,
            sent: 0,
            text: 0,
        },
    };

    /// Whether the client's socket speaks it.
    pub fn is_spoken(&self) -> bool {
        self.session.is_some()
    }

    /// Goes on with what the proxy left; whether it can.
    pub fn begin(
        &mut self,
        openssl: OpenSsl,
        sent: &'static AtomicU64,
        keys: &[u8; KEYS_BYTES],
    ) -> bool {
        let (cipher, keys) = (keys[0], &keys[1..]);
        let (receives, sends) = keys.split_at(8 + SECRET_BYTES);
        let key = |part: &[u8], seals| {
            let (sequence, secret) = part.split_first_chunk::<8>()?;
            Key::new(openssl, cipher, seals, u64::from_be_bytes(*sequence), secret)
        };
        let (Some(opens), Some(seals)) = (key(receives, false), key(sends, true)) else {
            return false;
        };
        self.session = Some(Session { cipher, opens, seals, sent });
        true
    }

    /// There is none after all.
    pub fn forget(&mut self) {
        self.session = None;
    }

    /// What `recv` does, for the text. `proxy` is asked for keys.
    pub fn receive(&mut self, socket: c_int, proxy: c_int, into: &mut [u8]) -> isize {
        let mut records = 0;
        while records <= IDLE_RECORDS_MAX {
            let (begin, end) = self.input.text;
            if begin < end {
                let count = into.len().min(end - begin);
                into[..count].copy_from_slice(&self.input.bytes[begin..begin + count]);
                self.input.text.0 += count;
                return count as isize;
            }
            let Some(session) = &mut self.session else { return broken() };
            if self.is_ended {
                return 0;
            }
            self.input.drop_record();
            let Some(length) = self.input.record_bytes() else {
                match self.input.fill(socket) {
                    1.. => continue,
                    failed => return failed,
                }
            };
            match session.open(&mut self.input, length, proxy) {
                Some(Record::End) => self.is_ended = true,
                Some(Record::Key { asks }) => self.wants_key |= asks,
                Some(Record::Text) => {}
                None => return broken(),
            }
            records += 1;
        }
        broken()
    }

    /// What `send` does, for the text. What the kernel does not take at once is said to have been refused,
    /// and Postgres comes with the same again.
    pub fn send(&mut self, socket: c_int, proxy: c_int, text: &[u8]) -> isize {
        let Some(session) = &mut self.session else { return broken() };
        if self.output.filled == 0 {
            let text = &text[..text.len().min(TEXT_BYTES_MAX)];
            if self.wants_key || session.seals.sequence() >= RECORDS_MAX {
                self.wants_key = false;
                if !session.next_sealing_key(&mut self.output, proxy) {
                    return broken();
                }
            }
            if !self.output.seal(&mut session.seals, DATA, text) {
                return broken();
            }
            self.output.text = text.len();
            session.sent.fetch_add(text.len() as u64, Ordering::Relaxed);
        }
        match self.output.flush(socket, 0) {
            true => self.output.text as isize,
            false => -1,
        }
    }

    /// Tells the client that this is the end, where it can be told at once.
    pub fn end(&mut self, socket: c_int) {
        let Some(session) = &mut self.session else { return };
        if self.output.filled == 0 && self.output.seal(&mut session.seals, ALERT, &CLOSE_NOTIFY) {
            self.output.flush(socket, c::MSG_DONTWAIT);
        }
    }
}

impl Session {
    /// Opens the first record, which has so many bytes.
    fn open(&mut self, input: &mut Input, length: usize, proxy: c_int) -> Option<Record> {
        let (header, body) = input.bytes[..length].split_at_mut(HEADER_BYTES);
        if header[0] != DATA || !self.opens.open(header, body) {
            return None;
        }
        input.record_end = length;
        // The type stands behind the text, and zeros may behind it.
        let padded = &body[..body.len() - TAG_BYTES];
        let end = padded.iter().rposition(|byte| *byte != 0)?;
        let text = &padded[..end];
        match padded[end] {
            DATA => {
                input.text = (HEADER_BYTES, HEADER_BYTES + end);
                Some(Record::Text)
            }
            ALERT => (text == CLOSE_NOTIFY || text == [2, 0]).then_some(Record::End),
            HANDSHAKE => {
                let asks = *text.strip_prefix(&KEY_UPDATE)?.first().filter(|_| text.len() == 5)?;
                let secret = proxy::next_key(proxy, proxy::OPENS)?;
                self.opens.replace(self.cipher, &secret).then_some(Record::Key { asks: asks == 1 })
            }
            _ => None,
        }
    }

    /// Tells the client, with the key of before, that another one follows, and takes that.
    fn next_sealing_key(&mut self, output: &mut Output, proxy: c_int) -> bool {
        let [kind, a, b, c] = KEY_UPDATE;
        output.seal(&mut self.seals, HANDSHAKE, &[kind, a, b, c, 0])
            && proxy::next_key(proxy, proxy::SEALS)
                .is_some_and(|secret| self.seals.replace(self.cipher, &secret))
    }
}

impl Input {
    /// The length of the first record, if all of it is there; more than fits is an error of the client's,
    /// and is found when it is opened.
    fn record_bytes(&self) -> Option<usize> {
        let header = self.bytes[..self.filled].first_chunk::<HEADER_BYTES>()?;
        let body = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let length = (HEADER_BYTES + body).min(RECORD_BYTES_MAX);
        (self.filled >= length).then_some(length)
    }

    /// Receives more.
    fn fill(&mut self, socket: c_int) -> isize {
        let room = &mut self.bytes[self.filled..];
        // SAFETY: there is so much room.
        let received = unsafe {
            c::recvfrom(socket, room.as_mut_ptr().cast(), room.len(), 0, null_mut(), null_mut())
        };
        self.filled += received.max(0).unsigned_abs();
        received
    }

    /// Makes room of the record whose text was taken.
    fn drop_record(&mut self) {
        if self.record_end > 0 {
            self.bytes.copy_within(self.record_end..self.filled, 0);
            self.filled -= self.record_end;
            self.record_end = 0;
            self.text = (0, 0);
        }
    }
}

impl Output {
    /// Adds a record.
    fn seal(&mut self, key: &mut Key, kind: u8, text: &[u8]) -> bool {
        let Some(record) = self.bytes.get_mut(self.filled..self.filled + sealed_bytes(text.len()))
        else {
            return false;
        };
        let (header, body) = record.split_at_mut(HEADER_BYTES);
        let [high, low] = (body.len() as u16).to_be_bytes();
        header.copy_from_slice(&[DATA, 3, 3, high, low]);
        body[..text.len()].copy_from_slice(text);
        body[text.len()] = kind;
        self.filled += sealed_bytes(text.len());
        key.seal(header, body)
    }

    /// Sends what is there; whether the kernel took all.
    fn flush(&mut self, socket: c_int, flags: c_int) -> bool {
        while self.sent < self.filled {
            let rest = &self.bytes[self.sent..self.filled];
            // SAFETY: there are so many bytes.
            let sent = unsafe {
                c::sendto(socket, rest.as_ptr().cast(), rest.len(), flags, null_mut(), 0)
            };
            if sent < 0 {
                return false;
            }
            self.sent += sent.unsigned_abs();
        }
        (self.filled, self.sent) = (0, 0);
        true
    }
}

/// Postgres ends a session whose client is lost.
fn broken() -> isize {
    c::set_errno(c::ECONNRESET);
    -1
}

/// A number that another process reads, in memory that was passed as this descriptor.
pub fn shared_number(memory: c_int) -> Option<&'static AtomicU64> {
    let length = size_of::<AtomicU64>();
    // SAFETY: a new mapping, wherever there is room.
    let place = unsafe {
        c::mmap(null_mut(), length, c::PROT_READ | c::PROT_WRITE, c::MAP_SHARED, memory, 0)
    };
    // SAFETY: it begins at a page, and stays for as long as the process.
    (place as isize != -1).then(|| unsafe { &*place.cast::<AtomicU64>() })
}

/// The caller's buffer.
///
/// # Safety
/// There is room for so many bytes, and nobody else uses them meanwhile.
pub unsafe fn buffer<'a>(place: *mut c_void, length: usize) -> &'a mut [u8] {
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts_mut(place.cast(), length) }
}
