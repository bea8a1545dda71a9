//! What projects use, and what they may: pure functions of rows, settings and moments.
//!
//! Use is kept by hour, in UTC. A quota bounds what is used in a calendar month, or what a branch
//! holds.

pub(crate) mod frames;
pub(crate) mod period;
pub(crate) mod quota;
