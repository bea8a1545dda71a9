//! The part of the cache that is on a local disk: parts of layers as they are stored, compressed
//! and with the checksum that the layer's own index has of them. It outlives a restart.
//!
//! Nothing that happens to this disk is an error of a read. A folder that cannot be used, or a disk
//! that fails, is given up until the next start; a part that is not what was written is read from
//! the object store again. Either is said once in the log, and in the status from then on.

use std::{
    fs::{self, File},
    io,
    os::linux::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Code, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, Load,
    PsyncIoEngineConfig,
};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::{CacheKey, LayerIdentity};

/// The folder that is ours: whatever else is in it is removed.
const FOLDER: &str = "layers";
/// The least that makes sense.
pub const DISK_BYTES_MIN: u64 = 64 << 20;
/// The disk is taken, written and given up in this many pieces at most...
const REGIONS_MAX: u64 = 256;
/// ...of at least this size.
const REGION_BYTES_MIN: u64 = 4 << 20;
/// What is on its way to the disk is in memory: two buffers of this size, and a queue of it.
/// Beyond that, parts are not written.
const WRITE_BUFFER_BYTES: usize = 4 << 20;
/// Memory for what was just written: none is needed, the decompressed part is in memory already.
const MEMORY_BYTES: usize = 1 << 20;

/// Parts of layers on a local disk.
pub struct Disk {
    /// `None` where the disk cannot be used.
    cache: Option<HybridCache<CacheKey, Bytes>>,
    folder: PathBuf,
    bytes_max: u64,
    damaged: AtomicU64,
    given_up: Mutex<Option<String>>,
}

/// How the disk does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskStatus {
    /// Bytes of the disk that are taken.
    pub bytes_max: u64,
    /// Parts that were not as they were written.
    pub damaged: u64,
    /// Why the disk is not used any more.
    pub given_up: Option<String>,
}

impl Disk {
    /// Takes a folder of its own below this one for so many bytes, all of which are reserved at
    /// once.
    pub async fn open(folder: &Path, bytes_max: u64) -> Disk {
        let folder = folder.join(FOLDER);
        let opened = {
            let folder = folder.clone();
            // A task of its own: damage that foyer did not think of ends this task only.
            tokio::spawn(async move { open(&folder, bytes_max).await })
        };
        let opened = match opened.await {
            Ok(opened) => opened,
            Err(error) => Err(error.to_string()),
        };
        let mut disk = Disk {
            cache: None,
            folder,
            bytes_max,
            damaged: AtomicU64::new(0),
            given_up: Mutex::default(),
        };
        match opened {
            Ok(cache) => disk.cache = Some(cache),
            Err(reason) => disk.give_up(&reason),
        }
        disk
    }

    /// What is there under this key; whoever gets it must check it.
    pub async fn get(&self, key: CacheKey) -> Option<Bytes> {
        let storage = self.usable()?.storage().clone();
        if !storage.may_contains(&key) {
            return None;
        }
        match tokio::spawn(async move { storage.load(&key).await }).await {
            Ok(Ok(Load::Entry { value, .. })) => Some(value),
            Ok(Ok(Load::Piece { piece, .. })) => Some(piece.value().clone()),
            Ok(Ok(Load::Throttled)) => None,
            Ok(Ok(Load::Miss)) | Err(_) => {
                self.note_damage(key);
                None
            }
            Ok(Err(error)) => {
                self.give_up(&error.to_string());
                None
            }
        }
    }

    /// Writes a part, some time.
    pub fn put(&self, key: CacheKey, stored: Bytes) {
        if let Some(cache) = self.usable() {
            cache.storage_writer(key).insert(stored);
        }
    }

    /// Drops a part that is not what was written.
    pub fn forget_damaged(&self, key: CacheKey) {
        self.note_damage(key);
        if let Some(cache) = self.usable() {
            cache.storage().delete(&key);
        }
    }

    /// Waits until everything is written.
    pub async fn close(&self) {
        if let Some(cache) = &self.cache
            && let Err(error) = cache.close().await
        {
            self.give_up(&error.to_string());
        }
    }

    /// How it does.
    pub fn status(&self) -> DiskStatus {
        DiskStatus {
            bytes_max: self.bytes_max,
            damaged: self.damaged.load(Ordering::Relaxed),
            given_up: self.given_up.lock().clone(),
        }
    }

    fn usable(&self) -> Option<&HybridCache<CacheKey, Bytes>> {
        self.cache.as_ref().filter(|_| self.given_up.lock().is_none())
    }

    fn note_damage(&self, key: CacheKey) {
        if self.damaged.fetch_add(1, Ordering::Relaxed) == 0 {
            let folder = self.folder.display();
            warn!(%folder, ?key, "a part on the disk cache was not what was written; such parts are read from the object store again");
        }
    }

    fn give_up(&self, reason: &str) {
        let mut given_up = self.given_up.lock();
        if given_up.is_none() {
            let folder = self.folder.display();
            warn!(%folder, reason, "the disk cache is not used any more until the next start");
            *given_up = Some(reason.to_owned());
        }
    }
}

async fn open(folder: &Path, bytes_max: u64) -> Result<HybridCache<CacheKey, Bytes>, String> {
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    if bytes_max < DISK_BYTES_MIN {
        return Err(format!("{bytes_max} bytes are fewer than {DISK_BYTES_MIN}"));
    }
    fs::create_dir_all(folder).map_err(failed)?;
    let taken = taken_bytes(folder).map_err(failed)?;
    let free = statvfs(folder).map_err(|error| failed(error.into()))?;
    let free = free.blocks_available() * free.fragment_size();
    if free + taken < bytes_max {
        return Err(format!("{}: {bytes_max} bytes are not free", folder.display()));
    }
    let region_bytes = (bytes_max / REGIONS_MAX).max(REGION_BYTES_MIN) / 4096 * 4096;
    let regions = bytes_max / region_bytes;
    clear_unless(folder, regions, region_bytes).map_err(failed)?;
    let capacity = (regions * region_bytes) as usize;
    let device = FsDeviceBuilder::new(folder).with_capacity(capacity).build();
    let device = device.map_err(|error| error.to_string())?;
    let engine = BlockEngineConfig::new(device)
        .with_block_size(region_bytes as usize)
        .with_buffer_pool_size(WRITE_BUFFER_BYTES)
        .with_submit_queue_size_threshold(WRITE_BUFFER_BYTES);
    let cache = HybridCacheBuilder::new()
        .with_name("layers")
        .with_flush_on_close(false)
        .memory(MEMORY_BYTES)
        .storage()
        .with_io_engine_config(PsyncIoEngineConfig::new())
        .with_engine_config(engine)
        .build()
        .await
        .map_err(|error| error.to_string())?;
    if let Err(error) = reserve(folder) {
        // Who fills the disk needs the space more.
        let _ = fs::remove_dir_all(folder);
        return Err(failed(error));
    }
    info!(folder = %folder.display(), bytes_max, "the disk cache is open");
    Ok(cache)
}

/// Removes what was written in regions of another number or size.
fn clear_unless(folder: &Path, regions: u64, region_bytes: u64) -> io::Result<()> {
    let files = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut is_same = files.len() as u64 == regions;
    for file in &files {
        is_same &= file.metadata()?.len() == region_bytes;
    }
    if !is_same {
        for file in files {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// Bytes of the disk that files of this folder take.
fn taken_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        bytes += entry?.metadata()?.st_blocks() * 512;
    }
    Ok(bytes)
}

/// Takes the space of all files, so that the disk does not turn out to be full later.
fn reserve(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = File::options().write(true).open(entry?.path())?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        fallocate(&file, FallocateFlags::empty(), 0, length)?;
    }
    Ok(())
}

impl Code for CacheKey {
    fn encode(&self, writer: &mut impl io::Write) -> foyer::Result<()> {
        self.layer.0.encode(writer)?;
        self.offset.encode(writer)
    }

    fn decode(reader: &mut impl io::Read) -> foyer::Result<CacheKey> {
        let layer = LayerIdentity(u128::decode(reader)?);
        Ok(CacheKey { layer, offset: u64::decode(reader)? })
    }

    fn estimated_size(&self) -> usize {
        24
    }
}
