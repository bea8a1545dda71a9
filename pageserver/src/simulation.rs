//! The engine against a simple model of it: random histories, read at random LSNs, with restarts,
//! failures and crashes between any two operations of the object store.

mod bad_weather;
mod crashes;
mod faulty_store;
mod histories;
mod isolation;
mod manifests;
mod merging;
mod model;
mod pressure;
mod retention;
mod scrub;
mod survey;
mod takeover;
mod templates;
mod unloading;
mod usage;
mod weather;
mod world;

pub use faulty_store::{Access, FaultyStore};
pub use model::{Model, ModelRedo};
pub use weather::{Fault, Weather};
pub use world::World;

/// How many histories a test goes through: so many, or what `OFFSHOOT_HISTORIES` says.
fn how_many(count: u64) -> u64 {
    let said = std::env::var("OFFSHOOT_HISTORIES").ok().and_then(|said| said.parse().ok());
    said.unwrap_or(count)
}
