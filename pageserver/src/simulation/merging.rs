//! Merges keep reads bounded, and up with ingest.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use object_store::{memory::InMemory, path::Path};
use protocol::TenantTimeline;
use wal_format::Lsn;

use super::{
    Access, FaultyStore, World,
    retention::{grow, is_right, merge_all},
    world::{forks, main_of},
};
use crate::{
    change::{Change, Value},
    engine::timeline_folder,
    key::Key,
    timeline::{OPEN_LAYER_AGE_MAX, OPEN_LAYER_BYTES_MAX, RECORDS_PER_IMAGE, runs_max},
};

#[tokio::test]
async fn merging_bounds_the_runs_and_what_a_read_redoes_however_long_the_history_is() {
    let mut world = World::new(11);
    world.template("base").await.expect("the store works");
    let main = main_of(&world.tenant("one", "base").await.expect("the name is free"));
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
    let mut world = World::new(14);
    world.template("base").await.expect("the store works");
    let main = main_of(&world.tenant("one", "base").await.expect("the name is free"));
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
    let mut world = World::new(16);
    world.template("base").await.expect("the store works");
    let main = main_of(&world.tenant("one", "base").await.expect("the name is free"));
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
