//! Postgres pages as layered, copy-on-write files in object storage.
