//! The pageserver as its users meet it, over TCP and HTTP, fed with the WAL of a stock Postgres.

mod admin_api;
mod base_backup;
mod cache;
mod full_store;
mod ingest;
mod page_client;
mod page_service;
mod snapshots;
mod template;
mod tmpfs;
mod unloading;
mod wal_server;
mod workload;
mod world;
