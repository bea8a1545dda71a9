//! What a client shows.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use protocol::token::{Scope, Token};
use tokio::sync::watch;

use crate::SigningKey;

/// How long a token that a process signs for itself is good: it signs one for each connection.
const OWN_LIFE: Duration = Duration::from_secs(300);

/// Where the token comes from that is shown next.
#[derive(Clone, Default)]
pub enum Bearer {
    /// No token is shown.
    #[default]
    Nobody,
    /// It is signed when it is needed.
    Signs(Arc<SigningKey>, Scope),
    /// It is read from a file when it is needed: who renews it, replaces the file.
    File(Arc<PathBuf>),
    /// Somebody brings a newer one from time to time.
    Brought(watch::Receiver<Option<Token>>),
}

/// Reads the token in a file.
pub fn read_token(path: &Path) -> std::io::Result<Token> {
    std::fs::read_to_string(path).map(|text| Token::new(text.trim().to_owned()))
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bearer::Nobody => f.write_str("Nobody"),
            Bearer::Signs(_, scope) => write!(f, "Signs({scope:?})"),
            Bearer::File(path) => write!(f, "File({})", path.display()),
            Bearer::Brought(_) => f.write_str("Brought"),
        }
    }
}

impl Bearer {
    /// Signs tokens of this scope with this key.
    pub fn signs(key: &SigningKey, scope: Scope) -> Bearer {
        Bearer::Signs(Arc::new(key.clone()), scope)
    }

    /// Reads them from this file.
    pub fn file(path: PathBuf) -> Bearer {
        Bearer::File(Arc::new(path))
    }

    /// The token to show now.
    pub fn token(&self) -> Option<Token> {
        match self {
            Bearer::Nobody => None,
            Bearer::Signs(key, scope) => Some(key.sign(*scope, SystemTime::now(), OWN_LIFE)),
            Bearer::File(path) => match read_token(path) {
                Ok(token) => Some(token),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "there is no token to show");
                    None
                }
            },
            Bearer::Brought(token) => token.borrow().clone(),
        }
    }

    /// From here on a token is newer only if it comes later.
    pub fn mark_seen(&mut self) {
        if let Bearer::Brought(brought) = self {
            brought.mark_unchanged();
        }
    }

    /// Waits until there is a newer token than when this was asked last, where one is brought at all.
    pub async fn renewed(&mut self) -> Token {
        if let Bearer::Brought(brought) = self {
            while brought.changed().await.is_ok() {
                if let Some(token) = brought.borrow_and_update().clone() {
                    return token;
                }
            }
        }
        std::future::pending().await
    }
}
