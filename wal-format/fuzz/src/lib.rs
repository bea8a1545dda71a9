//! The functions that every target runs, shared with the ordinary tests of wal-format.

#[path = "../../tests/hostile/harness/mod.rs"]
pub mod harness;
