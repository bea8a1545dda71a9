use std::collections::BTreeMap;

use proptest::prelude::*;
use wal_format::{Fork, Relation};

use super::*;
use crate::{simulation::ModelRedo, timeline::reconstruct::Chain};

fn page_key() -> Key {
    let relation = Relation { tablespace: 1663, database: 5, number: 100 };
    Key::page(relation.fork(Fork::Main).block(3))
}

fn record(byte: u8) -> Value {
    Value::Record { will_init: false, bytes: vec![byte; 6].into() }
}

fn image(byte: u8) -> Value {
    Value::Image(vec![byte; PAGE_BYTES].into())
}

/// What a merge stores of these versions.
fn fold(
    key: Key,
    versions: &[Version],
    clears: &[Lsn],
    retained: &Retained,
    before: Option<&Bytes>,
) -> Vec<Version> {
    let redo = ModelRedo::default();
    let mut base = |_| Some(before.cloned());
    let mut fold = Fold::new(key, clears.to_vec(), retained, &redo);
    let mut out = Vec::new();
    for version in versions {
        fold.push(version.clone(), &mut base, &mut out);
    }
    fold.finish(&mut base, &mut out);
    out
}

/// The key's value as of an LSN, and how many records were redone for it.
fn value(
    key: Key,
    versions: &[Version],
    clears: &[Lsn],
    before: Option<&Bytes>,
    at: Lsn,
) -> (Option<Bytes>, usize) {
    let redo = ModelRedo::default();
    let mut chain = Chain::default();
    let floor = clears.iter().copied().filter(|clear| *clear <= at).max();
    let seen = versions.iter().rev().filter(|(lsn, _)| *lsn <= at);
    chain.extend(seen.cloned(), floor, None);
    if let Some(before) = before.filter(|_| !chain.is_complete()) {
        chain.push(Lsn::INVALID, Value::Image(before.clone()));
    }
    let value = chain.value(key, &redo).expect("the model's records are good");
    (value, redo.applied.into_inner())
}

#[test]
fn below_the_cutoff_the_newest_version_is_enough() {
    let versions = [(Lsn(10), image(1)), (Lsn(20), image(2)), (Lsn(30), image(3))];
    let retained = Retained::at(Lsn(25), []);
    let kept = fold(Key::CONTROL, &versions, &[], &retained, None);
    assert_eq!(kept, versions[1..]);
    let retained = Retained::at(Lsn(25), [Lsn(15)]);
    assert_eq!(fold(Key::CONTROL, &versions, &[], &retained, None), versions);
}

#[test]
fn records_on_an_image_below_the_cutoff_become_one_image() {
    let versions = [(Lsn(10), image(1)), (Lsn(20), record(2)), (Lsn(30), record(3))];
    let retained = Retained::at(Lsn(30), []);
    let kept = fold(page_key(), &versions, &[], &retained, None);
    assert!(matches!(kept[..], [(Lsn(30), Value::Image(_))]), "{kept:?}");
}

#[test]
fn what_was_emptied_below_the_cutoff_is_not_kept() {
    let versions = [(Lsn(10), image(1)), (Lsn(20), record(2))];
    let retained = Retained::at(Lsn(40), []);
    assert_eq!(fold(page_key(), &versions, &[Lsn(25)], &retained, None), []);
    let retained = Retained::at(Lsn(40), [Lsn(24)]);
    assert_eq!(fold(page_key(), &versions, &[Lsn(25)], &retained, None).len(), 1);
}

#[test]
fn a_page_that_cannot_be_made_keeps_its_records() {
    let bad = Value::Record { will_init: false, bytes: Bytes::from_static(b"bad record") };
    let mut versions = vec![(Lsn(1), image(1)), (Lsn(2), bad)];
    versions.extend((3..40).map(|lsn| (Lsn(lsn), record(lsn as u8))));
    for retained in [Retained::default(), Retained::at(Lsn(100), [])] {
        let kept = fold(page_key(), &versions, &[], &retained, None);
        assert_eq!(kept, versions);
    }
    versions.push((Lsn(50), image(5)));
    let kept = fold(page_key(), &versions, &[], &Retained::at(Lsn(100), []), None);
    assert_eq!(kept.last(), versions.last());
}

#[derive(Clone, Debug)]
enum Event {
    Version(Value),
    Clear,
}

fn any_event() -> impl Strategy<Value = Event> {
    let record = (prop::bool::weighted(0.1), 0..60_u8).prop_map(|(will_init, byte)| {
        Event::Version(Value::Record { will_init, bytes: vec![byte; 6].into() })
    });
    prop_oneof![
        8 => record,
        1 => any::<u8>().prop_map(|byte| Event::Version(image(byte))),
        1 => Just(Event::Clear),
    ]
}

proptest! {
    #[test]
    fn every_kept_lsn_sees_what_it_saw_and_redoes_few_records(
        events in prop::collection::btree_map(1..200_u64, any_event(), 0..60),
        cutoff in prop::option::of(0..220_u64),
        points in prop::collection::vec(0..200_u64, 0..4),
        before in prop::option::of(any::<u8>()),
    ) {
        let before = before.map(|byte| Bytes::from(vec![byte; PAGE_BYTES]));
        let before = before.as_ref();
        let retained = cutoff.map_or_else(Retained::default, |cutoff| {
            Retained::at(Lsn(cutoff), points.iter().copied().map(Lsn))
        });
        let (mut versions, mut clears) = (Vec::new(), Vec::new());
        for (lsn, event) in &events {
            match event {
                Event::Version(value) => versions.push((Lsn(*lsn), value.clone())),
                Event::Clear => clears.push(Lsn(*lsn)),
            }
        }
        let kept = fold(page_key(), &versions, &clears, &retained, before);
        let by_lsn: BTreeMap<Lsn, &Value> = versions.iter().map(|(lsn, value)| (*lsn, value)).collect();
        prop_assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        prop_assert!(kept.iter().all(|(lsn, _)| by_lsn.contains_key(lsn)));
        for at in (0..230).map(Lsn).filter(|at| retained.check(*at).is_ok()) {
            let (expected, _) = value(page_key(), &versions, &clears, before, at);
            let (found, redone) = value(page_key(), &kept, &clears, before, at);
            prop_assert!(found == expected, "at {at}");
            prop_assert!(redone < RECORDS_PER_IMAGE, "{redone} records at {at}");
        }
        // Of each group of versions that the same reads see, one is kept, and what it stands on.
        let below = kept.iter().filter(|(lsn, _)| retained.seen_first_by(*lsn).is_some()).count();
        prop_assert!(below <= (retained.points.len() + 1) * RECORDS_PER_IMAGE);
    }
}
