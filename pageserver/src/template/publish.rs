//! Publishes a timeline's state as of an LSN as a template: what can be read of it there is written
//! anew, under a prefix of the template's own. Nothing of the history before or after comes along, and
//! whoever is made from the template reads no layer of the source.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use protocol::TimelineOrigin;
use wal_format::PAGE_BYTES;

use crate::{
    error::Error,
    key::{Key, KeyKind},
    metering::fork_bytes,
    tenants::{TemplateSource, Tenant, Tenants},
    timeline::Timeline,
};

/// Pages that are read at once: 8 MiB.
const READ_PAGES: u32 = 1024;

/// Whether a template has keys of this kind beside its relations: they are few, and read at once.
/// History is the source's own.
fn is_other(kind: &KeyKind) -> bool {
    !matches!(kind, KeyKind::Page | KeyKind::ForkSize | KeyKind::History)
}

/// How far the templates are that are being published, by name.
#[derive(Clone, Default)]
pub(crate) struct Publishing(Arc<Mutex<HashMap<String, Arc<Progress>>>>);

/// How far one is.
#[derive(Default)]
pub(crate) struct Progress {
    /// Bytes of all relations.
    pub logical_bytes: AtomicU64,
    /// Those that were read and handed on.
    pub done_bytes: AtomicU64,
}

/// An entry of [`Publishing`], for as long as this value lives.
struct Entry {
    all: Publishing,
    name: String,
    progress: Arc<Progress>,
}

impl Publishing {
    /// How far the template of this name is, where it is being published.
    pub(crate) fn of(&self, name: &str) -> Option<Arc<Progress>> {
        self.0.lock().get(name).cloned()
    }

    fn begin(&self, name: &str) -> Result<Entry, Error> {
        let mut all = self.0.lock();
        if all.contains_key(name) {
            return Err(Error::Exists(format!("template {name:?}, which is being published,")));
        }
        let progress = Arc::new(Progress::default());
        all.insert(name.to_owned(), progress.clone());
        Ok(Entry { all: self.clone(), name: name.to_owned(), progress })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.name);
    }
}

/// Publishes a timeline as of where `origin` is. Nobody sees the template before it is whole.
pub(crate) async fn publish(
    tenants: &Tenants,
    publishing: &Publishing,
    name: &str,
    source: &Timeline,
    template: TemplateSource,
) -> Result<Tenant, Error> {
    let entry = publishing.begin(name)?;
    let TemplateSource { origin: TimelineOrigin { point, .. }, .. } = template;
    let mut writer = tenants.import_template(name, template).await?;
    let sizes = source.scan(KeyKind::ForkSize.all(), point.lsn).await?;
    let logical_bytes = sizes.iter().map(|(_, size)| fork_bytes(size)).sum();
    entry.progress.logical_bytes.store(logical_bytes, Ordering::Relaxed);
    for (key, size) in &sizes {
        let Some(fork) = key.fork() else { continue };
        let bytes = fork_bytes(size);
        let blocks = (bytes / PAGE_BYTES as u64) as u32;
        let mut first = 0;
        while first < blocks {
            let end = blocks.min(first.saturating_add(READ_PAGES));
            for (key, page) in source.scan(Key::pages(fork, first..end), point.lsn).await? {
                writer.put(key, page).await?;
            }
            let done = u64::from(end - first) * PAGE_BYTES as u64;
            entry.progress.done_bytes.fetch_add(done, Ordering::Relaxed);
            first = end;
        }
    }
    for (key, size) in sizes {
        writer.put(key, size).await?;
    }
    for kind in KeyKind::ALL.into_iter().filter(is_other) {
        for (key, value) in source.scan(kind.all(), point.lsn).await? {
            writer.put(key, value).await?;
        }
    }
    writer.finish().await
}
