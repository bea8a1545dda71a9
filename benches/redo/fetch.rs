//! Memory that is needed soon.

/// Lets the line of memory come that this stands in, without waiting for it: to the second cache, since what the next two dozen records
/// need is more than the first one holds.
#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "the instruction takes a pointer; it reads nothing: any is right")]
pub fn fetch<T: ?Sized>(what: &T) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(what).cast()) }
}

/// Here it comes when it is read.
#[cfg(not(target_arch = "x86_64"))]
pub fn fetch<T: ?Sized>(_: &T) {}
