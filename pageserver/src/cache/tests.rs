use std::{
    fs,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use wal_format::Lsn;

use super::*;
use crate::{
    change::Value,
    key::Key,
    layer::{
        format::LayerKind,
        name::{LayerName, LayerSummary},
        reader::Layer,
        writer::LayerWriter,
    },
};

const KEYS: u64 = 64;
const MEMORY_BYTES: u64 = 64 << 20;

/// Values that do not compress: each makes a block of its own.
fn value(number: u64) -> Bytes {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..40_000).map(|_| next()).collect()
}

fn key(number: u64) -> Key {
    Key::two_phase(number as u32)
}

/// A layer's object, and what the manifest says of it.
fn object() -> (LayerSummary, Bytes) {
    let name = LayerName { kind: LayerKind::Image, from: Lsn(8), to: Lsn(8), nonce: 3 };
    let mut writer = LayerWriter::new(name);
    for number in 0..KEYS {
        writer.add(key(number), Lsn(8), &Value::Image(value(number))).expect("it compresses");
    }
    let written = writer.finish(&[]).expect("it compresses");
    let written = written.expect("there is something in it");
    (written.summary, written.object)
}

/// A store that has the layer.
async fn store(object: Bytes) -> Arc<dyn ObjectStore> {
    let store = InMemory::new();
    store.put(&path(), object.into()).await.expect("memory takes it");
    Arc::new(store)
}

fn path() -> Path {
    Path::from("tenants/a/layers/b")
}

async fn read_all(layer: &Layer) -> Result<Vec<Bytes>, Error> {
    let contents = layer.contents().await?;
    let numbers: Vec<usize> = contents.blocks_in(&(Key::MIN..Key::MAX)).collect();
    let blocks = layer.blocks(&contents, &numbers).await?;
    let values = blocks
        .iter()
        .flat_map(|block| (0..block.len()).map(|position| block.value(position).bytes().clone()));
    Ok(values.collect())
}

fn all() -> Vec<Bytes> {
    (0..KEYS).map(value).collect()
}

/// Reads the layer through a cache with this folder, which then has all of it.
async fn fill(folder: &std::path::Path) -> LayerSummary {
    let (summary, object) = object();
    let disk = Disk::open(folder, DISK_BYTES_MIN).await;
    let cache = Arc::new(Cache::new(MEMORY_BYTES, Some(disk)));
    let layer = Layer::new(summary.clone(), path(), store(object).await, cache.clone());
    assert_eq!(read_all(&layer).await, Ok(all()));
    cache.close().await;
    assert_eq!(cache.status().disk.expect("there is one").given_up, None);
    summary
}

/// Reads it through a new cache on what is in the folder now.
async fn read_again(
    folder: &std::path::Path,
    summary: LayerSummary,
    store: Arc<dyn ObjectStore>,
) -> (Result<Vec<Bytes>, Error>, DiskStatus) {
    let disk = Disk::open(folder, DISK_BYTES_MIN).await;
    let cache = Arc::new(Cache::new(MEMORY_BYTES, Some(disk)));
    let layer = Layer::new(summary, path(), store, cache.clone());
    let read = read_all(&layer).await;
    cache.close().await;
    (read, cache.status().disk.expect("there is one"))
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder.join("layers")).expect("the folder is there");
    entries.map(|entry| entry.expect("it can be listed").path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_disk_is_not_read_from_the_store_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let summary = fill(folder.path()).await;
    let nothing: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (read, status) = read_again(folder.path(), summary, nothing).await;
    assert_eq!(read, Ok(all()));
    let expected = DiskStatus { bytes_max: DISK_BYTES_MIN, damaged: 0, given_up: None };
    assert_eq!(status, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_disk_is_a_miss_whichever_bytes_it_meets() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let summary = fill(folder.path()).await;
    let (_, object) = object();
    for file in files(folder.path()) {
        let file = fs::File::options().read(true).write(true).open(file).expect("it opens");
        let length = file.metadata().expect("it is there").len();
        let mut byte = [0];
        // Prime: it meets headers, keys, values and paddings.
        for at in (0..length).step_by(9_973) {
            file.read_exact_at(&mut byte, at).expect("it is that long");
            file.write_all_at(&[byte[0] ^ 0x55], at).expect("it can be written");
        }
    }
    let (read, status) = read_again(folder.path(), summary, store(object).await).await;
    assert_eq!(read, Ok(all()));
    assert_eq!(status.given_up, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_another_layer_under_the_right_key_are_a_miss() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (summary, object) = object();
    let disk = Disk::open(folder.path(), DISK_BYTES_MIN).await;
    for offset in 0..object.len() as u64 {
        let key = CacheKey { layer: LayerIdentity::of(&path()), offset };
        if offset % 40_000 < 2_000 || offset == summary.clears_at {
            disk.put(key, value(offset));
        }
    }
    let cache = Arc::new(Cache::new(MEMORY_BYTES, Some(disk)));
    let layer = Layer::new(summary, path(), store(object).await, cache.clone());
    assert_eq!(read_all(&layer).await, Ok(all()));
    assert!(cache.status().disk.expect("there is one").damaged > 0, "nothing was noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_folder_that_vanishes_or_shrinks_under_way_is_a_miss() {
    let (summary, object) = object();
    for vanish in [true, false] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        fill(folder.path()).await;
        let disk = Disk::open(folder.path(), DISK_BYTES_MIN).await;
        for file in files(folder.path()) {
            let done = if vanish {
                fs::remove_file(file)
            } else {
                fs::File::options().write(true).open(file).and_then(|file| file.set_len(0))
            };
            done.expect("it is there");
        }
        let cache = Arc::new(Cache::new(MEMORY_BYTES, Some(disk)));
        let layer = Layer::new(summary.clone(), path(), store(object.clone()).await, cache.clone());
        assert_eq!(read_all(&layer).await, Ok(all()));
        cache.close().await;
        let given_up = cache.status().disk.expect("there is one").given_up;
        assert_eq!(given_up.is_none(), vanish, "{given_up:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_is_said_and_reads_go_on() {
    let (summary, object) = object();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("file");
    fs::write(&file, "no folder").expect("it can be written");
    let too_much = 1 << 50;
    for (folder, bytes) in [(file.as_path(), DISK_BYTES_MIN), (folder.path(), too_much)] {
        let disk = Disk::open(folder, bytes).await;
        assert!(disk.status().given_up.is_some(), "{bytes} bytes in {}", folder.display());
        let cache = Arc::new(Cache::new(MEMORY_BYTES, Some(disk)));
        let layer = Layer::new(summary.clone(), path(), store(object.clone()).await, cache);
        assert_eq!(read_all(&layer).await, Ok(all()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_its_bytes_whatever_is_read() {
    let (summary, object) = object();
    let bytes_max = 1 << 20;
    let cache = Arc::new(Cache::new(bytes_max, None));
    let layer = Layer::new(summary, path(), store(object).await, cache.clone());
    for _ in 0..3 {
        assert_eq!(read_all(&layer).await, Ok(all()));
        let status = cache.status();
        assert!(status.memory_bytes <= bytes_max, "{status:?}");
    }
}

/// The key of a part that no layer has.
fn some_key(offset: u64) -> CacheKey {
    CacheKey { layer: LayerIdentity::of(&path()), offset }
}

/// A value that can be told from others.
async fn contents() -> Cached {
    let (summary, object) = object();
    let cache = Arc::new(Cache::new(0, None));
    let layer = Layer::new(summary, path(), store(object).await, cache);
    Cached::Contents(layer.contents().await.expect("it is undamaged"))
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_ask_for_one_part_make_one_read_and_one_that_leaves_does_not_end_it() {
    let cache = Arc::new(Cache::new(MEMORY_BYTES, None));
    let value = contents().await;
    let reads = Arc::new(AtomicUsize::new(0));
    let keys: Arc<[CacheKey]> = (0..4).map(some_key).collect();
    let ask = || {
        let (cache, reads, value) = (cache.clone(), reads.clone(), value.clone());
        let keys = keys.clone();
        tokio::spawn(async move {
            let read = |positions: Vec<usize>| async move {
                reads.fetch_add(positions.len(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(positions.iter().map(|_| (value.clone(), 100)).collect())
            };
            cache.get_or_read(&keys, read).await.map(|values| values.len())
        })
    };
    let first = ask();
    while reads.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..20).map(|_| ask()).collect();
    first.abort();
    for other in others {
        assert_eq!(other.await.expect("it is not aborted"), Ok(4));
    }
    assert_eq!(reads.load(Ordering::Relaxed), 4, "each of four parts is read once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_failed_is_told_to_all_that_waited_and_begins_anew_for_the_next() {
    let cache = Arc::new(Cache::new(MEMORY_BYTES, None));
    let value = contents().await;
    let failed = Error::Unavailable("the store is away".to_owned());
    let keys = [some_key(1)];
    let fail = || {
        let failed = failed.clone();
        cache.get_or_read(&keys, |_| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(failed)
        })
    };
    let (one, other) = tokio::join!(fail(), fail());
    assert_eq!(one.map(|values| values.len()), Err(failed.clone()));
    assert_eq!(other.map(|values| values.len()), Err(failed.clone()));
    let read = |_| async move { Ok(vec![(value, 100)]) };
    let values = cache.get_or_read(&keys, read).await;
    assert_eq!(values.map(|values| values.len()), Ok(1));
}
