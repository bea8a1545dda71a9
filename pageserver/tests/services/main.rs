//! The pageserver as its users meet it, over TCP and HTTP, fed with the WAL of a stock Postgres.

#[allow(dead_code, reason = "shared with the tests of wal-format, which use all of it")]
#[path = "../../../wal-format/tests/redo_oracle/files.rs"]
mod files;
#[path = "../../../wal-format/tests/redo_oracle/masks.rs"]
mod masks;
#[allow(dead_code, reason = "shared with the tests of wal-format, which use all of it")]
#[path = "../../../wal-format/tests/redo_oracle/postgres.rs"]
mod postgres;

mod admin_api;
mod base_backup;
mod cache;
mod ingest;
mod page_client;
mod page_service;
mod template;
mod wal_server;
mod workload;
mod world;
