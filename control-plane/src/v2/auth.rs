//! API keys: `Authorization: Bearer KEY` on every request but those for the API's own description.

use std::{
    collections::HashMap, fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::header::AUTHORIZATION,
    middleware::Next,
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;

use super::{context::Context, error::ApiError, time::now};
use crate::catalog::{Catalog, Error, Time, api_keys, ids};

/// When a key was used is written down at most so often: microseconds.
const USE_WRITTEN_EVERY: Time = 60_000_000;

/// The keys, by their hashes. Looked up by hash, so that the time it takes tells nothing of a key.
pub(super) struct Keys {
    known: Mutex<HashMap<[u8; 32], Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    id: i64,
    use_written_at: Time,
}

impl Keys {
    /// Those of the catalog.
    pub(super) async fn load(catalog: &Catalog) -> Result<Keys, Error> {
        let hashes = catalog.read(api_keys::hashes).await?;
        let known = |(hash, id)| (hash, Known { id, use_written_at: 0 });
        Ok(Keys { known: Mutex::new(hashes.into_iter().map(known).collect()) })
    }

    pub(super) fn add(&self, hash: [u8; 32], id: i64) {
        self.known.lock().insert(hash, Known { id, use_written_at: 0 });
    }

    pub(super) fn remove(&self, id: i64) {
        self.known.lock().retain(|_, known| known.id != id);
    }

    /// The key's number; and whether its use is to be written down.
    fn find(&self, key: &str, now: Time) -> Option<(i64, bool)> {
        let mut known = self.known.lock();
        let known = known.get_mut(&api_keys::hash(key))?;
        let is_due = now - known.use_written_at >= USE_WRITTEN_EVERY;
        if is_due {
            known.use_written_at = now;
        }
        Some((known.id, is_due))
    }
}

/// Refuses who has no key.
pub(super) async fn check(
    State(context): State<Arc<Context>>,
    request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = header.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let Some(key) = key else {
        let mend = "an API key is needed: send it as Authorization: Bearer KEY";
        return ApiError::unauthorized(mend).into_response();
    };
    let now = now();
    let Some((id, is_due)) = context.keys.find(key, now) else {
        return ApiError::unauthorized("this API key is not known, or was revoked").into_response();
    };
    if is_due {
        let catalog = context.catalog.clone();
        tokio::spawn(async move {
            let written = catalog.write(move |catalog| api_keys::used(catalog, id, now)).await;
            if let Err(error) = written {
                tracing::warn!(%error, "the use of an API key could not be written down");
            }
        });
    }
    next.run(request).await
}

/// A new key.
pub(super) fn new_key() -> String {
    format!("{}{}", api_keys::PREFIX, ids::secret(&mut rand::rng()))
}

/// Makes the first key where there is none, and leaves it in a file for root alone. Whether it was
/// made.
pub(super) async fn ensure_first_key(catalog: &Catalog, file: &Path) -> Result<bool, Error> {
    if !catalog.read(api_keys::hashes).await?.is_empty() {
        return Ok(false);
    }
    let key = new_key();
    // The file first: a key that nobody knows would be the only one.
    write_secret(file, &key)
        .map_err(|error| Error::Unavailable(format!("{}: {error}", file.display())))?;
    let hash = api_keys::hash(&key);
    catalog.write(move |catalog| api_keys::insert(catalog, "first", &hash, now())).await?;
    Ok(true)
}

fn write_secret(file: &Path, secret: &str) -> std::io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{secret}")?;
    file.sync_all()
}
