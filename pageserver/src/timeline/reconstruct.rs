//! From the versions of a key to its value.

use std::sync::Arc;

use bytes::Bytes;
use wal_format::{Lsn, Page, Target};

use super::{images::RECORDS_PER_IMAGE, kept::KeptPages};
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
    /// Where the page is kept that is made of them: they are many.
    keeper: Option<Arc<KeptPages>>,
}

impl Chain {
    /// Adds the next older version.
    pub fn push(&mut self, lsn: Lsn, value: Value) {
        debug_assert!(!self.is_complete);
        debug_assert!(self.versions.last().is_none_or(|(newer, _)| lsn < *newer));
        self.is_complete = value.is_complete();
        self.versions.push((lsn, value));
    }

    /// Adds versions from the newest back, all older than what is there, as far as `floor`, or
    /// `kept`: the page that a read has made of one of them and all before.
    pub fn extend(
        &mut self,
        versions: impl Iterator<Item = (Lsn, Value)>,
        floor: Option<Lsn>,
        kept: Option<(Lsn, Bytes)>,
    ) {
        for (lsn, value) in versions {
            if floor.is_some_and(|floor| lsn < floor) {
                break;
            }
            match &kept {
                Some((last, page)) if *last == lsn => self.push(lsn, Value::Image(page.clone())),
                _ => self.push(lsn, value),
            }
            if self.is_complete {
                break;
            }
        }
        self.is_complete |= floor.is_some();
    }

    /// All versions of a timeline's memory up to `at` are there. Where they are many, and none is a
    /// younger timeline's, the page that will be made of them is kept.
    pub fn keep_in(&mut self, kept: &Arc<KeptPages>, at: Lsn) {
        let is_own = self.versions.first().is_some_and(|(newest, _)| *newest <= at);
        if is_own && self.versions.len() >= RECORDS_PER_IMAGE {
            self.keeper = Some(Arc::clone(kept));
        }
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
        if let (Some(keeper), Some((newest, _))) = (&self.keeper, self.versions.first()) {
            keeper.put(Key::target(target), *newest, Bytes::copy_from_slice(page.bytes()));
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
