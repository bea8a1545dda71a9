//! What Postgres keeps of a password: `pg_authid.rolpassword`.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Key, digest, signature};

/// The iterations of a password that was set without saying how many: `SCRAM_DEFAULT_ITERATIONS`.
const ITERATIONS_DEFAULT: u32 = 4096;

/// Bytes of a salt that Postgres makes: `SCRAM_DEFAULT_SALT_LEN`.
const SALT_BYTES: usize = 16;

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, all but the iterations in base64. No
/// password comes from it, but who has the server key can play the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl Verifier {
    /// One that no password matches, for a role that does not exist or has no password. Its salt
    /// stays the same for the same secret and role, as a real one does, so that it tells nothing.
    pub(crate) fn mock(secret: &[u8], role: &str) -> Verifier {
        let salt = signature(secret, &[b"salt", role.as_bytes()])[..SALT_BYTES].to_vec();
        let stored_key = digest(&signature(secret, &[b"stored", role.as_bytes()]));
        let server_key = signature(secret, &[b"server", role.as_bytes()]);
        Verifier { iterations: ITERATIONS_DEFAULT, salt, stored_key, server_key }
    }
}

impl FromStr for Verifier {
    type Err = NotScram;

    /// Reads what `pg_authid` has (`parse_scram_secret`).
    fn from_str(text: &str) -> Result<Verifier, NotScram> {
        let parsed = || {
            let rest = text.strip_prefix("SCRAM-SHA-256$")?;
            let (parameters, keys) = rest.split_once('$')?;
            let (iterations, salt) = parameters.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            let key = |text| STANDARD.decode(text).ok()?.try_into().ok();
            Some(Verifier {
                iterations: iterations.parse().ok().filter(|iterations| *iterations > 0)?,
                salt: STANDARD.decode(salt).ok()?,
                stored_key: key(stored_key)?,
                server_key: key(server_key)?,
            })
        };
        parsed().ok_or(NotScram)
    }
}

/// Keys do not belong into a log.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations)", self.iterations)
    }
}

/// The text is no verifier of SCRAM-SHA-256; it is not repeated, since it may be an MD5 hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a verifier of SCRAM-SHA-256: set the password with password_encryption = scram-sha-256"
)]
pub struct NotScram;
