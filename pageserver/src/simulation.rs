//! The engine against a simple model of it: random histories, read at random LSNs, with restarts,
//! failures and crashes between any two operations of the object store.

mod crashes;
mod faulty_store;
mod histories;
mod isolation;
mod model;
mod world;

pub use faulty_store::{Access, FaultyStore};
pub use model::{Model, ModelRedo};
pub use world::World;
