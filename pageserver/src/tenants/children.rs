//! Templates' children, and the end of templates. Children may be served, and made, by other
//! pageservers; who makes one and who deletes the template meet in the object store.
//!
//! A tenant is made so: its manifest and, in the template's folder, its marker are put; then the
//! template's newest manifest is looked for; then the tenant gets its name, and exists.
//!
//! A template is deleted so: a manifest closes it; then the markers are listed; where a child is
//! there, another manifest opens it again; where none is, one says `deleted`.
//!
//! So a child that is made meanwhile either is among the markers, or finds the template closed. A
//! marker whose tenant has no manifest is of one that was not made, or that will find it closed.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, PutPayload, path::Path};
use protocol::TenantId;
use serde::Serialize;

use super::{LIST_CONCURRENCY, Tenants};
use crate::{
    engine::tenant_folder,
    error::Error,
    manifest::{Sequence, TenantKind, TenantManifest, encode_checked},
    store::unavailable,
};

/// Children that a refusal names.
const NAMED_MAX: usize = 5;

/// What a marker says.
#[derive(Serialize)]
struct Marker {
    tenant: TenantId,
}

impl Tenants {
    /// Deletes a template that no tenant was made from, or none that still exists, and its objects.
    pub async fn delete_template(&self, id: TenantId) -> Result<(), Error> {
        let template = self
            .write_next(id, |template| {
                if template.kind != TenantKind::Template {
                    return Err(Error::NotFound(format!("template {:?}", template.name)));
                }
                template.closed = true;
                Ok(())
            })
            .await?;
        let children = self.children(&template).await?;
        if !children.is_empty() {
            self.write_next(id, |template| {
                template.closed = false;
                Ok(())
            })
            .await?;
            let more = match children.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return Err(Error::Invalid(format!(
                "tenants were made from template {:?}: {}{more}; delete them first",
                template.name,
                children[..children.len().min(NAMED_MAX)].join(", ")
            )));
        }
        let deleted = self
            .write_next(id, |template| {
                if !template.closed {
                    let why = format!("template {:?} was opened again meanwhile", template.name);
                    return Err(Error::Unavailable(why));
                }
                template.deleted = true;
                Ok(())
            })
            .await?;
        self.remove_deleted(&deleted).await
    }

    /// The names of the tenants that were made from a template and exist, or may come to exist.
    async fn children(&self, template: &TenantManifest) -> Result<Vec<String>, Error> {
        let id = template.tenant;
        let marked = match template.marks_children {
            true => self.marked(id).await?,
            // Made before there were markers: all tenants have to be asked.
            false => {
                let names = stream::iter(self.names.list(TenantKind::Tenant).await?);
                let ids = names.map(async |name| self.names.find(TenantKind::Tenant, &name).await);
                let ids = ids.buffered(LIST_CONCURRENCY);
                ids.try_filter_map(async |id| Ok(id)).try_collect().await?
            }
        };
        let store = &self.engine.store;
        let stored = stream::iter(marked)
            .map(async |child| {
                let opened = Sequence::open(store.clone(), tenant_folder(child)).await;
                opened.map(|(_, manifest): (_, Option<TenantManifest>)| manifest)
            })
            .buffered(LIST_CONCURRENCY);
        stored
            .try_filter_map(async |child| {
                let child = child.filter(|child| !child.deleted && child.templates().contains(&id));
                Ok(child.map(|child| child.name))
            })
            .try_collect()
            .await
    }

    async fn marked(&self, template: TenantId) -> Result<Vec<TenantId>, Error> {
        let folder = children_folder(template);
        let listed: Result<Vec<_>, _> = self.engine.store.list(Some(&folder)).try_collect().await;
        let listed = listed.map_err(|error| unavailable(&folder, &error))?;
        let child = |path: &Path| path.filename()?.parse().ok();
        Ok(listed.iter().filter_map(|object| child(&object.location)).collect())
    }

    /// Puts the marker of a tenant that is being made.
    pub(super) async fn mark_child(
        &self,
        template: TenantId,
        child: TenantId,
    ) -> Result<(), Error> {
        let path = marker(template, child);
        let entry = PutPayload::from_bytes(encode_checked(&Marker { tenant: child })?);
        let put = self.engine.store.put(&path, entry).await;
        put.map(|_| ()).map_err(|error| unavailable(&path, &error))
    }

    /// Refuses a tenant that is being made from a template that was closed or deleted meanwhile.
    pub(super) async fn check_open(&self, template: TenantId) -> Result<(), Error> {
        let slot = self.slot(template);
        let mut slot = slot.lock().await;
        if let Some(known) = &*slot
            && known.sequence.is_superseded().await?
        {
            *slot = None;
        }
        let manifest = match self.load_tenant(template, &mut slot).await {
            Ok(newest) => newest.manifest.clone(),
            Err(error) => {
                self.manifests.lock().remove(&template);
                return Err(error);
            }
        };
        match (manifest.deleted, manifest.closed) {
            (true, _) => Err(Error::NotFound(format!("template {:?}", manifest.name))),
            (false, true) => Err(closed(&manifest)),
            (false, false) => Ok(()),
        }
    }

    /// Removes a tenant that was not made, its marker last.
    pub(super) async fn remove_child(&self, template: TenantId, child: TenantId) {
        self.remove_folder(&tenant_folder(child)).await;
        self.remove_marker(template, child).await;
    }

    /// Removes a child's marker. One that stays says nothing: its tenant is not there.
    pub(super) async fn remove_marker(&self, template: TenantId, child: TenantId) {
        let path = marker(template, child);
        match self.engine.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::debug!(%path, %error, "a marker could not be removed"),
        }
    }
}

impl TenantManifest {
    /// The templates that its branches came from.
    pub(super) fn templates(&self) -> Vec<TenantId> {
        let from = self.branches.iter().filter_map(|entry| entry.ancestor);
        let mut templates: Vec<TenantId> =
            from.map(|from| from.tenant).filter(|tenant| *tenant != self.tenant).collect();
        templates.sort_unstable();
        templates.dedup();
        templates
    }
}

/// The refusal of a closed template.
fn closed(template: &Arc<TenantManifest>) -> Error {
    Error::Invalid(format!(
        "template {:?} is being deleted: no tenant is made from it",
        template.name
    ))
}

fn children_folder(template: TenantId) -> Path {
    tenant_folder(template).join("children")
}

fn marker(template: TenantId, child: TenantId) -> Path {
    children_folder(template).join(child.to_string())
}
