//! The key that all clusters of a test process are run with, and tokens of it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use access::{Bearer, SigningKey};
use protocol::token::{Scope, Token};

/// No test takes as long.
const LIFE: Duration = Duration::from_secs(12 * 3600);

/// The key, as files have it.
struct Key {
    key: SigningKey,
    pem: String,
}

fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let key = SigningKey::make(&path).expect("a key");
        Key { key, pem: fs::read_to_string(path).expect("it was written") }
    })
}

/// A token of this scope.
pub fn token_for(scope: Scope) -> Token {
    key().key.sign(scope, SystemTime::now(), LIFE)
}

/// A token for everything.
pub fn token() -> Option<Token> {
    Some(token_for(Scope::Operator))
}

/// What shows it.
pub fn bearer() -> Bearer {
    Bearer::signs(&key().key, Scope::Operator)
}

/// Writes the key, its public half, and the tokens of servers and operators into this folder, as
/// `key`, `key.pub`, `peer-token` and `operator-token`.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let Key { key, pem } = key();
    let tokens = [("peer-token", Scope::Peer), ("operator-token", Scope::Operator)];
    let tokens = tokens.map(|(name, scope)| (name, token_for(scope).secret().to_owned()));
    let keys = [("key", pem.clone()), ("key.pub", key.public_pem().to_owned())];
    for (name, content) in keys.into_iter().chain(tokens) {
        let file = folder.join(name);
        fs::write(&file, content)?;
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    }
    Ok(())
}
