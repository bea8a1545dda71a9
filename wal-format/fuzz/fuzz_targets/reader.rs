//! Reads WAL: bytes of any origin, and whole pages with damage.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wal_format_fuzz::harness::run(None, input));
