//! The keys of a client's TLS 1.3, for the backend that goes on with it.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use tokio_rustls::rustls::{
    CipherSuite, ConnectionTrafficSecrets, KeyLog, ServerConnection, Tls13CipherSuite,
    crypto::tls13::OkmBlock,
};

/// Bytes of the longest key and of an IV, as the backend is told them.
const KEY_BYTES_MAX: usize = 32;
const IV_BYTES: usize = 12;
pub(crate) const SECRET_BYTES: usize = KEY_BYTES_MAX + IV_BYTES;

/// The secrets that one connection's keys are made of (RFC 8446, 7.1), noted as they are made.
#[derive(Default, Debug)]
pub(crate) struct Secrets(Mutex<Both>);

#[derive(Default, Clone)]
struct Both {
    client: Vec<u8>,
    server: Vec<u8>,
}

impl std::fmt::Debug for Both {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("secrets")
    }
}

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => self.0.lock().client = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => self.0.lock().server = secret.to_vec(),
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label.ends_with("_TRAFFIC_SECRET_0")
    }
}

/// What goes on with a connection.
pub(crate) struct SessionKeys {
    suite: &'static Tls13CipherSuite,
    secrets: Both,
    /// What is said first.
    first: Vec<u8>,
}

impl SessionKeys {
    /// Takes the keys out of a connection of which nothing is left to be read or written.
    pub(crate) fn take(tls: ServerConnection, secrets: &Arc<Secrets>) -> io::Result<SessionKeys> {
        let (suite, cipher) = suite(&tls)
            .ok_or_else(|| io::Error::other("a backend cannot go on with this kind of TLS"))?;
        let keys = tls.dangerous_extract_secrets().map_err(io::Error::other)?;
        let mut first = vec![cipher];
        for (sequence, keys) in [keys.rx, keys.tx] {
            first.extend_from_slice(&sequence.to_be_bytes());
            let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = keys
            else {
                return Err(io::Error::other("a cipher that is not known has no keys"));
            };
            first.extend_from_slice(&encode(key.as_ref(), iv.as_ref()));
        }
        let secrets = secrets.0.lock().clone();
        Ok(SessionKeys { suite, secrets, first })
    }

    /// What the backend is told first: the cipher, then for each direction, the client's first, the number
    /// of the next record and its key.
    pub(crate) fn first(&self) -> &[u8] {
        &self.first
    }

    /// The client's next key, or the server's (RFC 8446, 7.2).
    pub(crate) fn next(&mut self, of_client: bool) -> io::Result<[u8; SECRET_BYTES]> {
        let secret = match of_client {
            true => &mut self.secrets.client,
            false => &mut self.secrets.server,
        };
        *secret = expand(self.suite, secret, "traffic upd", secret.len())?;
        let key = expand(self.suite, secret, "key", self.suite.aead_alg.key_len())?;
        let iv = expand(self.suite, secret, "iv", IV_BYTES)?;
        Ok(encode(&key, &iv))
    }
}

/// The suite, and the number of its cipher, where a backend knows it.
pub(crate) fn suite(tls: &ServerConnection) -> Option<(&'static Tls13CipherSuite, u8)> {
    let suite = tls.negotiated_cipher_suite()?.tls13()?;
    let cipher = match suite.common.suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 2,
        _ => return None,
    };
    Some((suite, cipher))
}

fn encode(key: &[u8], iv: &[u8]) -> [u8; SECRET_BYTES] {
    let mut bytes = [0; SECRET_BYTES];
    bytes[..key.len()].copy_from_slice(key);
    bytes[KEY_BYTES_MAX..].copy_from_slice(iv);
    bytes
}

/// `HKDF-Expand-Label` without a context (RFC 8446, 7.1).
fn expand(
    suite: &Tls13CipherSuite,
    secret: &[u8],
    label: &str,
    length: usize,
) -> io::Result<Vec<u8>> {
    let mut output = vec![0; length];
    let name = ["tls13 ", label].concat();
    let lengths = ((length as u16).to_be_bytes(), [name.len() as u8]);
    let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(secret));
    expander
        .expand_slice(&[&lengths.0, &lengths.1, name.as_bytes(), &[0]], &mut output)
        .map_err(|_| io::Error::other("a key that is too long"))?;
    Ok(output)
}
