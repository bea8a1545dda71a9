//! Merges keep reads bounded, and up with ingest.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use object_store::{memory::InMemory, path::Path};
use protocol::TenantTimeline;
use wal_format::{Fork, Lsn, Relation, RelationFork};

use super::{
    Access, FaultyStore, World,
    retention::{NOTHING, grow, is_right, merge_all},
    world::{forks, main_of},
};
use crate::{
    cache::Cache,
    change::{Change, Value},
    clock,
    engine::{layer_path, timeline_folder},
    key::Key,
    layer::{Clear, reader::Layer},
    manifest::{Sequence, TimelineManifest},
    timeline::{OPEN_LAYER_AGE_MAX, OPEN_LAYER_BYTES_MAX, RECORDS_PER_IMAGE, runs_max},
};

#[tokio::test]
async fn merging_bounds_the_runs_and_what_a_read_redoes_however_long_the_history_is() {
    let (mut world, tenant) = World::with_tenant(11).await;
    let main = main_of(&tenant);
    for _ in 0..12 {
        grow(&mut world, main, 5).await;
        let timeline = world.timeline(main).await.expect("it loads");
        merge_all(&timeline).await;
        assert!(timeline.runs() <= runs_max(timeline.stored_bytes()));
    }
    let timeline = world.timeline(main).await.expect("it loads");
    let written = timeline.bytes_written();
    assert!(written.merged > written.flushed, "{written:?}");
    for point in world.model.points(main).into_iter().step_by(17) {
        assert!(is_right(&world, main, point.lsn).await, "at {}", point.lsn);
        let key = Key::page(forks()[0].block(3));
        let before = world.redo.applied.load(Ordering::Relaxed);
        timeline.get(key, point.lsn).await.expect("the store works");
        let redone = world.redo.applied.load(Ordering::Relaxed) - before;
        assert!(redone < RECORDS_PER_IMAGE * timeline.runs(), "{redone} records were redone");
    }
}

#[tokio::test]
async fn ingest_waits_while_merges_do_not_keep_up_and_goes_on_afterwards() {
    let (mut world, tenant) = World::with_tenant(14).await;
    let main = main_of(&tenant);
    grow(&mut world, main, 60).await;
    let timeline = world.timeline(main).await.expect("it loads");
    assert_eq!(timeline.runs(), 60);
    assert!(!timeline.is_behind(), "nobody merges: nobody is waited for");

    let working = tokio::spawn(Arc::clone(&world.tenants).work());
    while !timeline.is_behind() {
        tokio::task::yield_now().await;
    }
    timeline.ready_for_more().await.expect("it is neither fenced nor stopped");
    assert!(!timeline.is_behind());
    while timeline.merge_due().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(timeline.runs() <= runs_max(timeline.stored_bytes()));
    world.tenants.shutdown().await;
    working.await.expect("it ends with the engine");
}

#[tokio::test]
async fn a_tenant_with_much_to_merge_does_not_keep_another_waiting() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let mut world = World::on(Arc::new(store.clone()), 15);
    world.template("base").await.expect("the store works");
    let mut mains = Vec::new();
    for (name, flushes) in [("large", 60), ("small", 5)] {
        let main = main_of(&world.tenant(name, "base").await.expect("the name is free"));
        grow(&mut world, main, flushes).await;
        mains.push(main);
    }
    store.take_accesses();
    let working = tokio::spawn(Arc::clone(&world.tenants).work());
    for main in &mains {
        let timeline = world.timeline(*main).await.expect("it loads");
        while timeline.merge_due().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert!(timeline.bytes_written().merged > 0, "nothing was due");
    }
    world.tenants.shutdown().await;
    working.await.expect("it ends with the engine");
    let accesses = store.take_accesses();
    let last_write = |main: TenantTimeline| {
        let folder = timeline_folder(main);
        let is_own = |(access, path): &(Access, _)| {
            *access == Access::Write && Path::prefix_matches(path, &folder)
        };
        accesses.iter().rposition(is_own).expect("it was merged")
    };
    assert!(last_write(mains[1]) < last_write(mains[0]), "the small one came last");
}

#[tokio::test]
async fn a_timeline_that_catches_up_merges_afterwards() {
    let (mut world, tenant) = World::with_tenant(16).await;
    let main = main_of(&tenant);
    grow(&mut world, main, 5).await;
    let timeline = world.timeline(main).await.expect("it loads");
    assert!(timeline.merge_due().is_some());
    let megabyte = Value::Image(Bytes::from(vec![0; 1 << 20]));
    for _ in 0..=OPEN_LAYER_BYTES_MAX >> 20 {
        let start = timeline.last_record_lsn();
        let puts = vec![(Key::CONTROL, megabyte.clone())];
        timeline.apply(Change { start, end: Lsn(start.0 + 64), puts, ..Change::default() });
    }
    timeline.flush().await.expect("the store works");
    assert_eq!(timeline.merge_due(), None, "the layer was full before it was old");
    assert!(!timeline.is_merged());
    tokio::time::pause();
    tokio::time::advance(OPEN_LAYER_AGE_MAX).await;
    assert!(timeline.merge_due().is_some());
}

/// The next record of a timeline, on both sides.
async fn write(world: &mut World, id: TenantTimeline, change: Change) {
    let timeline = world.timeline(id).await.expect("it loads");
    let start = world.model.end(id).lsn;
    let change = Change { start, end: Lsn(start.0 + 64), ..change };
    world.model.apply(id, change.clone());
    timeline.apply(change);
    timeline.flush().await.expect("the store works");
}

fn pages_of(fork: RelationFork, byte: u8) -> Change {
    let image = |block| (Key::page(fork.block(block)), Value::Image(vec![byte; 8192].into()));
    Change { puts: (0..4).map(image).collect(), ..Change::default() }
}

fn drop_of(fork: RelationFork) -> Change {
    let clears = vec![Key::relation_pages(fork.relation), Key::relation_sizes(fork.relation)];
    Change { clears, ..Change::default() }
}

/// The clears of all layers that a timeline's newest manifest names.
async fn stored_clears(world: &World, id: TenantTimeline) -> Vec<Clear> {
    let opened = Sequence::open(world.store.clone(), timeline_folder(id)).await;
    let manifest: TimelineManifest = opened.expect("it is whole").1.expect("it is there");
    let mut clears = Vec::new();
    for summary in manifest.layers {
        let path = layer_path(id, summary.name);
        let layer = Layer::new(summary, path, world.store.clone(), Arc::new(Cache::new(0, None)));
        clears.extend_from_slice(layer.contents().await.expect("it is whole").clears());
    }
    clears
}

#[tokio::test]
async fn a_clear_goes_with_what_it_hid_where_no_ancestor_has_its_keys() {
    let (mut world, tenant) = World::with_tenant(17).await;
    let main = main_of(&tenant);
    let own = |number| Relation { tablespace: 1663, database: 5, number }.fork(Fork::Main);
    let (of_parent, of_child) = (own(500), own(501));
    write(&mut world, main, pages_of(of_parent, 1)).await;
    let point = world.model.end(main);
    let dev = world.tenants.create_branch(tenant.id, "dev", "main", point).await;
    let dev = dev.expect("the name is free").timeline;
    world.model.add(dev, Some(main), point);

    for round in 0..3 {
        write(&mut world, dev, pages_of(of_child, round)).await;
        write(&mut world, dev, drop_of(of_child)).await;
    }
    // What the template has, and what the parent has.
    write(&mut world, dev, drop_of(forks()[0])).await;
    write(&mut world, dev, drop_of(of_parent)).await;
    let before = stored_clears(&world, dev).await.len();
    assert_eq!(before, 3 * 2 + 4);

    let timeline = world.timeline(dev).await.expect("it loads");
    merge_all(&timeline).await;
    let points = world.model.points(dev);
    for point in points.iter().filter(|at| at.lsn >= point.lsn) {
        assert!(is_right(&world, dev, point.lsn).await, "at {}", point.lsn);
    }
    world.tenants.set_history(tenant.id, NOTHING).await.expect("the store works");
    world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
    merge_all(&timeline).await;
    let left = stored_clears(&world, dev).await;
    let hides = |fork: RelationFork| {
        let pages = Key::relation_pages(fork.relation);
        left.iter().any(|clear| clear.overlaps(&pages))
    };
    assert_eq!([of_child, of_parent, forks()[0]].map(hides), [false, true, true], "{left:?}");
    let end = world.model.end(dev).lsn;
    assert!(is_right(&world, dev, end).await);
    world.restart();
    assert!(is_right(&world, dev, end).await);
    // Later versions begin from nothing, as they did.
    let record = Value::Record { will_init: false, bytes: Bytes::from_static(b"again") };
    let puts = vec![(Key::page(of_child.block(2)), record.clone())];
    write(&mut world, dev, Change { puts, ..Change::default() }).await;
    let puts = vec![(Key::page(of_parent.block(2)), record)];
    write(&mut world, dev, Change { puts, ..Change::default() }).await;
    assert!(is_right(&world, dev, world.model.end(dev).lsn).await);
}
