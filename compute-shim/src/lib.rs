//! Turns a stock Postgres into a stateless compute: FUSE mounts, WAL proposer, base backup, lifecycle.
