#![doc = include_str!("../../docs/formats/token.md")]

mod bearer;
pub mod files;
mod guard;
pub mod http;
mod keys;
mod refusals;
pub mod tls;

pub use bearer::{Bearer, read_token};
pub use guard::{Admission, Denied, Guard};
pub use keys::{KeyError, PublicKeys, SigningKey, ends};
pub use refusals::Refusals;
