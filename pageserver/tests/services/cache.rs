//! The cache's disk under a running pageserver: used, damaged, deleted, full. What is served is the
//! same each time.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use pageserver::{CacheConfig, DiskConfig, cache::DISK_BYTES_MIN};
use protocol::TenantTimeline;
use redo_oracle::cluster::Cluster;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use wal_format::{Fork, Lsn, PAGE_BYTES, RelationFork};

use crate::{
    page_client::at,
    tmpfs::Tmpfs,
    world::{World, wal_end},
};

/// Everything that is read comes from the disk or the object store.
const NO_MEMORY: u64 = 0;

struct Cached {
    world: World,
    timeline: TenantTimeline,
    lsn: Lsn,
    /// A template's data directory, whose pages are served as they are.
    cluster: Cluster,
}

impl Cached {
    /// A pageserver with a disk cache in this folder, and a tenant.
    async fn in_folder(folder: &Path) -> Result<Cached> {
        let disk = DiskConfig { folder: folder.to_owned(), bytes: DISK_BYTES_MIN };
        let cache = CacheConfig { memory_bytes: NO_MEMORY, disk: Some(disk) };
        let world = World::with_cache(cache).await?;
        let cluster = Cluster::create("")?;
        world.import("stock", &cluster.data()).await?;
        let timeline = world.tenant("acme", "stock").await?;
        let lsn = wal_end(&cluster.data())?;
        Ok(Cached { world, timeline, lsn, cluster })
    }

    /// Reads the main forks of a database, and compares them with the template's files.
    async fn check_pages(&self) -> Result<()> {
        let mut client = self.world.connect(self.timeline, None).await?;
        let mut compared = 0;
        for size in client.relations(at(self.lsn)).await? {
            let Some(file) = file(&self.cluster.data(), size.fork) else { continue };
            let pages: Bytes = client.range(at(self.lsn), size.fork, 0, size.blocks).await??;
            ensure!(pages == fs::read(&file)?, "{} is served with other bytes", file.display());
            compared += pages.len() / PAGE_BYTES;
        }
        ensure!(compared > 500, "only {compared} pages were compared");
        Ok(())
    }

    /// What the status says of the disk.
    async fn disk(&self) -> Result<Value> {
        let status = self.world.ok(Method::GET, "/v1/status", None).await?;
        Ok(status["cache"]["disk"].clone())
    }

    /// Hides the layers of all tenants while nothing but the cache can be read.
    fn hide_layers(&self) -> Result<Vec<PathBuf>> {
        let mut hidden = Vec::new();
        let mut folders = vec![self.world.store().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name == "layers") {
                    fs::rename(&path, path.with_file_name("hidden"))?;
                    hidden.push(path);
                } else if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        ensure!(!hidden.is_empty(), "there are no layers to hide");
        Ok(hidden)
    }
}

/// The first segment of a main fork that is not empty and not too long for one request.
fn file(data: &Path, fork: RelationFork) -> Option<PathBuf> {
    if fork.fork != Fork::Main || fork.relation.database != 5 {
        return None;
    }
    let file = data.join(format!("base/5/{}", fork.relation.number));
    let bytes = fs::metadata(&file).ok()?.len();
    (1..=512 * PAGE_BYTES as u64).contains(&bytes).then_some(file)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder.join("layers"))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_from_the_disk_after_a_restart_without_the_layers() -> Result<()> {
    let folder = TempDir::new()?;
    let mut cached = Cached::in_folder(folder.path()).await?;
    cached.check_pages().await?;
    cached.world.restart().await?;
    let hidden = cached.hide_layers()?;
    cached.check_pages().await?;
    let disk = cached.disk().await?;
    assert_eq!(disk["damaged"], 0);
    assert_eq!(disk["given_up"], Value::Null);
    for path in hidden {
        fs::rename(path.with_file_name("hidden"), path)?;
    }
    cached.world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_of_a_cache_in_use_are_noticed_and_never_served() -> Result<()> {
    let folder = TempDir::new()?;
    let mut cached = Cached::in_folder(folder.path()).await?;
    cached.check_pages().await?;
    // What is on its way to the disk is there afterwards.
    cached.world.restart().await?;
    let mut byte = [0];
    for path in files(folder.path())? {
        let file = fs::File::options().read(true).write(true).open(path)?;
        for offset in (0..file.metadata()?.len()).step_by(1_009) {
            file.read_exact_at(&mut byte, offset)?;
            file.write_all_at(&[byte[0] ^ (1 << (offset % 8))], offset)?;
        }
    }
    cached.check_pages().await?;
    let disk = cached.disk().await?;
    assert!(disk["damaged"].as_u64().context("a number")? > 0, "{disk}");
    cached.world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_folder_that_is_deleted_under_a_running_pageserver_costs_no_page() -> Result<()> {
    let folder = TempDir::new()?;
    let mut cached = Cached::in_folder(folder.path()).await?;
    cached.check_pages().await?;
    fs::remove_dir_all(folder.path())?;
    cached.check_pages().await?;
    cached.world.restart().await?;
    cached.check_pages().await?;
    for path in files(folder.path())? {
        fs::File::options().write(true).open(path)?.set_len(0)?;
    }
    cached.check_pages().await?;
    let disk = cached.disk().await?;
    // What is written meanwhile makes the files long again: zeros, which are damage.
    let is_noticed = disk["given_up"].is_string() || disk["damaged"].as_u64() > Some(0);
    assert!(is_noticed, "files without bytes went unnoticed: {disk}");
    cached.world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_pages_come_from_the_object_store() -> Result<()> {
    let disk = Tmpfs::new(DISK_BYTES_MIN + (32 << 20))?;
    let folder = disk.path();
    let other = folder.join("other");
    fs::write(&other, vec![1; 48 << 20])?;
    let mut cached = Cached::in_folder(folder).await?;
    cached.check_pages().await?;
    let given_up = cached.disk().await?["given_up"].to_string();
    assert!(given_up.contains("are not free"), "{given_up}");

    // With room it is used, and what it has reserved nobody else can take.
    fs::remove_file(&other)?;
    cached.world.restart().await?;
    cached.check_pages().await?;
    assert_eq!(cached.disk().await?["given_up"], Value::Null);
    assert!(fs::write(&other, vec![1; 48 << 20]).is_err(), "the cache's space was not reserved");
    cached.check_pages().await?;
    assert_eq!(cached.disk().await?["given_up"], Value::Null);
    cached.world.stop().await;
    Ok(())
}
