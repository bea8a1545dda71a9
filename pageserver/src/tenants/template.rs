//! Templates: all keys as of one LSN, in image layers.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{BranchPoint, TenantId, TenantTimeline, TimelineId, TimelineOrigin};

use super::{
    MAIN_BRANCH, Tenant, Tenants,
    names::{check_name, taken},
};
use crate::{
    change::Value,
    clock,
    engine::{layer_path, timeline_folder},
    error::Error,
    key::{Key, KeyKind},
    layer::{
        format::LayerKind,
        name::{LayerName, LayerSummary},
        writer::LayerWriter,
    },
    manifest::{BranchEntry, Sequence, TenantKind, TenantManifest, TimelineManifest},
    metering::{LogicalSize, Spent, fork_bytes},
    store::unavailable,
    timeline::Window,
};

/// An image layer holds this many bytes of values, before compression.
const IMAGE_LAYER_BYTES: usize = 64 << 20;
/// What a waiting key costs beside its value.
const KEY_OVERHEAD_BYTES: usize = 64;

/// What a template is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateSource {
    /// The end of its WAL, and what its WAL needs to be read.
    pub origin: TimelineOrigin,
    /// Whether its pages have data checksums.
    pub checksums: bool,
}

impl Tenants {
    /// What a template is made from that is a moment of a tenant's history.
    pub async fn template_source(
        &self,
        tenant: TenantId,
        point: BranchPoint,
    ) -> Result<TemplateSource, Error> {
        let manifest = self.manifest(tenant).await?;
        // A tenant's timelines are all of one template, and so of one cluster.
        let of_cluster = manifest.branches.first().map(|branch| branch.origin);
        let of_cluster = of_cluster
            .ok_or_else(|| Error::NotFound(format!("a branch of {:?}", manifest.name)))?;
        let origin = TimelineOrigin { point, ..of_cluster };
        Ok(TemplateSource { origin, checksums: manifest.checksums })
    }

    /// Begins a template: all keys as of one LSN. Nothing is seen of it before
    /// [`TemplateWriter::finish`].
    pub async fn import_template(
        &self,
        name: &str,
        source: TemplateSource,
    ) -> Result<TemplateWriter<'_>, Error> {
        check_name(name)?;
        if self.names.find(TenantKind::Template, name).await?.is_some() {
            return Err(taken(TenantKind::Template, name));
        }
        let tenant = TenantId::from_bits(rand::random());
        let timeline = TimelineId::from_bits(rand::random());
        Ok(TemplateWriter {
            tenants: self,
            name: name.to_owned(),
            source,
            id: TenantTimeline { tenant, timeline },
            waiting: Vec::new(),
            waiting_bytes: 0,
            logical_size: 0,
            layers: Vec::new(),
        })
    }
}

/// Takes a template's keys, in any order, each once.
pub struct TemplateWriter<'t> {
    tenants: &'t Tenants,
    name: String,
    source: TemplateSource,
    id: TenantTimeline,
    waiting: Vec<(Key, Bytes)>,
    waiting_bytes: usize,
    logical_size: u64,
    layers: Vec<LayerSummary>,
}

impl TemplateWriter<'_> {
    /// Adds a key. A page of zeros may be left out.
    pub async fn put(&mut self, key: Key, value: Bytes) -> Result<(), Error> {
        if KeyKind::ForkSize.all().contains(&key) {
            self.logical_size += fork_bytes(&value);
        }
        self.waiting_bytes += value.len() + KEY_OVERHEAD_BYTES;
        self.waiting.push((key, value));
        if self.waiting_bytes >= IMAGE_LAYER_BYTES { self.write_layer().await } else { Ok(()) }
    }

    /// Publishes the template: its layers are there already, then its manifests, then its name.
    pub async fn finish(mut self) -> Result<Tenant, Error> {
        self.write_layer().await?;
        let origin = self.source.origin;
        let store = self.tenants.engine.store.clone();
        let mut sequence = Sequence::create(store, timeline_folder(self.id));
        let size = LogicalSize { lsn: origin.point.lsn, bytes: self.logical_size };
        let manifest = TimelineManifest {
            logical_size: Some(size),
            layers: self.layers,
            ..TimelineManifest::begin(origin.point)
        };
        sequence.publish(sequence.prepare(&manifest)?).await?;

        let now = clock::now();
        let main = BranchEntry {
            name: MAIN_BRANCH.to_owned(),
            timeline: self.id.timeline,
            ancestor: None,
            origin,
            created_at: now,
            logical_size: Some(self.logical_size),
        };
        let manifest = TenantManifest {
            tenant: self.id.tenant,
            name: self.name,
            kind: TenantKind::Template,
            created_at: now,
            checksums: self.source.checksums,
            history: Window::default(),
            owner: None,
            closed: false,
            marks_children: true,
            deleted: false,
            deleted_branches: Spent::default(),
            branches: vec![Arc::new(main)],
            snapshots: Vec::new(),
        };
        let manifest = self.tenants.publish_new(manifest, None).await?;
        self.tenants.describe(&manifest).await
    }

    async fn write_layer(&mut self) -> Result<(), Error> {
        let values = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let lsn = self.source.origin.point.lsn;
        let name = LayerName { kind: LayerKind::Image, from: lsn, to: lsn, nonce: rand::random() };
        let written = tokio::task::spawn_blocking(move || {
            let mut values = values;
            values.sort_unstable_by_key(|(key, _)| *key);
            if let Some(twice) = values.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(Error::Invalid(format!("{} was given twice", twice[0].0)));
            }
            let mut writer = LayerWriter::new(name);
            for (key, value) in values {
                writer.add(key, lsn, &Value::Image(value))?;
            }
            writer.finish(&[])
        });
        let Some(written) = written.await.map_err(|_| Error::ShuttingDown)?? else { return Ok(()) };
        let (engine, path) = (&self.tenants.engine, layer_path(self.id, name));
        let put = engine.uploads.put(engine.store.as_ref(), &path, written.object);
        put.await.map_err(|error| unavailable(&path, &error))?;
        self.layers.push(written.summary);
        Ok(())
    }
}
