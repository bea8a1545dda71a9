//! Decodes and redoes Storage's records.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wal_format_fuzz::harness::run(
    Some(wal_format::rmid::STORAGE),
    input
));
