//! SCRAM-SHA-256 (RFC 5802, 7677) in the words of Postgres: src/common/scram-common.c, backend/libpq/auth-scram.c.
//!
//! The proxy is the server towards the client and the client towards the backend, and never knows a
//! password. From the client's proof it learns the client key, which is all that the exchange with a
//! backend of the same verifier needs. `docs/formats/proxy.md` shows both exchanges.

mod attributes;
mod client;
mod server;
mod verifier;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub use self::verifier::{NotScram, Verifier};
pub(crate) use self::{
    client::{ClientFirst, NotTheSame},
    server::{Binding, begin},
};

/// The mechanisms, as SASL names them.
pub(crate) const PLAIN: &str = "SCRAM-SHA-256";
pub(crate) const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// A key, a signature or a proof.
pub(crate) type Key = [u8; 32];

/// What a client proves itself with, learned from its proof, and what the backend will prove.
#[derive(Clone)]
pub(crate) struct Keys {
    pub client: Key,
    pub server: Key,
}

/// Random bytes of a nonce: Postgres' `SCRAM_RAW_NONCE_LEN`.
pub(crate) const NONCE_BYTES: usize = 18;

/// A nonce from random bytes.
pub(crate) fn nonce(random: [u8; NONCE_BYTES]) -> String {
    STANDARD.encode(random)
}

/// HMAC-SHA-256.
pub(crate) fn signature(key: &[u8], parts: &[&[u8]]) -> Key {
    // HMAC takes a key of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn digest(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

fn xor(one: &Key, other: &Key) -> Key {
    std::array::from_fn(|place| one[place] ^ other[place])
}

#[cfg(test)]
mod tests;
