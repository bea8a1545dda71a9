//! All tenants, their branches, and the templates they are made from.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use protocol::{BranchPoint, TenantId, TenantTimeline, TimelineOrigin};

use crate::{error::Error, key::Key, redo::Redo, timeline::Timeline};

/// The branch that every tenant has, made with it and deleted only with it.
pub const MAIN_BRANCH: &str = "main";
/// The longest name of a tenant, branch or template, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// What the engine needs from outside.
pub struct Options {
    /// Where layers and manifests are: see [`crate::store::open`].
    pub store: Arc<dyn ObjectStore>,
    /// What WAL records do to pages.
    pub redo: Arc<dyn Redo>,
    /// The most bytes of decompressed layer blocks that are kept in memory.
    pub cache_bytes: u64,
    /// Called for every timeline that WAL must be ingested into, when it is loaded: one that was
    /// asked for, or an ancestor whose layers do not reach its branch point yet.
    pub on_load: Box<dyn Fn(Arc<Timeline>) + Send + Sync>,
}

/// A branch: a timeline with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its name, unique in the tenant.
    pub name: String,
    /// Its timeline.
    pub timeline: TenantTimeline,
    /// Where it came from; `None` for a template's own timeline.
    pub ancestor: Option<Ancestor>,
    /// Where it begins.
    pub origin: TimelineOrigin,
    /// When it was made, in microseconds since 2000.
    pub created_at: i64,
}

/// Where a branch came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline; of another tenant only where that is a template.
    pub timeline: TenantTimeline,
    /// Its branch's name now, or the template's.
    pub name: String,
    /// The last of its records that belongs to the branch.
    pub point: BranchPoint,
}

/// A tenant, or a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Whether it is a template: read-only, with one branch.
    pub is_template: bool,
    /// When it was made, in microseconds since 2000.
    pub created_at: i64,
    /// Its branches, [`MAIN_BRANCH`] first, then by age.
    pub branches: Vec<Branch>,
}

impl Tenant {
    /// The branch of this name or timeline id.
    pub fn branch(&self, name_or_id: &str) -> Result<&Branch, Error> {
        self.branches
            .iter()
            .find(|branch| {
                branch.name == name_or_id || branch.timeline.timeline.to_string() == name_or_id
            })
            .ok_or_else(|| Error::NotFound(format!("branch {name_or_id:?} of {:?}", self.name)))
    }
}

/// All that this pageserver serves.
pub struct Tenants {}

impl Tenants {
    /// Nothing is read yet: tenants are loaded when they are asked for.
    pub fn new(options: Options) -> Tenants {
        let _ = options;
        todo!()
    }

    /// The tenant of this name or id; templates by id only.
    pub async fn tenant(&self, name_or_id: &str) -> Result<Tenant, Error> {
        let _ = name_or_id;
        todo!()
    }

    /// All tenants, by name.
    pub async fn list(&self) -> Result<Vec<Tenant>, Error> {
        todo!()
    }

    /// The template of this name or id.
    pub async fn template(&self, name_or_id: &str) -> Result<Tenant, Error> {
        let _ = name_or_id;
        todo!()
    }

    /// All templates, by name.
    pub async fn templates(&self) -> Result<Vec<Tenant>, Error> {
        todo!()
    }

    /// A new tenant, whose branch `main` begins as the template is.
    pub async fn create_tenant(&self, name: &str, template: &str) -> Result<Tenant, Error> {
        let _ = (name, template);
        todo!()
    }

    /// A new branch of `from` as it was at `point`, from [`Timeline::round_down`] or
    /// [`Timeline::point_at_time`].
    pub async fn create_branch(
        &self,
        tenant: TenantId,
        name: &str,
        from: &str,
        point: BranchPoint,
    ) -> Result<Branch, Error> {
        let _ = (tenant, name, from, point);
        todo!()
    }

    /// Gives the branch's name to a new timeline that begins as the branch was at `point`; the old
    /// timeline, with its children, becomes the branch `keep_as` (default: `<name>_old_<time>`).
    /// The new branch, and the old one under its new name.
    pub async fn restore(
        &self,
        tenant: TenantId,
        branch: &str,
        point: BranchPoint,
        keep_as: Option<&str>,
    ) -> Result<(Branch, Branch), Error> {
        let _ = (tenant, branch, point, keep_as);
        todo!()
    }

    /// Deletes a branch that has no children and is not `main`, and its objects.
    pub async fn delete_branch(&self, tenant: TenantId, branch: &str) -> Result<(), Error> {
        let _ = (tenant, branch);
        todo!()
    }

    /// Deletes a tenant with all branches, and its objects.
    pub async fn delete_tenant(&self, tenant: TenantId) -> Result<(), Error> {
        let _ = tenant;
        todo!()
    }

    /// The timeline, loaded on first use with its ancestors.
    pub async fn timeline(&self, id: TenantTimeline) -> Result<Arc<Timeline>, Error> {
        let _ = id;
        todo!()
    }

    /// All timelines that are loaded now.
    pub fn loaded(&self) -> Vec<Arc<Timeline>> {
        todo!()
    }

    /// Begins a template: all keys as of one LSN. Nothing is seen of it before
    /// [`TemplateWriter::finish`].
    pub async fn import_template(
        &self,
        name: &str,
        source: TemplateSource,
    ) -> Result<TemplateWriter, Error> {
        let _ = (name, source);
        todo!()
    }

    /// Stops background work and flushes what is in memory, as far as the object store lets it.
    pub async fn shutdown(&self) {}
}

/// What a template is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateSource {
    /// The end of its WAL, and what its WAL needs to be read.
    pub origin: TimelineOrigin,
    /// Whether its pages have data checksums.
    pub checksums: bool,
}

/// Takes a template's keys, in any order, each once.
pub struct TemplateWriter {}

impl TemplateWriter {
    /// Adds a key. A page of zeros may be left out.
    pub async fn put(&mut self, key: Key, value: Bytes) -> Result<(), Error> {
        let _ = (key, value);
        todo!()
    }

    /// Publishes the template.
    pub async fn finish(self) -> Result<Tenant, Error> {
        todo!()
    }
}
