//! Keys: the one that signs tokens, and those whose tokens are taken.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use protocol::token::{Scope, Token};
use serde::{Deserialize, Serialize};

use crate::Denied;

/// A key is for its owner alone.
const KEY_MODE: u32 = 0o600;
/// Which permissions of others a key must not have.
const OTHERS: u32 = 0o077;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("key file {path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// It holds no such key.
    #[error(
        "key file {path}: {reason}; `offshoot auth key FILE` makes a key, and its public half in FILE.pub"
    )]
    NoKey {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Others may read it.
    #[error("key file {path} may be read by others: run chmod 600 {path}")]
    Open {
        /// Which.
        path: PathBuf,
    },
}

/// What is signed (RFC 7519).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    /// What the token is for.
    scope: Scope,
    /// Until when: seconds since 1970.
    exp: u64,
}

/// The key that signs: whoever has it may do everything.
#[derive(Clone)]
pub struct SigningKey {
    key: EncodingKey,
    public: PublicKeys,
    public_pem: String,
}

impl SigningKey {
    /// Reads the key from this file, made now where there is none.
    pub fn load_or_make(path: &Path) -> Result<SigningKey, KeyError> {
        match SigningKey::make(path) {
            Err(KeyError::File { reason, .. }) if reason.kind() == io::ErrorKind::AlreadyExists => {
                SigningKey::load(path)
            }
            made => made,
        }
    }

    /// Makes a key, and writes it into this file, which must not exist, and its public half beside
    /// it, as `FILE.pub`.
    pub fn make(path: &Path) -> Result<SigningKey, KeyError> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)
            .map_err(|error| no_key(path, error.to_string()))?;
        write_new(path, &pair.serialize_pem(), KEY_MODE)?;
        let public = public_path(path);
        // A public half without its key is of no use to anybody.
        fs::write(&public, pair.public_key_pem()).map_err(|reason| failed(&public, reason))?;
        SigningKey::of(&pair, path)
    }

    /// Reads the key: PKCS #8 in PEM.
    pub fn load(path: &Path) -> Result<SigningKey, KeyError> {
        let pem = fs::read_to_string(path).map_err(|reason| failed(path, reason))?;
        let metadata = fs::metadata(path).map_err(|reason| failed(path, reason))?;
        if metadata.permissions().mode() & OTHERS != 0 {
            return Err(KeyError::Open { path: path.to_owned() });
        }
        let pair = rcgen::KeyPair::from_pem(&pem).map_err(|error| no_key(path, error))?;
        SigningKey::of(&pair, path)
    }

    fn of(pair: &rcgen::KeyPair, path: &Path) -> Result<SigningKey, KeyError> {
        if pair.algorithm() != &rcgen::PKCS_ED25519 {
            return Err(no_key(path, "it is not a key of Ed25519"));
        }
        let public_pem = pair.public_key_pem();
        let public = PublicKeys::parse(&public_pem).map_err(|error| no_key(path, error))?;
        Ok(SigningKey { key: EncodingKey::from_ed_der(&pair.serialize_der()), public, public_pem })
    }

    /// A token for this scope that ends at `now` and `life` later.
    pub fn sign(&self, scope: Scope, now: SystemTime, life: Duration) -> Token {
        let exp = seconds(now).saturating_add(life.as_secs());
        let signed =
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &Claims { scope, exp }, &self.key);
        Token::new(signed.expect("a key that was read signs a few fields"))
    }

    /// What verifies its tokens.
    pub fn public(&self) -> &PublicKeys {
        &self.public
    }

    /// The public half in PEM, as the servers' files have it.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl std::fmt::Debug for PublicKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKeys({})", self.0.len())
    }
}

/// The keys whose tokens are taken: one, and while keys are exchanged two.
#[derive(Clone, Default)]
pub struct PublicKeys(Vec<DecodingKey>);

impl PublicKeys {
    /// Reads them from these files: SPKI in PEM.
    pub fn load(paths: &[PathBuf]) -> Result<PublicKeys, KeyError> {
        let one = |path: &PathBuf| {
            let pem = fs::read_to_string(path).map_err(|reason| failed(path, reason))?;
            PublicKeys::parse(&pem).map_err(|error| no_key(path, error))
        };
        let keys: Vec<PublicKeys> = paths.iter().map(one).collect::<Result<_, _>>()?;
        Ok(PublicKeys(keys.into_iter().flat_map(|keys| keys.0).collect()))
    }

    fn parse(pem: &str) -> Result<PublicKeys, jsonwebtoken::errors::Error> {
        Ok(PublicKeys(vec![DecodingKey::from_ed_pem(pem.as_bytes())?]))
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: PublicKeys) -> PublicKeys {
        self.0.extend(others.0);
        self
    }

    /// What a token is for, and for how long from now on.
    pub fn verify(&self, token: &Token, now: SystemTime) -> Result<(Scope, Duration), Denied> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The time is given, not asked for.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let verified = self
            .0
            .iter()
            .find_map(|key| jsonwebtoken::decode::<Claims>(token.secret(), key, &validation).ok());
        let claims = verified.ok_or(Denied::NotSigned)?.claims;
        let left = claims.exp.saturating_sub(seconds(now));
        match left {
            0 => Err(Denied::Expired),
            left => Ok((claims.scope, Duration::from_secs(left))),
        }
    }
}

/// When a token says that it ends. Nothing is verified: this is for who shows it.
pub fn ends(token: &Token) -> Option<SystemTime> {
    let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(token.secret()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn write_new(path: &Path, content: &str, mode: u32) -> Result<(), KeyError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    written
        .and_then(|mut file| {
            file.write_all(content.as_bytes())?;
            file.sync_all()
        })
        .map_err(|reason| failed(path, reason))
}

fn failed(path: &Path, reason: io::Error) -> KeyError {
    KeyError::File { path: path.to_owned(), reason }
}

fn no_key(path: &Path, reason: impl ToString) -> KeyError {
    KeyError::NoKey { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use protocol::TenantId;

    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    #[test]
    fn a_token_is_taken_until_it_ends_and_by_the_keys_that_are_known() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let (old, new) = (SigningKey::make(&old)?, SigningKey::make(&new)?);
        let scope = Scope::Tenant(TenantId::from_bits(7));
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let token = old.sign(scope, now, LIFE);
        assert_eq!(old.public().verify(&token, now), Ok((scope, LIFE)));
        assert_eq!((ends(&token), ends(&Token::new("none".to_owned()))), (Some(now + LIFE), None));
        let later = now + LIFE - Duration::from_secs(1);
        assert_eq!(old.public().verify(&token, later), Ok((scope, Duration::from_secs(1))));
        assert_eq!(old.public().verify(&token, now + LIFE), Err(Denied::Expired));
        assert_eq!(new.public().verify(&token, now), Err(Denied::NotSigned));
        // While keys are exchanged, both are taken.
        let files = ["old.pub", "new.pub"].map(|name| folder.path().join(name));
        let both = PublicKeys::load(&files)?;
        for key in [&old, &new] {
            assert_eq!(both.verify(&key.sign(scope, now, LIFE), now), Ok((scope, LIFE)));
        }
        Ok(())
    }

    #[test]
    fn a_token_that_was_changed_in_any_letter_is_nobodys() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let key = SigningKey::make(&folder.path().join("key"))?;
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let token = key.sign(Scope::Tenant(TenantId::from_bits(7)), now, LIFE);
        let text = token.secret();
        for place in 0..text.len() {
            let mut changed = text.to_owned().into_bytes();
            // The lowest bits of a part's last letter may stand for nothing; this changes the highest.
            changed[place] = if changed[place] == b'A' { b'Q' } else { b'A' };
            let changed = Token::new(String::from_utf8(changed)?);
            assert_eq!(key.public().verify(&changed, now), Err(Denied::NotSigned), "{place}");
        }
        // The algorithm is not for the token to choose.
        let none = "eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.eyJzY29wZSI6Im9wZXJhdG9yIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
        for text in ["", ".", "..", none] {
            let token = Token::new(text.to_owned());
            assert_eq!(key.public().verify(&token, now), Err(Denied::NotSigned));
        }
        Ok(())
    }

    #[test]
    fn a_key_is_kept_for_its_owner_alone_and_is_the_same_after_a_restart() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        let made = SigningKey::load_or_make(&path)?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, KEY_MODE);
        assert_eq!(SigningKey::load_or_make(&path)?.public_pem(), made.public_pem());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        let refused = SigningKey::load(&path).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|it| it.contains("chmod 600")), "a key that others may read");
        fs::write(&path, "no key")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        assert!(matches!(SigningKey::load(&path), Err(KeyError::NoKey { .. })));
        Ok(())
    }
}
