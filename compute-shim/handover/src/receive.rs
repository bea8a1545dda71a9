//! Receiving bytes and the descriptors that were passed with them.

use core::{
    ffi::{c_int, c_void},
    mem::size_of,
    ptr::null_mut,
};

use crate::c;

/// The most descriptors that are passed at once; the kernel closes what is more.
pub const DESCRIPTORS_MAX: usize = 2;

/// Bytes before a control message's data: `CMSG_LEN(0)`.
const HEADER_BYTES: usize = size_of::<c::ControlHeader>();

/// Room for one control message with that many descriptors.
#[repr(C)]
struct Control {
    header: c::ControlHeader,
    descriptors: [c_int; DESCRIPTORS_MAX],
}

/// Descriptors that are this process' own now.
pub struct Passed {
    descriptors: [c_int; DESCRIPTORS_MAX],
    count: usize,
}

impl Passed {
    /// They.
    pub fn descriptors(&self) -> &[c_int] {
        &self.descriptors[..self.count]
    }

    /// Closes them.
    pub fn close(&self) {
        for descriptor in self.descriptors() {
            // SAFETY: the kernel has just given it to this process, and nobody else knows it.
            unsafe { c::close(*descriptor) };
        }
    }
}

/// Receives what `recv` would, and the descriptors that came with it, if any.
///
/// # Safety
/// As of `recv`: `buffer` has room for `length` bytes.
pub unsafe fn receive(
    socket: c_int,
    buffer: *mut c_void,
    length: usize,
    flags: c_int,
) -> (isize, Option<Passed>) {
    let mut part = c::IoVec { base: buffer, length };
    let mut control = Control {
        header: c::ControlHeader { length: 0, level: 0, kind: 0 },
        descriptors: [-1; DESCRIPTORS_MAX],
    };
    let mut message = c::MessageHeader {
        name: null_mut(),
        name_length: 0,
        parts: &mut part,
        parts_count: 1,
        control: (&raw mut control).cast(),
        control_length: size_of::<Control>(),
        flags: 0,
    };
    // SAFETY: the caller's promise for the buffer; the rest lives until the call has returned, with
    // the lengths that are said.
    let received = unsafe { c::recvmsg(socket, &mut message, flags | c::MSG_CMSG_CLOEXEC) };
    let is_passed = received >= 0
        && message.control_length > HEADER_BYTES
        && (control.header.level, control.header.kind) == (c::SOL_SOCKET, c::SCM_RIGHTS);
    let passed = is_passed.then(|| {
        let bytes = control.header.length.saturating_sub(HEADER_BYTES);
        let count = (bytes / size_of::<c_int>()).min(DESCRIPTORS_MAX);
        Passed { descriptors: control.descriptors, count }
    });
    (received, passed)
}
