//! Names of tenants and templates: `names/{name}` and `templates/{name}`, created once, removed
//! with what they name.

use std::{collections::HashMap, sync::Arc};

use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};
use parking_lot::Mutex;
use protocol::TenantId;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    manifest::{TenantKind, decode_checked, encode_checked},
    store::{get_whole, unavailable},
};

/// The longest name of a tenant, branch or template, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// What a name's object says.
#[derive(Serialize, Deserialize)]
struct NameEntry {
    tenant: TenantId,
}

/// The names, and those that were met lately.
pub struct Names {
    store: Arc<dyn ObjectStore>,
    known: Mutex<HashMap<(&'static str, String), TenantId>>,
}

impl Names {
    /// The names that the store has.
    pub fn new(store: Arc<dyn ObjectStore>) -> Names {
        Names { store, known: Mutex::default() }
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
        let path = path(kind, name);
        match get_whole(self.store.as_ref(), &path).await {
            Ok(bytes) => {
                let NameEntry { tenant } = decode_checked(&bytes, &path)?;
                self.known.lock().insert(key, tenant);
                Ok(Some(tenant))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(&path, &error)),
        }
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
        self.known.lock().insert((folder(kind), name.to_owned()), id);
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
