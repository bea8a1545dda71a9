#![doc = include_str!("../../docs/formats/tls.md")]

mod certificate;
mod connection;
mod error;
mod listener;
mod signer;
mod trust;
mod watched;

#[cfg(test)]
mod tests;

pub use certificate::Certificate;
pub use connection::{Connection, ReadHalf, WriteHalf};
pub use error::{TlsError, why};
pub use listener::{Arrival, HttpListener, Listener, Speaks};
pub use signer::SignerFiles;
pub use trust::Trust;

/// What whoever speaks plainly is told by a port that speaks TLS.
pub const SPEAKS_TLS: &str = "this port speaks TLS and nothing else: give --tls-ca FILE (or \
                              OFFSHOOT_TLS_CA), the certificates that its own is signed by";
