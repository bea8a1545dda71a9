//! The store that is measured on.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use pageserver::{
    change::{Change, Value},
    key::Key,
    redo::Redo,
    tenants::{Options, TemplateSource, Tenants},
};
use protocol::{BranchPoint, TenantTimeline, TimelineOrigin};
use tokio::time::Instant;
use wal_format::{Lsn, Page, Target};

/// The template of all.
pub const TEMPLATE: &str = "base";
/// Of so many tenants one has written.
const WROTE_ONE_OF: usize = 10;
/// Tenants that are made at once.
const AT_ONCE: usize = 16;
/// Tenants that are made before those before leave memory.
const BETWEEN_UNLOADS: usize = 5_000;
/// Where all of them begin.
const POINT: BranchPoint = BranchPoint { lsn: Lsn(0x100_0000), last_record: Lsn(0xFF_FF00) };

/// Makes it. Nobody waits for the disk: what is measured comes later, and a crash only means anew.
pub async fn make(folder: &Path, tenants: usize) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let store = LocalFileSystem::new_with_prefix(folder)?;
    let engine = Arc::new(Tenants::new(Options {
        store: Arc::new(store),
        redo: Arc::new(NoRedo),
        cache_bytes: 1 << 20,
        on_load: Box::new(|_| ()),
    }));
    let origin = TimelineOrigin { point: POINT, system_id: 7, segment_bytes: 16 << 20, major: 15 };
    let source = TemplateSource { origin, checksums: false };
    let mut template = engine.import_template(TEMPLATE, source).await?;
    template.put(Key::CONTROL, Bytes::from_static(b"control")).await?;
    template.finish().await?;

    for first in (0..tenants).step_by(BETWEEN_UNLOADS) {
        let numbers = first..tenants.min(first + BETWEEN_UNLOADS);
        let created = stream::iter(numbers).map(|number| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let tenant = engine.create_tenant(&format!("tenant-{number:06}"), TEMPLATE).await?;
                anyhow::Ok(tenant.branches.first().map(|main| main.timeline))
            })
        });
        let created: Vec<Option<TenantTimeline>> =
            created.buffer_unordered(AT_ONCE).map(|created| created?).try_collect().await?;
        for id in created.into_iter().flatten().step_by(WROTE_ONE_OF) {
            write(&engine, id).await?;
        }
        let (idle_for, later) = (Duration::from_secs(1), Instant::now() + Duration::from_secs(2));
        engine.unload_idle(later, idle_for).await;
    }
    Ok(())
}

/// One commit.
async fn write(engine: &Tenants, id: TenantTimeline) -> anyhow::Result<()> {
    let timeline = engine.timeline(id).await?;
    timeline.apply(Change {
        start: POINT.lsn,
        end: Lsn(POINT.lsn.0 + 64),
        puts: vec![(Key::CONTROL, Value::Image(Bytes::from_static(b"changed")))],
        finished: Some(pageserver::clock::now()),
        ..Change::default()
    });
    Ok(())
}

/// Nothing that is written here is a record of a page.
struct NoRedo;

impl Redo for NoRedo {
    fn apply(&self, _: &[u8], _: Lsn, _: Target, _: &mut Page) -> Result<(), String> {
        Err("there is no redo here".to_owned())
    }
}
