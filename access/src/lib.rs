#![doc = include_str!("../../docs/formats/token.md")]

mod bearer;
mod guard;
pub mod http;
mod keys;
mod refusals;

pub use bearer::{Bearer, read_token};
pub use guard::{Admission, Denied, Guard};
pub use keys::{KeyError, PublicKeys, SigningKey};
pub use refusals::Refusals;
