//! The yardstick of redo and of ingest: what pgbench writes to the WAL of a stock Postgres, and the time that stock Postgres' crash
//! recovery takes for it.

pub mod recovery;
pub mod server;
pub mod wal;

/// What a whole replay took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// By the clock.
    pub seconds: f64,
    /// Of all that replays, in user and system mode.
    pub cpu_seconds: f64,
}
