//! Merges keep reads bounded, and up with ingest.

use std::sync::{Arc, atomic::Ordering};

use super::{
    World,
    retention::{grow, is_right, merge_all},
    world::{forks, main_of},
};
use crate::{
    key::Key,
    timeline::{RECORDS_PER_IMAGE, runs_max},
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
