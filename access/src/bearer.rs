//! What a client shows, and to whom.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use protocol::token::{Scope, Token};
use tokio::sync::watch;

use crate::{SigningKey, tls::Trust};

/// How long a token that a process signs for itself is good: it signs one for each connection.
const OWN_LIFE: Duration = Duration::from_secs(300);

/// What a client shows, and whom it believes to be the one it shows it to.
#[derive(Clone, Debug, Default)]
pub struct Bearer {
    source: Source,
    trust: Trust,
}

/// Where the token comes from that is shown next.
#[derive(Clone, Default)]
enum Source {
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

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Nobody => f.write_str("Nobody"),
            Source::Signs(_, scope) => write!(f, "Signs({scope:?})"),
            Source::File(path) => write!(f, "File({})", path.display()),
            Source::Brought(_) => f.write_str("Brought"),
        }
    }
}

impl Bearer {
    /// Shows nothing.
    pub fn nobody() -> Bearer {
        Bearer::default()
    }

    /// Signs tokens of this scope with this key.
    pub fn signs(key: &SigningKey, scope: Scope) -> Bearer {
        Bearer::of(Source::Signs(Arc::new(key.clone()), scope))
    }

    /// Reads them from this file.
    pub fn file(path: PathBuf) -> Bearer {
        Bearer::of(Source::File(Arc::new(path)))
    }

    /// Has them brought.
    pub fn brought(tokens: watch::Receiver<Option<Token>>) -> Bearer {
        Bearer::of(Source::Brought(tokens))
    }

    fn of(source: Source) -> Bearer {
        Bearer { source, trust: Trust::default() }
    }

    /// The same, calling only whom these certificates vouch for.
    #[must_use]
    pub fn trusting(self, trust: Trust) -> Bearer {
        Bearer { trust, ..self }
    }

    /// Whom it believes.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The token to show now.
    pub fn token(&self) -> Option<Token> {
        match &self.source {
            Source::Nobody => None,
            Source::Signs(key, scope) => Some(key.sign(*scope, SystemTime::now(), OWN_LIFE)),
            Source::File(path) => match read_token(path) {
                Ok(token) => Some(token),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "there is no token to show");
                    None
                }
            },
            Source::Brought(token) => token.borrow().clone(),
        }
    }

    /// A request to `path` below this server's root, with the token to show now. `http` is a client of
    /// [`Trust::http`].
    pub fn request(
        &self,
        http: &reqwest::Client,
        method: reqwest::Method,
        server: impl std::fmt::Display,
        path: &str,
    ) -> reqwest::RequestBuilder {
        let request = http.request(method, format!("{}://{server}/{path}", self.trust.scheme()));
        match self.token() {
            Some(token) => request.bearer_auth(token.secret()),
            None => request,
        }
    }

    /// From here on a token is newer only if it comes later.
    pub fn mark_seen(&mut self) {
        if let Source::Brought(brought) = &mut self.source {
            brought.mark_unchanged();
        }
    }

    /// Waits until there is a newer token than when this was asked last, where one is brought at all.
    pub async fn renewed(&mut self) -> Token {
        if let Source::Brought(brought) = &mut self.source {
            while brought.changed().await.is_ok() {
                if let Some(token) = brought.borrow_and_update().clone() {
                    return token;
                }
            }
        }
        std::future::pending().await
    }
}
