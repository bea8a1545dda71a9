//! What is said to the proxy over the Unix socket that it came by.

use core::{
    ffi::{c_int, c_uint, c_void},
    mem::size_of,
    ptr::null_mut,
};

use crate::{c, tls::SECRET_BYTES};

/// What an offer is answered with, in the form of a message that Postgres does not have.
const TAKEN: [u8; 5] = *b"h\0\0\0\x04";
/// What the proxy answers that with, before keys if there are any.
const DONE: u8 = b'd';
/// Whose offers are taken: root's, who runs the proxy. The user that runs Postgres may connect, too.
const ROOT: u32 = 0;

/// Asks for the next key that opens the client's records.
pub const OPENS: u8 = b'o';
/// Asks for the next key that seals those for the client.
pub const SEALS: u8 = b's';

/// Whether root connected.
pub fn is_root(socket: c_int) -> bool {
    let mut peer = c::Credentials { user: u32::MAX, ..c::Credentials::default() };
    let mut length = size_of::<c::Credentials>() as c_uint;
    let value = (&raw mut peer).cast();
    // SAFETY: there is room for so many bytes.
    let found = unsafe { c::getsockopt(socket, c::SOL_SOCKET, c::SO_PEERCRED, value, &mut length) };
    found == 0 && peer.user == ROOT
}

/// Says that an offer is taken, and waits until the proxy will say nothing more to the client; whether it
/// said so. Keys come with it where there is room for some.
pub fn take(socket: c_int, keys: &mut [u8]) -> bool {
    let mut done = [0];
    say(socket, &TAKEN)
        && receive_all(socket, &mut done)
        && done == [DONE]
        && receive_all(socket, keys)
}

/// Asks for the next key.
pub fn next_key(socket: c_int, which: u8) -> Option<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    (say(socket, &[which]) && receive_all(socket, &mut secret)).then_some(secret)
}

fn say(socket: c_int, bytes: &[u8]) -> bool {
    let (place, flags) = (bytes.as_ptr().cast(), c::MSG_NOSIGNAL);
    // SAFETY: there are so many bytes.
    let sent = unsafe { c::sendto(socket, place, bytes.len(), flags, null_mut(), 0) };
    sent == bytes.len() as isize
}

/// Waits until all of it is there; not if the proxy is gone.
fn receive_all(socket: c_int, mut into: &mut [u8]) -> bool {
    while !into.is_empty() {
        let place: *mut c_void = into.as_mut_ptr().cast();
        // SAFETY: there is so much room.
        let count = unsafe { c::recvfrom(socket, place, into.len(), 0, null_mut(), null_mut()) };
        match count {
            0 => return false,
            1.. => into = &mut into[count.unsigned_abs()..],
            _ if c::errno() == c::EAGAIN => {
                let mut entry = c::PollEntry { descriptor: socket, events: c::POLLIN, happened: 0 };
                // SAFETY: there is one entry. A signal ends it early; then it is asked again.
                unsafe { c::poll(&mut entry, 1, -1) };
            }
            _ if c::errno() == c::EINTR => {}
            _ => return false,
        }
    }
    true
}
