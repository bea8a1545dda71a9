use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use proptest::prelude::*;
use wal_format::{Fork, Relation, RelationFork, Slru};

use super::{
    cursor::Cursor,
    format::LayerKind,
    history::{History, Piece, Span},
    name::{LayerName, LayerSummary},
    reader::Layer,
    writer::{LayerWriter, WrittenLayer},
    *,
};
use crate::{cache::Cache, change::Value, error::Error};

/// Layers of version 1, made once: a later version of the code must still read them, and write them
/// to the byte.
const GOLDEN_DELTA: &[u8] = include_bytes!("golden-v1-delta");
const GOLDEN_IMAGE: &[u8] = include_bytes!("golden-v1-image");

type Version = (Key, Lsn, Value);

/// All that a layer holds.
#[derive(Clone, PartialEq, Debug, Default)]
struct Content {
    versions: Vec<Version>,
    clears: Vec<Clear>,
    history: History,
}

fn key_fork() -> RelationFork {
    Relation { tablespace: 1663, database: 5, number: 16384 }.fork(Fork::Main)
}

fn key(block: u32) -> Key {
    Key::page(key_fork().block(block))
}

/// Rising with the number, as few blocks of many forks.
fn key_of_many(number: u32) -> Key {
    let fork = Relation { number: 16384 + number / 3, ..key_fork().relation }.fork(Fork::Main);
    Key::page(fork.block(number % 3))
}

fn record(text: &str, will_init: bool) -> Value {
    Value::Record { will_init, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

fn small() -> Content {
    let image = Value::Image(vec![7; 8192].into());
    let mut history = History::default();
    for (start, end, time) in [(0x28, 0x30, None), (0x30, 0x50, Some(5)), (0x50, 0x90, None)] {
        history.push(Span { start: Lsn(start), end: Lsn(end) }, time);
    }
    Content {
        versions: vec![
            (key(1), Lsn(0x30), record("first", true)),
            (key(1), Lsn(0x50), record("second", false)),
            (key(2), Lsn(0x50), image),
            (Key::CONTROL, Lsn(0x90), Value::Image(Bytes::new())),
        ],
        clears: vec![Clear { range: key(5)..key(9), lsn: Lsn(0x90) }],
        history,
    }
}

/// Whole values as of one LSN: pages that are alike, one that is not, an SLRU's, and what is no page.
fn images() -> Content {
    let at = Lsn(0x90);
    let page = |first: u8| Value::Image((0..8192).map(|at| first ^ (at % 251) as u8).collect());
    let slru = Key::slru(Slru::Clog, 3);
    let fork_size = Value::Image(Bytes::copy_from_slice(&3_u32.to_le_bytes()));
    Content {
        versions: vec![
            (key(0), at, page(0)),
            (key(1), at, page(0)),
            (key(2), at, page(0xFF)),
            (Key::fork_size(key_fork()), at, fork_size),
            (slru, at, page(1)),
            (Key::CONTROL, at, Value::Image(Bytes::from_static(b"control"))),
        ],
        ..Content::default()
    }
}

fn write(content: &Content) -> WrittenLayer {
    let to = content.history.at_or_before(Lsn::MAX).map_or(Lsn(0x90), |point| point.lsn);
    write_as(LayerName { kind: LayerKind::Delta, from: Lsn(0x28), to, nonce: 1 }, content)
}

fn write_images(content: &Content) -> WrittenLayer {
    let at = Lsn(0x90);
    write_as(LayerName { kind: LayerKind::Image, from: at, to: at, nonce: 1 }, content)
}

fn write_as(name: LayerName, content: &Content) -> WrittenLayer {
    let mut writer = match name.kind {
        LayerKind::Delta => LayerWriter::flushed(name, Vec::new()),
        LayerKind::Image => LayerWriter::new(name),
    };
    for (key, lsn, value) in &content.versions {
        writer.add(*key, *lsn, value).expect("it can be compressed");
    }
    for (key, lsn, value) in content.history.pieces() {
        writer.add(key, lsn, &value).expect("it can be compressed");
    }
    let written = writer.finish(&content.clears).expect("it can be compressed");
    written.expect("there is something in it")
}

async fn layer_of(summary: &LayerSummary, object: Bytes) -> Layer {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from(summary.name.to_string());
    store.put(&path, object.into()).await.expect("the store works");
    Layer::new(summary.clone(), path, store, Arc::new(Cache::new(1 << 20, None)))
}

async fn read_all(layer: &Layer) -> Result<Content, Error> {
    let contents = layer.contents().await?;
    let all = Key::MIN..Key::MAX;
    let numbers: Vec<usize> = contents.blocks_in(&all).collect();
    let mut versions = Vec::new();
    let mut history = History::default();
    for block in layer.blocks(&contents, &numbers).await? {
        for at in 0..block.len() {
            let (key, value) = (block.key(at), block.value(at));
            assert!(contents.may_have(key));
            match key.as_history() {
                Some(_) => history.extend(&Piece::decode(value.bytes()).expect("it is ours")),
                None => versions.push((key, block.lsn(at), value)),
            }
        }
    }
    Ok(Content { versions, clears: contents.clears().to_vec(), history })
}

/// The cursor reads the same, past the cache.
async fn read_through(layer: Layer) -> Result<Vec<Version>, Error> {
    let mut cursor = Cursor::new([Arc::new(layer)]);
    let mut versions = Vec::new();
    cursor.fill().await?;
    while let Some(key) = cursor.key() {
        let (lsn, value) = cursor.take().expect("there is a key");
        versions.push((key, lsn, value));
        if cursor.must_fill() {
            cursor.fill().await?;
        }
    }
    Ok(versions)
}

#[tokio::test]
async fn the_golden_layers_are_read_and_written_to_the_byte() {
    let golden = [
        (write(&small()), GOLDEN_DELTA, small()),
        (write_images(&images()), GOLDEN_IMAGE, images()),
    ];
    for (written, bytes, content) in golden {
        let name = written.summary.name;
        assert!(written.object == bytes, "{name}: version 1 is written in another way than it was");
        let layer = layer_of(&written.summary, Bytes::from_static(bytes)).await;
        assert_eq!(read_all(&layer).await, Ok(content), "{name}");
    }
}

#[tokio::test]
async fn every_flipped_bit_of_a_layer_is_found_and_named() {
    let written = write(&small());
    for at in 0..written.object.len() {
        for bit in 0..8 {
            let mut damaged = written.object.to_vec();
            damaged[at] ^= 1 << bit;
            let layer = layer_of(&written.summary, damaged.into()).await;
            match read_all(&layer).await {
                Err(Error::Corrupt { object, offset, .. }) => {
                    assert_eq!(object, written.summary.name.to_string());
                    assert!(offset <= at as u64, "byte {at} was looked for behind it: {offset}");
                }
                other => panic!("bit {bit} of byte {at} went unnoticed: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_layer_that_lost_its_end_is_damaged_and_one_that_is_gone_is_missing() {
    let written = write(&small());
    for length in 0..written.object.len() {
        let layer = layer_of(&written.summary, written.object.slice(..length)).await;
        let read = read_all(&layer).await;
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{length} bytes: {read:?}");
    }
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let cache = Arc::new(Cache::new(0, None));
    let layer = Layer::new(written.summary, Path::from("gone"), store, cache);
    assert_eq!(read_all(&layer).await, Err(Error::Missing { object: "gone".to_owned() }));
}

#[tokio::test]
async fn blocks_that_lz4_makes_no_shorter_are_stored_as_they_are() {
    let mut random = 1_u64;
    let mut byte = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    };
    let versions = (0..600).map(|number| {
        let bytes: Vec<u8> = std::iter::repeat_with(&mut byte).take(1000).collect();
        (key_of_many(number), Lsn(0x30), Value::Image(bytes.into()))
    });
    let content = Content { versions: versions.collect(), ..small() };
    let written = write(&content);
    let layer = layer_of(&written.summary, written.object).await;
    let contents = layer.contents().await.expect("it is there");
    let blocks: Vec<_> = contents.blocks_in(&(Key::MIN..Key::MAX)).collect();
    let locators = blocks.iter().map(|number| contents.block(*number).locator);
    let plain = locators.filter(|locator| locator.stored == locator.raw).count();
    // Of eight blocks one is tried, and what comes behind the values is shorter.
    assert!(blocks.len() >= 16 && plain >= blocks.len() * 3 / 4, "{plain} of {}", blocks.len());
    assert_eq!(read_all(&layer).await, Ok(content));
}

fn any_content() -> impl Strategy<Value = Content> {
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Value::Image(bytes.into())),
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(will_init, bytes)| Value::Record { will_init, bytes: bytes.into() }),
    ];
    let versions = prop::collection::btree_map((0..20_u32, 1..50_u64), value, 0..120);
    let clears = prop::collection::vec((0..20_u32, 1..20_u32, 1..50_u64), 0..4);
    let records = prop::collection::vec((0..30_u64, 1..300_u64, any::<Option<i64>>()), 1..40);
    (versions, clears, records, any::<bool>()).prop_map(|(versions, clears, records, of_many)| {
        let mut history = History::default();
        let mut at = 0x28;
        for (gap, length, time) in records {
            let start = at + gap;
            at = start + length;
            history.push(Span { start: Lsn(start), end: Lsn(at) }, time);
        }
        let key = if of_many { key_of_many } else { key };
        let version = |((number, lsn), value)| (key(number), Lsn(lsn), value);
        let clear =
            |(first, blocks, lsn)| Clear { range: key(first)..key(first + blocks), lsn: Lsn(lsn) };
        Content {
            versions: versions.into_iter().map(version).collect(),
            clears: clears.into_iter().map(clear).collect(),
            history,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_layer_is_read_back_as_it_was_written(content in any_content()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it starts");
        runtime.block_on(async {
            let written = write(&content);
            let layer = layer_of(&written.summary, written.object).await;
            prop_assert_eq!(read_all(&layer).await, Ok(content.clone()));
            let mut through = read_through(layer).await.expect("it is there");
            through.retain(|(key, ..)| key.as_history().is_none());
            prop_assert_eq!(through, content.versions);
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn places_in_a_stored_history_are_those_of_the_history(
        records in prop::collection::vec((0..30_u64, 1..300_u64, any::<Option<u8>>()), 1..60),
        asked in prop::collection::vec((0..12_000_u64, any::<u8>()), 20),
    ) {
        let mut history = History::default();
        let mut at = 0x28;
        for (gap, length, time) in records {
            let start = at + gap;
            at = start + length;
            history.push(Span { start: Lsn(start), end: Lsn(at) }, time.map(i64::from));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it starts");
        runtime.block_on(async {
            let content = Content { history: history.clone(), ..small() };
            let written = write(&content);
            prop_assert_eq!(written.summary.last_commit_time, history.last_commit_time());
            let layer = layer_of(&written.summary, written.object).await;
            for (lsn, time) in asked {
                let found = layer.at_or_before(Lsn(lsn)).await;
                prop_assert_eq!(found, Ok(history.at_or_before(Lsn(lsn))));
                let time = i64::from(time);
                let found = layer.first_commit_after(time, Lsn(lsn)).await;
                prop_assert_eq!(found, Ok(history.first_commit_after(time, Lsn(lsn))));
            }
            Ok(())
        })?;
    }
}
