//! The crate against a stock Postgres 15: its WAL, its programs, its recovery.

mod cluster;
mod full_page_images;
mod records;
mod synthesised_checkpoint;
