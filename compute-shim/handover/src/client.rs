//! A backend's connection to its client, and how it is replaced.

use core::{
    ffi::{c_int, c_void},
    mem::size_of,
    ptr::null_mut,
};

use crate::{
    c,
    receive::{Passed, receive},
};

/// What the proxy sends the client's socket with: Postgres' `Sync`. A backend without this module loses
/// the socket and answers `ReadyForQuery`, so that the proxy knows.
const OFFER: [u8; 5] = *b"S\0\0\0\x04";
/// What the offer is answered with, in the form of a message that Postgres does not have.
const TAKEN: [u8; 5] = *b"h\0\0\0\x04";
/// Whose offers are taken: root's, who runs the proxy. The user that runs Postgres may connect, too.
const ROOT: u32 = 0;

/// Where Postgres waits for its client: a registration with epoll.
#[derive(Clone, Copy)]
struct Waiting {
    epoll: c_int,
    event: c::EpollEvent,
}

/// The connection that the postmaster accepted last: in a backend, its client's.
pub struct Client {
    socket: c_int,
    waiting: Option<Waiting>,
    /// This process is its backend.
    is_mine: bool,
    /// It was replaced: nothing more is passed over it.
    is_replaced: bool,
}

impl Client {
    /// None was accepted yet.
    pub const NONE: Client =
        Client { socket: -1, waiting: None, is_mine: false, is_replaced: false };

    /// The postmaster accepted a connection. What a backend accepts is none of its client's.
    pub fn accepted(&mut self, socket: c_int) {
        if !self.is_mine {
            *self = Client { socket, ..Client::NONE };
        }
    }

    /// A registration with epoll was made or changed.
    pub fn waits(&mut self, epoll: c_int, operation: c_int, socket: c_int, event: c::EpollEvent) {
        if socket != self.socket || self.is_replaced {
            return;
        }
        let is_known = self.waiting.is_some_and(|waiting| waiting.epoll == epoll);
        match operation {
            // The first is the one that lasts; others are made for one wait.
            c::EPOLL_CTL_ADD if self.waiting.is_none() => {
                self.waiting = Some(Waiting { epoll, event });
            }
            c::EPOLL_CTL_MOD if is_known => self.waiting = Some(Waiting { epoll, event }),
            c::EPOLL_CTL_DEL if is_known => self.waiting = None,
            _ => {}
        }
    }

    /// What `recv` does.
    ///
    /// # Safety
    /// As of `recv`: `buffer` has room for `length` bytes.
    pub unsafe fn receive(
        &mut self,
        socket: c_int,
        buffer: *mut c_void,
        length: usize,
        flags: c_int,
    ) -> isize {
        let may_be_replaced = socket == self.socket && !self.is_replaced;
        if !may_be_replaced {
            // SAFETY: the caller's promise.
            return unsafe { plain_receive(socket, buffer, length, flags) };
        }
        self.is_mine = true;
        // SAFETY: the caller's promise.
        let (received, passed) = unsafe { receive(socket, buffer, length, flags) };
        let Some(passed) = passed else { return received };
        // SAFETY: so many bytes have just been written there.
        let bytes = unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), received as usize) };
        let Some(client) = offered(bytes, &passed).filter(|_| comes_from_root(socket)) else {
            passed.close();
            return received;
        };
        if self.replace(client) {
            // SAFETY: the caller's promise.
            return unsafe { plain_receive(socket, buffer, length, flags) };
        }
        passed.close();
        // Postgres ends a session whose client is lost.
        c::set_errno(c::ECONNRESET);
        -1
    }

    /// Puts the client's own socket in the place of the proxy's; whether it stands there. The proxy's
    /// stays open until this process ends, which the proxy learns by that.
    fn replace(&mut self, client: c_int) -> bool {
        let socket = self.socket;
        let proxy_waits = say_taken(socket) && proxy_is_done(socket);
        if !proxy_waits {
            return false;
        }
        // The descriptor's number stays, but epoll knows what is behind it, and the proxy's connection
        // stays open: it would go on being waited for.
        let wait = |waiting: Waiting, operation| {
            let mut event = waiting.event;
            // SAFETY: Postgres registered the same with the same set, which lasts as long as it does.
            unsafe { c::epoll_ctl(waiting.epoll, operation, socket, &mut event) == 0 }
        };
        // SAFETY: three calls on descriptors of this process. Nobody else uses their numbers: it has one
        // thread.
        let is_placed = unsafe {
            c::fcntl(socket, c::F_DUPFD_CLOEXEC, 0) >= 0
                && self.waiting.is_none_or(|waiting| wait(waiting, c::EPOLL_CTL_DEL))
                && c::dup3(client, socket, c::O_CLOEXEC) >= 0
        };
        if !is_placed || !self.waiting.is_none_or(|waiting| wait(waiting, c::EPOLL_CTL_ADD)) {
            return false;
        }
        // SAFETY: it was passed to this process, which has it under another number now.
        unsafe { c::close(client) };
        self.is_replaced = true;
        true
    }
}

/// The socket that these bytes offer.
fn offered(bytes: &[u8], passed: &Passed) -> Option<c_int> {
    passed.only().filter(|_| bytes == OFFER)
}

/// Whether root connected.
fn comes_from_root(socket: c_int) -> bool {
    let mut peer = c::Credentials { user: u32::MAX, ..c::Credentials::default() };
    let mut length = size_of::<c::Credentials>() as u32;
    // SAFETY: there is room for so many bytes.
    let found = unsafe {
        let value = (&raw mut peer).cast();
        c::getsockopt(socket, c::SOL_SOCKET, c::SO_PEERCRED, value, &mut length)
    };
    found == 0 && peer.user == ROOT
}

fn say_taken(socket: c_int) -> bool {
    // SAFETY: there are so many bytes.
    let sent = unsafe { c::send(socket, TAKEN.as_ptr().cast(), TAKEN.len(), c::MSG_NOSIGNAL) };
    sent == TAKEN.len() as isize
}

/// Waits until the proxy says, by one byte, that it will say nothing more to the client. One that is
/// gone says nothing.
fn proxy_is_done(socket: c_int) -> bool {
    loop {
        let mut byte = 0_u8;
        // SAFETY: there is room for one byte.
        match unsafe { plain_receive(socket, (&raw mut byte).cast(), 1, 0) } {
            0 => return false,
            1.. => return true,
            _ if c::errno() == c::EAGAIN => {
                let mut entry = c::PollEntry { descriptor: socket, events: c::POLLIN, happened: 0 };
                // SAFETY: there is one entry. A signal ends it early; then it is asked again.
                unsafe { c::poll(&mut entry, 1, -1) };
            }
            _ if c::errno() == c::EINTR => {}
            _ => return false,
        }
    }
}

/// # Safety
/// As of `recv`.
unsafe fn plain_receive(socket: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> isize {
    // SAFETY: the caller's promise; no address is asked for.
    unsafe { c::recvfrom(socket, buffer, length, flags, null_mut(), null_mut()) }
}
