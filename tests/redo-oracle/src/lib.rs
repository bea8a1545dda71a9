//! Redo, proven against Postgres.
//!
//! With `wal_consistency_checking = all` a stock server puts each page as it is afterwards into the record that changes it.
//! The oracle has such a server run a suite, replays its WAL with `wal-format` alone, and compares each page of each record with
//! that image under the masks that Postgres itself uses. At the end everything else that WAL keeps must equal the files of the
//! stopped server: all pages again, SLRUs, relation maps, two-phase files, databases, tablespaces, origins, counters.

pub mod cluster;
mod comparison;
mod counters;
pub mod coverage;
pub mod kind;
pub mod masks;
pub mod mutation;
pub mod provoked;
pub mod replay;
mod spoil;
pub mod state;
pub mod stretch;
pub mod suite;
pub mod test_program;

pub use coverage::{Coverage, Summary};
pub use mutation::Mutation;
pub use replay::Options;
pub use suite::Suite;
