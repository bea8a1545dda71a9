//! From the versions of a key to its value.

use bytes::Bytes;
use wal_format::{Lsn, Page, Target};

use crate::{
    change::Value,
    error::Error,
    key::Key,
    redo::{Redo, apply_version},
};

/// What was found of a key so far, from the newest version back.
#[derive(Default)]
pub struct Chain {
    versions: Vec<(Lsn, Value)>,
    is_complete: bool,
}

impl Chain {
    /// Adds the next older version.
    pub fn push(&mut self, lsn: Lsn, value: Value) {
        debug_assert!(!self.is_complete);
        debug_assert!(self.versions.last().is_none_or(|(newer, _)| lsn < *newer));
        self.is_complete = value.is_complete();
        self.versions.push((lsn, value));
    }

    /// Adds versions from the newest back, all older than what is there, as far as `floor`.
    pub fn extend(&mut self, versions: impl Iterator<Item = (Lsn, Value)>, floor: Option<Lsn>) {
        for (lsn, value) in versions {
            if floor.is_some_and(|floor| lsn < floor) {
                break;
            }
            self.push(lsn, value);
            if self.is_complete {
                break;
            }
        }
        self.is_complete |= floor.is_some();
    }

    /// Nothing older matters: the key was emptied there, or a version needs nothing older.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Whether older versions matter.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The key's value; `None` where there was no version.
    pub fn value(&self, key: Key, redo: &dyn Redo) -> Result<Option<Bytes>, Error> {
        match self.versions.as_slice() {
            [] => Ok(None),
            [(_, Value::Image(bytes))] => Ok(Some(bytes.clone())),
            _ => match key.as_target() {
                Some(target) => {
                    let mut page = Page::zeroed();
                    self.make_page(target, redo, &mut page)?;
                    Ok(Some(page.into_bytes()))
                }
                None => self.newest_image(key).map(Some),
            },
        }
    }

    /// The value where it is an image as it was stored.
    pub fn stored_image(&self) -> Option<&Bytes> {
        match self.versions.as_slice() {
            [(_, Value::Image(bytes))] => Some(bytes),
            _ => None,
        }
    }

    /// Makes the page, over whatever `page` was; whether there was a version to make it from.
    pub fn make_page(
        &self,
        target: Target,
        redo: &dyn Redo,
        page: &mut Page,
    ) -> Result<bool, Error> {
        let failed =
            |lsn: Lsn, reason: String| Error::Redo { target: target.to_string(), lsn, reason };
        let mut is_fresh = false;
        for (lsn, value) in self.versions.iter().rev() {
            if !is_fresh && !value.is_complete() {
                page.zero();
            }
            apply_version(redo, target, *lsn, value.as_parts(), page)
                .map_err(|reason| failed(*lsn, reason))?;
            is_fresh = true;
        }
        Ok(is_fresh)
    }

    /// The newest version's bytes, for a key whose versions are whole values.
    fn newest_image(&self, key: Key) -> Result<Bytes, Error> {
        match self.versions.first() {
            Some((_, Value::Image(bytes))) => Ok(bytes.clone()),
            Some((lsn, Value::Record { .. })) => Err(Error::Redo {
                target: key.to_string(),
                lsn: *lsn,
                reason: "no record changes such a key".to_owned(),
            }),
            None => Ok(Bytes::new()),
        }
    }
}
