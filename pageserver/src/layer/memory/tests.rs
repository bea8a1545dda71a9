use std::collections::BTreeMap;

use proptest::prelude::*;
use wal_format::{Fork, Relation};

use super::*;
use crate::change::Change;

fn key(number: u32) -> Key {
    let fork = Relation { tablespace: 1663, database: 5, number: 16384 }.fork(Fork::Main);
    if number % 4 == 3 { Key::two_phase(number) } else { Key::page(fork.block(number)) }
}

fn any_value() -> impl Strategy<Value = Value> {
    (0..3_u8, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, bytes)| {
        let kind = match kind {
            0 => ValueKind::Image,
            1 => ValueKind::Record,
            _ => ValueKind::InitRecord,
        };
        Value::new(kind, bytes.into())
    })
}

/// What some records put, in the order of their LSNs: `(number + 1) * 8`.
fn any_records() -> impl Strategy<Value = Vec<Vec<(Key, Value)>>> {
    let put = ((0..6_u32).prop_map(key), any_value());
    prop::collection::vec(prop::collection::vec(put, 0..4), 1..60)
}

fn lsn(record: usize) -> Lsn {
    Lsn((record as u64 + 1) * 8)
}

/// A layer to which so many of the records at a time were applied.
fn layer_of(records: &[Vec<(Key, Value)>], at_once: usize) -> MemoryLayer {
    let mut layer = MemoryLayer::new(Lsn(0), &Arc::default());
    let mut changes = Changes::default();
    for (number, puts) in records.iter().enumerate() {
        for (key, value) in puts {
            changes.put(*key, value.clone());
        }
        changes.close(Lsn(number as u64 * 8), lsn(number), None);
        if (number + 1).is_multiple_of(at_once) {
            layer.apply(&mut changes);
            assert!(changes.is_empty() && changes.bytes() == 0);
        }
    }
    layer.apply(&mut changes);
    layer
}

type Model = BTreeMap<Key, BTreeMap<Lsn, Value>>;

fn model_of(records: &[Vec<(Key, Value)>]) -> Model {
    let mut model = Model::new();
    for (number, puts) in records.iter().enumerate() {
        for (key, value) in puts {
            model.entry(*key).or_default().insert(lsn(number), value.clone());
        }
    }
    model
}

/// The most records in a row, each made from the one before.
fn records_max(versions: &BTreeMap<Lsn, Value>) -> usize {
    let mut records = 0;
    let counts = versions.values().map(|value| {
        records = value.kind().records_since_image(records);
        records
    });
    counts.max().unwrap_or(0)
}

proptest! {
    #[test]
    fn a_key_has_the_versions_that_were_put_as_of_any_lsn(
        records in any_records(), at_once in 1..8_usize
    ) {
        let (layer, model) = (layer_of(&records, at_once), model_of(&records));
        for key in (0..6).map(key) {
            for at in (0..=records.len() as u64 + 1).map(|number| Lsn(number * 8 + 3)) {
                let found: Vec<_> = layer.versions(key, at).collect();
                let versions = model.get(&key).into_iter().flat_map(|all| all.range(..=at).rev());
                let expected: Vec<_> = versions.map(|(lsn, value)| (*lsn, value.clone())).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn sorted_is_every_version_by_key_and_lsn(records in any_records(), at_once in 1..8_usize) {
        let (layer, model) = (layer_of(&records, at_once), model_of(&records));
        let sorted = layer.sorted();
        let mut keys = Vec::new();
        for versions in sorted.keys() {
            let expected = &model[&versions.key()];
            let mut all = Vec::new();
            versions.try_for_each(|Row { lsn, kind, bytes }| {
                all.push((lsn, Value::new(kind, Bytes::copy_from_slice(bytes))));
                Ok::<_, TestCaseError>(())
            })?;
            prop_assert!(all.is_sorted_by_key(|(lsn, _)| *lsn));
            prop_assert_eq!(&all.into_iter().collect::<BTreeMap<_, _>>(), expected);
            prop_assert_eq!(versions.records_max(), records_max(expected));
            let first = expected.values().next();
            prop_assert_eq!(Some(versions.is_complete()), first.map(Value::is_complete));
            keys.push(versions.key());
        }
        prop_assert_eq!(keys, model.keys().copied().collect::<Vec<_>>());
        let asked = |versions: &BTreeMap<Lsn, Value>| {
            let first = versions.values().next();
            records_max(versions) >= 3 && first.is_some_and(|value| !value.is_complete())
        };
        let mut found = layer.keys_upon_others(3);
        found.sort();
        let expected = model.iter().filter(|(_, versions)| asked(versions)).map(|(key, _)| *key);
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_layer_counts_at_least_what_its_values_take(records in any_records()) {
        let values = records.iter().flatten();
        let bytes: usize = values.map(|(_, value)| value.bytes().len()).sum();
        prop_assert!(layer_of(&records, 3).bytes() >= bytes);
    }
}

#[test]
fn a_record_of_many_keys_is_in_memory_once() {
    let mut changes = Changes::default();
    let place = changes.keep(&[7; 1000]);
    for number in 0..100 {
        changes.put_record(key(4 * number), false, place);
    }
    changes.close(Lsn(0), Lsn(8), None);
    let mut layer = MemoryLayer::new(Lsn(0), &Arc::default());
    layer.apply(&mut changes);
    assert!(layer.bytes() < 20_000, "{} bytes", layer.bytes());
    let versions: Vec<_> = layer.versions(key(396), Lsn(8)).collect();
    let value = Value::Record { will_init: false, bytes: vec![7; 1000].into() };
    assert_eq!(versions, [(Lsn(8), value)]);
}

#[test]
fn what_a_change_takes_back_or_does_not_close_is_not_applied() {
    let value = |byte: u8| Value::Image(vec![byte].into());
    let mut changes = Changes::default();
    changes.put(key(0), value(1));
    changes.put(key(1), value(2));
    changes.clear(key(0).only());
    changes.close(Lsn(0), Lsn(8), None);
    // Of a record that failed.
    changes.put(key(2), value(4));
    let mut layer = MemoryLayer::new(Lsn(0), &Arc::default());
    layer.apply(&mut changes);
    layer.apply(&mut Changes::from(Change {
        start: Lsn(8),
        end: Lsn(16),
        puts: vec![(key(1), value(3))],
        ..Change::default()
    }));
    for number in [0, 2] {
        assert_eq!(layer.versions(key(number), Lsn::MAX).count(), 0);
    }
    let versions: Vec<_> = layer.versions(key(1), Lsn::MAX).collect();
    assert_eq!(versions, [(Lsn(16), value(3)), (Lsn(8), value(2))]);
    assert_eq!(layer.clears().len(), 1);
}

#[test]
fn neighbours_are_found_and_come_in_the_order_of_their_keys() {
    let fork = |number| Relation { tablespace: 1663, database: 5, number }.fork(Fork::Main);
    let keys: Vec<Key> = [(7, 9), (7, 8), (5, u32::MAX), (7, 7), (6, 0), (5, 16), (7, 31)]
        .map(|(relation, block)| Key::page(fork(relation).block(block)))
        .to_vec();
    let mut index = Index::default();
    let leaves = (0..).zip(&keys).filter(|(number, key)| index.insert(**key, *number)).count();
    assert_eq!(leaves, 6, "blocks 8 and 9 of one fork are neighbours");
    for (number, key) in (0..).zip(&keys) {
        assert_eq!(index.get(*key), Some(number), "{key}");
    }
    assert_eq!(index.get(Key::page(fork(7).block(10))), None);
    assert_eq!(index.get(Key::page(fork(8).block(7))), None);
    let sorted: Vec<Key> = index.sorted().map(|(key, _)| key).collect();
    assert!(sorted.is_sorted() && sorted.len() == keys.len());
    let mut all: Vec<Key> = index.iter().map(|(key, _)| key).collect();
    all.sort_unstable();
    assert_eq!(all, sorted);
}

#[test]
fn a_version_that_takes_anothers_place_is_all_that_is_seen_of_them() {
    let value = |byte: u8, bytes: usize| Value::Image(vec![byte; bytes].into());
    let mut changes = Changes::default();
    // In a chunk with others, by itself, and apart from all.
    for (number, bytes) in [(0, 3), (1, 30), (2, 31), (3, 90)] {
        changes.put(key(0), value(1, bytes));
        changes.put(key(0), value(2, 40 - bytes.min(39)));
        changes.put(key(0), value(number, bytes));
        changes.close(Lsn(u64::from(number) * 8), lsn(usize::from(number)), None);
    }
    let mut layer = MemoryLayer::new(Lsn(0), &Arc::default());
    layer.apply(&mut changes);
    let versions: Vec<_> = layer.versions(key(0), Lsn::MAX).collect();
    let expected = [(3, 90), (2, 31), (1, 30), (0, 3)]
        .map(|(number, bytes)| (lsn(usize::from(number)), value(number, bytes)));
    assert_eq!(versions, expected);
}
