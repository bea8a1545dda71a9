//! The functions that stand in the place of the C library's, where this crate is made into a module:
//! Postgres finds them first.

use core::{
    cell::UnsafeCell,
    ffi::{c_int, c_uint, c_void},
};

use crate::{c, client::Client};

/// The process' client.
struct Mine(UnsafeCell<Client>);

// SAFETY: a Postgres process uses its sockets in one thread, and not in signal handlers.
unsafe impl Sync for Mine {}

static CLIENT: Mine = Mine(UnsafeCell::new(Client::NONE));

fn client() -> &'static mut Client {
    // SAFETY: as above; each function below borrows it once.
    unsafe { &mut *CLIENT.0.get() }
}

/// `accept`: the postmaster's connections are noted.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(feature = "module", unsafe(no_mangle))]
pub unsafe extern "C" fn accept(socket: c_int, name: *mut c_void, length: *mut c_uint) -> c_int {
    // SAFETY: the caller's promise.
    let accepted = unsafe { c::accept4(socket, name, length, 0) };
    if accepted >= 0 && client().accepted(accepted) {
        // It is the postmaster: programs that it and its backends start are none of them.
        // SAFETY: there is one thread.
        unsafe { c::unsetenv(c"LD_PRELOAD".as_ptr()) };
    }
    accepted
}

/// `epoll_ctl`: how a client is waited for is noted.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(feature = "module", unsafe(no_mangle))]
pub unsafe extern "C" fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    descriptor: c_int,
    event: *mut c::EpollEvent,
) -> c_int {
    // SAFETY: the caller's promise.
    let done = unsafe { c::epoll_ctl(epoll, operation, descriptor, event) };
    if done == 0 {
        let none = c::EpollEvent { events: 0, data: 0 };
        // SAFETY: the kernel has just read it, unless it is null.
        let event = unsafe { event.as_ref() }.map_or(none, |event| *event);
        client().waits(epoll, operation, descriptor, event);
    }
    done
}

/// `recv`: a client's socket may come with what is received.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(feature = "module", unsafe(no_mangle))]
pub unsafe extern "C" fn recv(
    socket: c_int,
    buffer: *mut c_void,
    length: usize,
    flags: c_int,
) -> isize {
    // SAFETY: the caller's promise.
    unsafe { client().receive(socket, buffer, length, flags) }
}

/// `send`: what is said to a client may have to be encrypted.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(feature = "module", unsafe(no_mangle))]
pub unsafe extern "C" fn send(
    socket: c_int,
    buffer: *const c_void,
    length: usize,
    flags: c_int,
) -> isize {
    // SAFETY: the caller's promise.
    unsafe { client().send(socket, buffer, length, flags) }
}

/// Has a client with TLS told, when this process ends, that its session does, as Postgres would tell it.
pub fn tell_at_exit() {
    extern "C" fn end(_: *mut c_void) {
        client().end();
    }
    // SAFETY: the function is there for as long as the process. What is registered last is called first:
    // OpenSSL registers its own end when it is first used.
    unsafe { c::__cxa_atexit(end, core::ptr::null_mut(), core::ptr::null_mut()) };
}

/// Nothing here panics; a process that did could not go on.
#[cfg(feature = "module")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn abort() -> !;
    }
    // SAFETY: it is always allowed.
    unsafe { abort() }
}
