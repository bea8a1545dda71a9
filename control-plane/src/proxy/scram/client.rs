//! The client's side, towards a backend that has the same verifier: keys instead of a password.

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

use super::{Key, Keys, attributes::take, digest, signature, xor};

/// No channel binding, and none wanted: the backend is reached without TLS.
const HEADER: &str = "n,,";
/// The same in the last message, in base64.
const HEADER_BASE64: &str = "biws";

/// The backend is not the one whose verifier the client was checked against.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compute's SCRAM exchange does not fit the role's verifier: {0}")]
pub(crate) struct NotTheSame(&'static str);

/// The client's first message was made.
pub(crate) struct ClientFirst {
    bare: String,
    nonce: String,
}

/// The client's last message was made, and the server's signature is awaited.
pub(crate) struct ClientFinal {
    /// `client-final-message`.
    pub message: String,
    server_signature: Key,
}

impl ClientFirst {
    /// Begins with this nonce. The role is in the startup packet: Postgres ignores it here.
    pub(crate) fn new(nonce: &str) -> ClientFirst {
        ClientFirst { bare: format!("n=,r={nonce}"), nonce: nonce.to_owned() }
    }

    /// `client-first-message`.
    pub(crate) fn message(&self) -> String {
        format!("{HEADER}{}", self.bare)
    }

    /// Answers the server's first message. Its salt and iterations are of no use: the keys are there.
    pub(crate) fn answer(&self, message: &[u8], keys: &Keys) -> Result<ClientFinal, NotTheSame> {
        let message = std::str::from_utf8(message).map_err(|_| NotTheSame("it is not text"))?;
        let mut attributes = message;
        let nonce = take(&mut attributes, 'r').map_err(|_| NotTheSame("it has no nonce"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(NotTheSame("its nonce does not continue ours"));
        }
        let without_proof = format!("c={HEADER_BASE64},r={nonce}");
        let signed = format!("{},{message},{without_proof}", self.bare);
        let proof = xor(&keys.client, &signature(&digest(&keys.client), &[signed.as_bytes()]));
        let message = format!("{without_proof},p={}", STANDARD.encode(proof));
        Ok(ClientFinal { message, server_signature: signature(&keys.server, &[signed.as_bytes()]) })
    }
}

impl ClientFinal {
    /// Reads the server's last message: whether it has the verifier.
    pub(crate) fn check(&self, message: &[u8]) -> Result<(), NotTheSame> {
        let said = message.strip_prefix(b"v=").and_then(|said| STANDARD.decode(said).ok());
        let is_it =
            said.is_some_and(|said| bool::from(said.ct_eq(self.server_signature.as_slice())));
        if is_it { Ok(()) } else { Err(NotTheSame("its signature is wrong")) }
    }
}
