//! What is used of the C library and the kernel: functions that this crate does not put itself in the
//! place of, and numbers and layouts of Linux' interface.

use core::ffi::{c_char, c_int, c_long, c_uint, c_void};

/// `struct epoll_event`: packed on x86-64 alone.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

/// `struct iovec`.
#[repr(C)]
pub struct IoVec {
    pub base: *mut c_void,
    pub length: usize,
}

/// `struct msghdr`.
#[repr(C)]
pub struct MessageHeader {
    pub name: *mut c_void,
    pub name_length: c_uint,
    pub parts: *mut IoVec,
    pub parts_count: usize,
    pub control: *mut c_void,
    pub control_length: usize,
    pub flags: c_int,
}

/// `struct cmsghdr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ControlHeader {
    pub length: usize,
    pub level: c_int,
    pub kind: c_int,
}

/// `struct ucred`.
#[repr(C)]
#[derive(Default)]
pub struct Credentials {
    pub process: c_int,
    pub user: c_uint,
    pub group: c_uint,
}

/// `struct pollfd`.
#[repr(C)]
pub struct PollEntry {
    pub descriptor: c_int,
    pub events: i16,
    pub happened: i16,
}

pub const EPOLL_CTL_ADD: c_int = 1;
pub const EPOLL_CTL_DEL: c_int = 2;
pub const EPOLL_CTL_MOD: c_int = 3;
pub const POLLIN: i16 = 1;
pub const SOL_SOCKET: c_int = 1;
pub const SO_PEERCRED: c_int = 17;
pub const SCM_RIGHTS: c_int = 1;
pub const MSG_NOSIGNAL: c_int = 0x4000;
pub const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
pub const MSG_DONTWAIT: c_int = 0x40;
pub const PROT_READ: c_int = 1;
pub const PROT_WRITE: c_int = 2;
pub const MAP_SHARED: c_int = 1;
pub const F_DUPFD_CLOEXEC: c_int = 1030;
pub const O_CLOEXEC: c_int = 0o2_000_000;
pub const EINTR: c_int = 4;
pub const EAGAIN: c_int = 11;
pub const ECONNRESET: c_int = 104;

#[cfg(target_arch = "x86_64")]
const SYS_EPOLL_CTL: c_long = 233;
#[cfg(not(target_arch = "x86_64"))]
const SYS_EPOLL_CTL: c_long = 21;

unsafe extern "C" {
    pub fn accept4(socket: c_int, name: *mut c_void, length: *mut c_uint, flags: c_int) -> c_int;
    pub fn recvfrom(
        socket: c_int,
        buffer: *mut c_void,
        length: usize,
        flags: c_int,
        name: *mut c_void,
        name_length: *mut c_uint,
    ) -> isize;
    pub fn recvmsg(socket: c_int, message: *mut MessageHeader, flags: c_int) -> isize;
    pub fn sendto(
        socket: c_int,
        buffer: *const c_void,
        length: usize,
        flags: c_int,
        name: *const c_void,
        name_length: c_uint,
    ) -> isize;
    pub fn getsockopt(
        socket: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        length: *mut c_uint,
    ) -> c_int;
    pub fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    pub fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int;
    pub fn close(descriptor: c_int) -> c_int;
    pub fn poll(entries: *mut PollEntry, count: c_long, timeout: c_int) -> c_int;
    pub fn mmap(
        place: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        descriptor: c_int,
        offset: c_long,
    ) -> *mut c_void;
    pub fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    pub fn __cxa_atexit(
        function: extern "C" fn(*mut c_void),
        argument: *mut c_void,
        library: *mut c_void,
    ) -> c_int;
    pub fn unsetenv(name: *const c_char) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
}

/// `epoll_ctl` of the kernel.
///
/// # Safety
/// As of the C library's.
pub unsafe fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    descriptor: c_int,
    event: *mut EpollEvent,
) -> c_int {
    // SAFETY: the caller's promise; the system call takes these arguments.
    unsafe { syscall(SYS_EPOLL_CTL, epoll, operation, descriptor, event) as c_int }
}

/// The reason of the last failure.
pub fn errno() -> c_int {
    // SAFETY: the C library gives each thread's own place, which is always there.
    unsafe { *__errno_location() }
}

/// Has the caller believe this reason.
pub fn set_errno(reason: c_int) {
    // SAFETY: as above.
    unsafe { *__errno_location() = reason }
}
