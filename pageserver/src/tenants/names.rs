//! Names of tenants and templates: `names/{name}` and `templates/{name}`, created once, removed
//! with what they name.

use std::{
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};
use parking_lot::Mutex;
use protocol::TenantId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    error::Error,
    manifest::{TenantKind, decode_checked, encode_checked},
    store::{get_whole, unavailable},
};

/// The longest name of a tenant, branch or template, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// The most names that are remembered, some 150 bytes each: then they are met anew.
const KNOWN_MAX: usize = 16 << 10;
/// The most names that one list looks ahead, some 80 bytes each: a store may list names in any
/// order, so that the next ones are known only when all were listed.
const AHEAD_MAX: usize = 64 << 10;
/// How long such a list is gone on from.
const AHEAD_FOR: Duration = Duration::from_secs(60);

/// What a name's object says.
#[derive(Serialize, Deserialize)]
struct NameEntry {
    tenant: TenantId,
}

/// The names, and those that were met lately.
pub struct Names {
    store: Arc<dyn ObjectStore>,
    known: Mutex<HashMap<(&'static str, String), TenantId>>,
    ahead: Mutex<Option<Ahead>>,
}

/// Names that a list has found behind those of a page.
struct Ahead {
    /// The page's last.
    after: String,
    /// The next ones, in order.
    names: VecDeque<String>,
    /// Whether others follow those.
    has_more: bool,
    /// When they were listed.
    listed: Instant,
}

impl Names {
    /// The names that the store has.
    pub fn new(store: Arc<dyn ObjectStore>) -> Names {
        Names { store, known: Mutex::default(), ahead: Mutex::default() }
    }

    /// What the name refers to.
    pub async fn find(&self, kind: TenantKind, name: &str) -> Result<Option<TenantId>, Error> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let key = (folder(kind), name.to_owned());
        if let Some(id) = self.known.lock().get(&key) {
            return Ok(Some(*id));
        }
        let found = self.look_up(kind, name).await?;
        if let Some(id) = found {
            self.remember(key, id);
        }
        Ok(found)
    }

    /// The same, as the store has it, and not remembered.
    pub async fn look_up(&self, kind: TenantKind, name: &str) -> Result<Option<TenantId>, Error> {
        let path = path(kind, name);
        match get_whole(self.store.as_ref(), &path).await {
            Ok(bytes) => Ok(Some(decode_checked::<NameEntry>(&bytes, &path)?.tenant)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(&path, &error)),
        }
    }

    fn remember(&self, key: (&'static str, String), id: TenantId) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, id);
    }

    /// Takes a name. [`Error::Exists`] where it is taken already.
    pub async fn take(&self, kind: TenantKind, name: &str, id: TenantId) -> Result<(), Error> {
        let path = path(kind, name);
        let entry = encode_checked(&NameEntry { tenant: id })?;
        match self
            .store
            .put_opts(&path, PutPayload::from_bytes(entry), PutMode::Create.into())
            .await
        {
            Ok(_) => {}
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => {
                // A put that succeeded and was tried again is refused by its own first success.
                if self.find(kind, name).await? != Some(id) {
                    return Err(taken(kind, name));
                }
            }
            Err(error) => return Err(unavailable(&path, &error)),
        }
        self.remember((folder(kind), name.to_owned()), id);
        Ok(())
    }

    /// Forgets what the name refers to; whether that was known.
    pub fn forget(&self, kind: TenantKind, name: &str) -> bool {
        self.known.lock().remove(&(folder(kind), name.to_owned())).is_some()
    }

    /// Frees a name.
    pub async fn free(&self, kind: TenantKind, name: &str) -> Result<(), Error> {
        let path = path(kind, name);
        let deleted = match self.store.delete(&path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        };
        self.forget(kind, name);
        deleted.map_err(|error| unavailable(&path, &error))
    }

    /// Up to `count` names of tenants after `after`, in order, and the last of them where there are
    /// more. Who goes on from there is told what was so when the list was made.
    pub async fn page(
        &self,
        after: &str,
        count: usize,
    ) -> Result<(Vec<String>, Option<String>), Error> {
        let is_next =
            |ahead: &mut Ahead| ahead.after == after && ahead.listed.elapsed() < AHEAD_FOR;
        let known = self.ahead.lock().take_if(is_next);
        let mut ahead = match known {
            Some(known) if known.names.len() >= count || !known.has_more => known,
            _ => self.list_ahead(after, AHEAD_MAX.max(count)).await?,
        };
        let page: Vec<String> = ahead.names.drain(..count.min(ahead.names.len())).collect();
        let is_last = ahead.names.is_empty() && !ahead.has_more;
        let next = page.last().filter(|_| !is_last).cloned();
        if let Some(next) = &next {
            ahead.after.clone_from(next);
            *self.ahead.lock() = Some(ahead);
        }
        Ok((page, next))
    }

    /// The first names of tenants after this one.
    async fn list_ahead(&self, after: &str, count: usize) -> Result<Ahead, Error> {
        let folder = Path::from(folder(TenantKind::Tenant));
        let mut listed = match check_name(after) {
            Ok(()) => self.store.list_with_offset(Some(&folder), &folder.clone().join(after)),
            Err(_) => self.store.list(Some(&folder)),
        };
        let listed_at = Instant::now();
        let mut first = BinaryHeap::new();
        let mut has_more = false;
        let failed = |error| unavailable(&folder, &error);
        while let Some(object) = listed.try_next().await.map_err(failed)? {
            let Some(name) = object.location.filename().filter(|name| *name > after) else {
                continue;
            };
            first.push(name.to_owned());
            if first.len() > count {
                // The last of them.
                first.pop();
                has_more = true;
            }
        }
        let names = first.into_sorted_vec().into();
        Ok(Ahead { after: after.to_owned(), names, has_more, listed: listed_at })
    }

    /// All names, in order.
    pub async fn list(&self, kind: TenantKind) -> Result<Vec<String>, Error> {
        let folder = Path::from(folder(kind));
        let listed = self.store.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| unavailable(&folder, &error))?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        let objects = listed.objects.iter();
        let mut names: Vec<_> = objects.filter_map(|object| name(&object.location)).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// The error of a name that is taken.
pub fn taken(kind: TenantKind, name: &str) -> Error {
    Error::Exists(match kind {
        TenantKind::Tenant => format!("tenant {name:?}"),
        TenantKind::Template => format!("template {name:?}"),
    })
}

/// Names are 1 to [`NAME_BYTES_MAX`] letters, digits, `-`, `_` and `.`, the first a letter or a
/// digit; and nothing that could be taken for an id.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if !begins_well || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_letter) {
        return Err(Error::Invalid(format!(
            "{name:?} cannot be a name: use 1 to {NAME_BYTES_MAX} letters, digits, -, _ and ., and \
             begin with a letter or a digit"
        )));
    }
    if name.parse::<TenantId>().is_ok() {
        return Err(Error::Invalid(format!("{name:?} cannot be a name: it looks like an id")));
    }
    Ok(())
}

fn folder(kind: TenantKind) -> &'static str {
    match kind {
        TenantKind::Tenant => "names",
        TenantKind::Template => "templates",
    }
}

fn path(kind: TenantKind, name: &str) -> Path {
    Path::from(folder(kind)).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_letters_digits_and_little_else_and_never_an_id() {
        for good in ["a", "main", "Shop-1_old.2", "0"] {
            assert_eq!(check_name(good), Ok(()));
        }
        let id = "0123456789abcdef0123456789abcdef";
        for bad in ["", "-a", ".", "..", "a/b", "a b", "ä", id, &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?} was taken for a name");
        }
    }
}
