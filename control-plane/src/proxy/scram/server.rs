//! The server's side: two steps, `begin` with the client's first message, then [`Challenge::finish`].

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

use super::{
    super::Refusal,
    Key, Keys, PLAIN, PLUS, Verifier,
    attributes::{malformed, take},
    digest, signature, xor,
};

/// The only kind of channel binding that Postgres has.
const BINDING_TYPE: &str = "tls-server-end-point";

/// What a connection can be bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Binding<'a> {
    /// It is not encrypted, or its certificate has no digest that RFC 5929 knows.
    None,
    /// The digest of the server's certificate.
    EndPoint(&'a [u8]),
}

impl Binding<'_> {
    /// The mechanisms that are offered.
    pub(crate) fn mechanisms(&self) -> &'static [&'static str] {
        match self {
            Binding::None => &[PLAIN],
            Binding::EndPoint(_) => &[PLUS, PLAIN],
        }
    }
}

/// What the server waits for after its first message.
pub(crate) struct Challenge {
    verifier: Verifier,
    /// `client-first-message-bare,server-first-message,`: the beginning of what is signed.
    signed: String,
    /// What the client has to repeat: its header, and the binding.
    channel: Vec<u8>,
    nonce: String,
    message: String,
}

/// A client that knows the password.
pub(crate) struct Proven {
    /// What the backend is logged in to with.
    pub keys: Keys,
    /// `server-final-message`: the server knows the verifier.
    pub message: String,
}

/// Reads the client's first message, and makes the server's. `nonce` is the server's half.
pub(crate) fn begin(
    mechanism: &str,
    message: &[u8],
    verifier: Verifier,
    binding: Binding<'_>,
    nonce: &str,
) -> Result<Challenge, Refusal> {
    let message = text(message)?;
    let is_bound = match mechanism {
        PLUS if matches!(binding, Binding::EndPoint(_)) => true,
        PLAIN => false,
        _ => {
            return Err(Refusal::Protocol(
                "client selected a SASL authentication mechanism that was not offered".to_owned(),
            ));
        }
    };
    let (flag, rest) = message.split_once(',').ok_or_else(|| malformed("no header"))?;
    let data = match (flag, binding) {
        ("n", _) if !is_bound => &[][..],
        // It could bind, and believes that the server cannot: somebody between them says so.
        ("y", Binding::EndPoint(_)) => {
            return Err(Refusal::ChannelBinding(
                "the client supports it but thinks that the server does not, which does",
            ));
        }
        ("y", Binding::None) if !is_bound => &[][..],
        ("n" | "y", _) => {
            return Err(Refusal::ChannelBinding("the mechanism needs it and the message has none"));
        }
        (flag, Binding::EndPoint(data)) if is_bound && is_end_point(flag) => data,
        (flag, _) if flag.starts_with("p=") && is_bound => {
            return Err(Refusal::ChannelBinding("only tls-server-end-point is supported"));
        }
        _ => return Err(Refusal::ChannelBinding("the mechanism does not allow it")),
    };
    let (identity, bare) = rest.split_once(',').ok_or_else(|| malformed("no header"))?;
    if !identity.is_empty() {
        let sentence = "client uses authorization identity, but it is not supported";
        return Err(Refusal::Unsupported(sentence.to_owned()));
    }
    if bare.starts_with("m=") {
        let sentence = "client requires an unsupported SCRAM extension";
        return Err(Refusal::Unsupported(sentence.to_owned()));
    }
    let mut attributes = bare;
    // The startup packet has the role; this name is empty, or ignored as Postgres ignores it.
    let _role = take(&mut attributes, 'n')?;
    let client_nonce = take(&mut attributes, 'r')?;
    if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("non-printable characters in nonce"));
    }
    let nonce = format!("{client_nonce}{nonce}");
    let salt = STANDARD.encode(&verifier.salt);
    let message = format!("r={nonce},s={salt},i={}", verifier.iterations);
    let channel = [format!("{flag},,").as_bytes(), data].concat();
    Ok(Challenge { verifier, signed: format!("{bare},{message},"), channel, nonce, message })
}

fn is_end_point(flag: &str) -> bool {
    flag.strip_prefix("p=") == Some(BINDING_TYPE)
}

impl Challenge {
    /// The server's first message.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Reads the client's last message. `None`: the password is wrong.
    pub(crate) fn finish(self, message: &[u8]) -> Result<Option<Proven>, Refusal> {
        let message = text(message)?;
        let (without_proof, proof) =
            message.rsplit_once(",p=").ok_or_else(|| malformed("attribute 'p' was expected"))?;
        let proof: Key = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or_else(|| malformed("the proof is not a key in base64"))?;
        let mut attributes = without_proof;
        let channel = STANDARD
            .decode(take(&mut attributes, 'c')?)
            .map_err(|_| malformed("the channel binding is not base64"))?;
        if channel != self.channel {
            return Err(Refusal::ChannelBinding(
                "the client's certificate of the server is another one, or somebody is between",
            ));
        }
        if take(&mut attributes, 'r')? != self.nonce {
            return Err(malformed("nonce does not match"));
        }
        let signed = [self.signed.as_bytes(), without_proof.as_bytes()];
        let Verifier { stored_key, server_key, .. } = self.verifier;
        let client = xor(&proof, &signature(&stored_key, &signed));
        if !bool::from(digest(&client).ct_eq(&stored_key)) {
            return Ok(None);
        }
        let message = format!("v={}", STANDARD.encode(signature(&server_key, &signed)));
        Ok(Some(Proven { keys: Keys { client, server: server_key }, message }))
    }
}

fn text(message: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(message).map_err(|_| malformed("it is not text"))
}
