//! A backend's connection to its client, and how it is replaced.

use core::{
    ffi::{c_int, c_void},
    ptr::null_mut,
    sync::atomic::AtomicU64,
};

use crate::{
    c,
    crypto::OpenSsl,
    interposed::tell_at_exit,
    proxy,
    receive::receive,
    tls::{self, KEYS_BYTES, Tls, shared_number},
};

/// What the proxy sends the client's socket with: Postgres' `Sync`. A backend without this module loses
/// the socket and answers `ReadyForQuery`, so that the proxy knows.
const OFFER: [u8; 5] = *b"S\0\0\0\x04";

/// Where Postgres waits for its client: a registration with epoll.
#[derive(Clone, Copy)]
struct Waiting {
    epoll: c_int,
    event: c::EpollEvent,
}

/// The connection that the postmaster accepted last: in a backend, its client's. All zero until there is
/// one, so that the room for TLS costs nothing.
pub struct Client {
    socket: Option<c_int>,
    waiting: Option<Waiting>,
    /// The connection that was replaced.
    proxy: c_int,
    tls: Tls,
    /// This process is its backend.
    is_mine: bool,
    /// It was replaced: nothing more is passed over it.
    is_replaced: bool,
}

impl Client {
    /// None was accepted yet.
    pub const NONE: Client = Client {
        socket: None,
        waiting: None,
        proxy: 0,
        tls: Tls::NONE,
        is_mine: false,
        is_replaced: false,
    };

    /// The postmaster accepted a connection; whether it is its first. What a backend accepts is none of its
    /// client's.
    pub fn accepted(&mut self, socket: c_int) -> bool {
        let is_first = self.socket.is_none();
        if !self.is_mine {
            (self.socket, self.waiting) = (Some(socket), None);
        }
        is_first
    }

    /// A registration with epoll was made or changed.
    pub fn waits(&mut self, epoll: c_int, operation: c_int, socket: c_int, event: c::EpollEvent) {
        if self.socket != Some(socket) || self.is_replaced {
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
        if self.socket == Some(socket) && self.tls.is_spoken() {
            // SAFETY: the caller's promise.
            return self.tls.receive(socket, self.proxy, unsafe { tls::buffer(buffer, length) });
        }
        if self.socket != Some(socket) || self.is_replaced {
            // SAFETY: the caller's promise.
            return unsafe { plain_receive(socket, buffer, length, flags) };
        }
        self.is_mine = true;
        // SAFETY: the caller's promise.
        let (received, passed) = unsafe { receive(socket, buffer, length, flags) };
        let Some(passed) = passed else { return received };
        // SAFETY: so many bytes have just been written there.
        let bytes = unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), received as usize) };
        if bytes != OFFER || !proxy::is_root(socket) {
            passed.close();
            return received;
        }
        let taken = match passed.descriptors() {
            [client] => self.take(socket, *client, None),
            [client, memory] => match OpenSsl::find().zip(shared_number(*memory)) {
                Some(found) => self.take(socket, *client, Some(found)),
                // A `Sync` is left of the offer.
                None => {
                    passed.close();
                    return received;
                }
            },
            _ => return received,
        };
        passed.close();
        match taken {
            // SAFETY: the caller's promise.
            true => unsafe { self.receive(socket, buffer, length, flags) },
            false => {
                // Postgres ends a session whose client is lost.
                c::set_errno(c::ECONNRESET);
                -1
            }
        }
    }

    /// What `send` does.
    ///
    /// # Safety
    /// As of `send`: there are `length` bytes.
    pub unsafe fn send(
        &mut self,
        socket: c_int,
        bytes: *const c_void,
        length: usize,
        flags: c_int,
    ) -> isize {
        if self.socket == Some(socket) && self.tls.is_spoken() {
            // SAFETY: the caller's promise.
            let text = unsafe { core::slice::from_raw_parts(bytes.cast(), length) };
            return self.tls.send(socket, self.proxy, text);
        }
        // SAFETY: the caller's promise.
        unsafe { c::sendto(socket, bytes, length, flags, null_mut(), 0) }
    }

    /// The process ends.
    pub fn end(&mut self) {
        if let Some(socket) = self.socket {
            self.tls.end(socket);
        }
    }

    /// Takes a client's socket that was offered; whether the backend has it.
    fn take(
        &mut self,
        socket: c_int,
        client: c_int,
        tls: Option<(OpenSsl, &'static AtomicU64)>,
    ) -> bool {
        let mut keys = [0; KEYS_BYTES];
        let room = if tls.is_some() { &mut keys[..] } else { &mut [] };
        let is_taken = proxy::take(socket, room)
            && tls.is_none_or(|(openssl, sent)| self.tls.begin(openssl, sent, &keys))
            && self.replace(socket, client);
        match is_taken {
            true if self.tls.is_spoken() => tell_at_exit(),
            true => {}
            false => self.tls.forget(),
        }
        is_taken
    }

    /// Puts the client's own socket in the place of the proxy's; whether it stands there. The proxy's
    /// stays open until this process ends, which the proxy learns by that.
    fn replace(&mut self, socket: c_int, client: c_int) -> bool {
        // The descriptor's number stays, but epoll knows what is behind it, and the proxy's connection
        // stays open: it would go on being waited for.
        let wait = |waiting: Waiting, operation| {
            let mut event = waiting.event;
            // SAFETY: Postgres registered the same with the same set, which lasts as long as it does.
            unsafe { c::epoll_ctl(waiting.epoll, operation, socket, &mut event) == 0 }
        };
        // SAFETY: two calls on descriptors of this process. Nobody else uses their numbers: it has one
        // thread.
        let is_placed = unsafe {
            self.proxy = c::fcntl(socket, c::F_DUPFD_CLOEXEC, 0);
            self.proxy >= 0
                && self.waiting.is_none_or(|waiting| wait(waiting, c::EPOLL_CTL_DEL))
                && c::dup3(client, socket, c::O_CLOEXEC) >= 0
        };
        if !is_placed || !self.waiting.is_none_or(|waiting| wait(waiting, c::EPOLL_CTL_ADD)) {
            return false;
        }
        self.is_replaced = true;
        true
    }
}

/// # Safety
/// As of `recv`.
unsafe fn plain_receive(socket: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> isize {
    // SAFETY: the caller's promise; no address is asked for.
    unsafe { c::recvfrom(socket, buffer, length, flags, null_mut(), null_mut()) }
}
