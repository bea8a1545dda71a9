//! Stock Postgres: its programs, its settings, its life as a child process.

pub mod handover;
mod machine;
mod postmaster;
mod settings;

pub use self::{
    machine::Machine,
    postmaster::{Postmaster, Stop},
    settings::{HBA, command_line, configuration_file, environment, taken},
};

/// The major version that computes run.
pub const MAJOR: u32 = 15;

#[cfg(test)]
mod tests;
