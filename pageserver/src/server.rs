//! The pageserver as a whole.

mod config;

pub use config::{Config, HeadSource};
