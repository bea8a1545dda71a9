//! Compares what is in the object store with what manifests name, and reads every part of every
//! layer. It mends nothing; objects that nobody names are removed where that is asked for.
//!
//! It goes on beside running pageservers: what they change meanwhile is looked at again before it
//! is reported. Objects that are younger than the age that it is given may still get their name,
//! and are never removed; nor is a tenant whose name is missing though nobody deleted it. A read
//! that is under way in a layer that was merged just then is begun anew.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use protocol::{TenantId, TenantTimeline, TimelineId};
use serde::Serialize;

use crate::{
    cache::Cache,
    engine::{layer_path, layers_folder, tenant_folder, timeline_folder},
    error::Error,
    layer::{cursor::Cursor, name::LayerSummary, reader::Layer},
    manifest::{Sequence, TenantKind, TenantManifest, TimelineManifest},
    store::unavailable,
    tenants::Names,
};

/// What is wrong with an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// No manifest names it.
    Unnamed,
    /// A manifest, or a name, refers to it, and it is not there.
    Missing,
    /// It is not what was written.
    Damaged,
}

/// Something that was found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// The object's name.
    pub object: String,
    /// Its length, where it is there.
    pub bytes: Option<u64>,
    /// A sentence.
    pub detail: String,
    /// Whether it was removed.
    pub removed: bool,
}

/// What a scrub found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// Tenants and templates that were looked at.
    pub tenants: u64,
    /// Layers that were read to their end.
    pub layers: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// What is wrong, in order.
    pub findings: Vec<Finding>,
}

/// What a scrub does beside looking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Removal {
    /// Unnamed objects that are older than this are removed; `None`: nothing is.
    pub older_than: Option<Duration>,
}

/// Looks at everything below `tenants/`, `names/` and `templates/`. Fails where the store cannot
/// be reached; damage is no failure.
pub async fn scrub(
    store: Arc<dyn ObjectStore>,
    removal: Removal,
    now: SystemTime,
) -> Result<Report, Error> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut scrub = Scrub { store, removal, now, report: Report::default() };
    let named = scrub.names().await?;
    let folder = Path::from("tenants");
    let listed = scrub.store.list_with_delimiter(Some(&folder)).await;
    for prefix in listed.map_err(|error| unavailable(&folder, &error))?.common_prefixes {
        scrub.tenant(&prefix, &named).await?;
    }
    scrub.report.findings.sort_unstable();
    Ok(scrub.report)
}

struct Scrub {
    store: Arc<dyn ObjectStore>,
    removal: Removal,
    /// Since 1970.
    now: Duration,
    report: Report,
}

impl Scrub {
    /// The tenants that names refer to.
    async fn names(&mut self) -> Result<HashSet<TenantId>, Error> {
        let names = Names::new(self.store.clone());
        let mut named = HashSet::new();
        for kind in [TenantKind::Tenant, TenantKind::Template] {
            for name in names.list(kind).await? {
                match names.find(kind, &name).await {
                    Ok(id) => named.extend(id),
                    Err(error) => self.damaged(error)?,
                }
            }
        }
        let stored = named.iter().copied().collect::<Vec<_>>();
        for id in stored {
            let listed = self.store.list_with_delimiter(Some(&tenant_folder(id))).await;
            let listed = listed.map_err(|error| unavailable(&tenant_folder(id), &error))?;
            if listed.objects.is_empty() {
                let detail = "a name refers to a tenant without a manifest".to_owned();
                self.find(Fault::Missing, tenant_folder(id).to_string(), None, detail);
            }
        }
        Ok(named)
    }

    async fn tenant(&mut self, folder: &Path, named: &HashSet<TenantId>) -> Result<(), Error> {
        self.report.tenants += 1;
        let objects = self.list(folder).await?;
        let id = folder.filename().and_then(|name| name.parse::<TenantId>().ok());
        let opened = Sequence::open::<TenantManifest>(self.store.clone(), folder.clone()).await;
        let Some(id) = id.filter(|id| named.contains(id)) else {
            let is_over = opened.is_ok_and(|(_, found)| found.is_none_or(|found| found.deleted));
            let has_data = objects.iter().any(|object| timeline_of(&object.location).is_some());
            return match (is_over, has_data) {
                // What a deletion or a creation left that was cut off.
                (true, _) | (_, false) => {
                    self.unnamed(objects, "no name refers to its tenant").await
                }
                // Its name may have been lost: nothing of it is removed.
                (false, true) => {
                    for object in objects {
                        let detail = "no name refers to its tenant, which was not deleted; kept";
                        let (name, bytes) = (object.location.to_string(), Some(object.size));
                        self.find(Fault::Unnamed, name, bytes, detail.to_owned());
                    }
                    Ok(())
                }
            };
        };
        let manifest = match opened {
            Ok((_, Some(manifest))) => manifest,
            // Without a manifest nothing can be said of the rest.
            Ok((_, None)) => return Ok(()),
            Err(error) => return self.damaged(error),
        };
        if manifest.deleted {
            return self.unnamed(objects, "its tenant was deleted").await;
        }
        let mut by_timeline: BTreeMap<Option<TimelineId>, Vec<ObjectMeta>> = BTreeMap::new();
        for object in objects {
            by_timeline.entry(timeline_of(&object.location)).or_default().push(object);
        }
        for entry in &manifest.branches {
            by_timeline.entry(Some(entry.timeline)).or_default();
        }
        for (timeline, objects) in by_timeline {
            match timeline {
                // The tenant's own manifests.
                None => {}
                Some(timeline) if manifest.branch_of(timeline).is_some() => {
                    self.timeline(TenantTimeline { tenant: id, timeline }, objects).await?;
                }
                Some(_) => self.unnamed(objects, "no branch has its timeline").await?,
            }
        }
        Ok(())
    }

    async fn timeline(
        &mut self,
        id: TenantTimeline,
        objects: Vec<ObjectMeta>,
    ) -> Result<(), Error> {
        let Some(summaries) = self.layers_of(id).await? else { return Ok(()) };
        let folder = layers_folder(id);
        let path = |summary: &LayerSummary| layer_path(id, summary.name);
        let named: HashMap<Path, LayerSummary> =
            summaries.into_iter().map(|summary| (path(&summary), summary)).collect();
        let is_layer = |object: &ObjectMeta| object.location.prefix_matches(&folder);
        let (unnamed, _): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .filter(is_layer)
            .partition(|object| !named.contains_key(&object.location));
        if !unnamed.is_empty() {
            // What was put since the manifest was read has its name by now.
            let Some(now) = self.layers_of(id).await? else { return Ok(()) };
            let now: HashSet<Path> = now.iter().map(path).collect();
            let unnamed = unnamed.into_iter().filter(|object| !now.contains(&object.location));
            self.unnamed(unnamed.collect(), "no manifest names the layer").await?;
        }
        let mut named: Vec<_> = named.into_iter().collect();
        named.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (path, summary) in named {
            let bytes = summary.bytes;
            let cache = Arc::new(Cache::new(0, None));
            let layer = Layer::new(summary.clone(), path, self.store.clone(), cache);
            match read_to_end(layer).await {
                Ok(()) => {
                    self.report.layers += 1;
                    self.report.bytes += bytes;
                }
                // A merge may have taken its place meanwhile.
                Err(error) => {
                    let now = self.layers_of(id).await?.unwrap_or_default();
                    if now.iter().any(|named| named.name == summary.name) {
                        self.damaged(error)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The layers that a timeline's newest manifest names; `None` where it is damaged.
    async fn layers_of(&mut self, id: TenantTimeline) -> Result<Option<Vec<LayerSummary>>, Error> {
        let opened = Sequence::open::<TimelineManifest>(self.store.clone(), timeline_folder(id));
        match opened.await {
            Ok((_, manifest)) => {
                Ok(Some(manifest.map(|manifest| manifest.layers).unwrap_or_default()))
            }
            Err(error) => self.damaged(error).map(|()| None),
        }
    }

    async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>, Error> {
        let listed = self.store.list(Some(folder)).try_collect().await;
        listed.map_err(|error| unavailable(folder, &error))
    }

    async fn unnamed(&mut self, objects: Vec<ObjectMeta>, why: &str) -> Result<(), Error> {
        for object in objects {
            let written = u64::try_from(object.last_modified.timestamp()).unwrap_or(0);
            let age = self.now.saturating_sub(Duration::from_secs(written));
            let is_removed = self.removal.older_than.is_some_and(|least| age > least);
            if is_removed {
                match self.store.delete(&object.location).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(unavailable(&object.location, &error)),
                }
            }
            let name = object.location.to_string();
            self.find(Fault::Unnamed, name, Some(object.size), why.to_owned());
            if let Some(finding) = self.report.findings.last_mut() {
                finding.removed = is_removed;
            }
        }
        Ok(())
    }

    /// Takes note of damage; other errors end the scrub.
    fn damaged(&mut self, error: Error) -> Result<(), Error> {
        let detail = error.to_string();
        match error {
            Error::Corrupt { object, .. } => self.find(Fault::Damaged, object, None, detail),
            Error::Missing { object } => self.find(Fault::Missing, object, None, detail),
            other => return Err(other),
        }
        Ok(())
    }

    fn find(&mut self, fault: Fault, object: String, bytes: Option<u64>, detail: String) {
        self.report.findings.push(Finding { fault, object, bytes, detail, removed: false });
    }
}

/// Reads and checks every part.
async fn read_to_end(layer: Layer) -> Result<(), Error> {
    let mut cursor = Cursor::new([Arc::new(layer)]);
    cursor.fill().await?;
    while cursor.take().is_some() {
        if cursor.must_fill() {
            cursor.fill().await?;
        }
    }
    Ok(())
}

/// The timeline in whose folder an object is: `tenants/{tenant}/timelines/{timeline}/…`.
fn timeline_of(path: &Path) -> Option<TimelineId> {
    let mut parts = path.parts().skip(2);
    let is_timelines = parts.next().is_some_and(|part| part.as_ref() == "timelines");
    parts.next().filter(|_| is_timelines)?.as_ref().parse().ok()
}
