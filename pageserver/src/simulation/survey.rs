//! What is to be done for timelines that nobody loads is done, and costs little where there is
//! nothing.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use object_store::{ObjectStore, memory::InMemory};
use protocol::{TenantId, TenantTimeline};
use wal_format::Lsn;

use super::{
    FaultyStore, World,
    retention::{NOTHING, grow, is_right, merge_all},
    world::main_of,
};
use crate::{
    clock,
    engine::layers_folder,
    error::Error,
    scrub::{Fault, Removal, scrub},
    timeline::Window,
};

const HOUR: i64 = 3_600_000_000;

async fn stored_bytes(world: &World, id: TenantTimeline) -> u64 {
    let listed = world.store.list(Some(&layers_folder(id)));
    let objects: Vec<_> = listed.try_collect().await.expect("the store works");
    objects.iter().map(|object| object.size).sum()
}

async fn survey(world: &World, at: i64) -> usize {
    world.tenants.survey(|| at, Duration::ZERO).await.expect("the store works")
}

/// A tenant with much history, and a branch in the middle of it. Nothing is loaded.
async fn idle_tenant(world: &mut World) -> (TenantId, TenantTimeline, TenantTimeline, Lsn) {
    world.template("base").await.expect("the store works");
    let tenant = world.tenant("one", "base").await.expect("the name is free");
    let main = main_of(&tenant);
    grow(world, main, 10).await;
    let point = world.model.points(main)[30];
    let dev = world.tenants.create_branch(tenant.id, "dev", "main", point).await;
    let dev = dev.expect("the name is free").timeline;
    world.model.add(dev, Some(main), point);
    grow(world, main, 10).await;
    let timeline = world.timeline(main).await.expect("it loads");
    merge_all(&timeline).await;
    drop(timeline);
    world.idle().await;
    assert_eq!(world.tenants.loaded().len(), 0);
    (tenant.id, main, dev, point.lsn)
}

fn written_ones(world: &World) -> usize {
    world.tenants.loaded().iter().filter(|timeline| !timeline.is_read_only()).count()
}

#[tokio::test]
async fn history_that_left_the_window_goes_though_nobody_loads_the_timeline() {
    let mut world = World::new(21);
    let (tenant, main, dev, point) = idle_tenant(&mut world).await;
    let all = stored_bytes(&world, main).await;
    assert_eq!(survey(&world, clock::now()).await, 0, "a week is kept");
    assert_eq!(stored_bytes(&world, main).await, all);

    world.tenants.set_history(tenant, NOTHING).await.expect("the store works");
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        let worked_on = survey(&world, clock::now()).await;
        assert_eq!(worked_on, usize::from(!restart), "what is done is not done again");
        assert_eq!(written_ones(&world), 0, "it stayed in memory");
    }
    let left = stored_bytes(&world, main).await;
    assert!(left * 2 < all, "{all} bytes became {left}");
    let end = world.model.end(main).lsn;
    assert!(is_right(&world, main, end).await);
    assert!(is_right(&world, dev, point).await);
    let timeline = world.timeline(main).await.expect("it loads");
    assert_eq!(timeline.retained().cutoff_lsn(), end);
    assert_eq!(timeline.retained().points, [point]);
}

#[tokio::test]
async fn what_a_branch_kept_goes_after_the_branch_though_nobody_loads_its_parent() {
    let mut world = World::new(22);
    let (tenant, main, _, _) = idle_tenant(&mut world).await;
    world.tenants.set_history(tenant, NOTHING).await.expect("the store works");
    assert_eq!(survey(&world, clock::now()).await, 1);
    let two_states = stored_bytes(&world, main).await;
    world.tenants.delete_branch(tenant, "dev").await.expect("it has no children");
    assert_eq!(survey(&world, clock::now()).await, 1);
    assert!(stored_bytes(&world, main).await < two_states);
    assert!(is_right(&world, main, world.model.end(main).lsn).await);
}

#[tokio::test]
async fn a_tenant_with_nothing_to_do_is_not_looked_at_again_before_it_may_have() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let mut world = World::on(Arc::new(store.clone()), 23);
    let (tenant, main, ..) = idle_tenant(&mut world).await;
    let window = Window { seconds: Some(2 * 3600), bytes: None };
    world.tenants.set_history(tenant, window).await.expect("the store works");
    world.restart();
    let now = clock::now();
    assert_eq!(survey(&world, now).await, 0);
    store.take_accesses();
    assert_eq!(survey(&world, now + HOUR).await, 0);
    assert_eq!(store.take_accesses().len(), 0, "something was asked for");
    assert_eq!(survey(&world, now + 3 * HOUR).await, 1);
    assert!(store.take_accesses().len() > 5);

    // Nor again afterwards, until somebody writes.
    assert_eq!(survey(&world, now + 4 * HOUR).await, 0);
    store.take_accesses();
    assert_eq!(survey(&world, now + 400 * HOUR).await, 0);
    assert_eq!(store.take_accesses().len(), 0, "something was asked for");
    grow(&mut world, main, 3).await;
    world.idle().await;
    assert_eq!(survey(&world, now + 400 * HOUR).await, 1);
}

#[tokio::test]
async fn merges_that_a_restart_left_undone_are_made_though_nobody_loads_the_timeline() {
    let (mut world, tenant) = World::with_tenant(24).await;
    let main = main_of(&tenant);
    grow(&mut world, main, 6).await;
    let runs = world.timeline(main).await.expect("it loads").runs();
    world.restart();
    assert_eq!(survey(&world, clock::now()).await, 1);
    assert_eq!(written_ones(&world), 0, "it stayed in memory");
    let timeline = world.timeline(main).await.expect("it loads");
    assert!(timeline.runs() < runs && timeline.is_merged());
    assert!(is_right(&world, main, world.model.end(main).lsn).await);
}

#[tokio::test]
async fn a_tenant_is_surveyed_by_its_owner_alone() {
    let mut world = World::new(25);
    let (tenant, main, ..) = idle_tenant(&mut world).await;
    world.tenants.set_history(tenant, NOTHING).await.expect("the store works");
    let all = stored_bytes(&world, main).await;
    let mut other = world.another("other");
    world.swap(&mut other);
    for _ in 0..2 {
        assert_eq!(survey(&world, clock::now()).await, 0);
    }
    assert_eq!(stored_bytes(&world, main).await, all);
    world.take(tenant, &[]).await.expect("the store works");
    assert_eq!(survey(&world, clock::now()).await, 1, "it was taken since");
    assert!(stored_bytes(&world, main).await < all);
    world.swap(&mut other);
    assert_eq!(survey(&world, clock::now()).await, 0);
    world.swap(&mut other);
    assert!(is_right(&world, main, world.model.end(main).lsn).await);
}

#[tokio::test]
async fn a_timeline_that_somebody_uses_is_left_to_them() {
    let mut world = World::new(26);
    let (tenant, main, ..) = idle_tenant(&mut world).await;
    let timeline = world.timeline(main).await.expect("it loads");
    world.tenants.set_history(tenant, NOTHING).await.expect("the store works");
    assert_eq!(survey(&world, clock::now()).await, 0);
    assert!(!timeline.stopped().is_cancelled());
    assert!(timeline.retained().is_everything());
    drop(timeline);
    world.idle().await;
    assert_eq!(survey(&world, clock::now()).await, 1);
}

/// An idle tenant on a store that fails after so many operations, unseen or not; `None`: never.
async fn surveyed_until(fails: Option<(i64, bool)>) -> i64 {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut world = World::on(inner.clone(), 27);
    let (tenant, main, dev, point) = idle_tenant(&mut world).await;
    world.tenants.set_history(tenant, NOTHING).await.expect("the store works");
    let store = FaultyStore::new(inner.clone());
    if let Some((until, unseen)) = fails {
        store.fail_in(until, unseen);
    }
    world.restart_on(Arc::new(store.clone()));
    let told = world.tenants.survey(clock::now, Duration::ZERO).await;
    assert!(told.is_ok() || matches!(told, Err(Error::Unavailable(_))), "{told:?}");
    let operations = store.operations();

    world.restart_on(inner.clone());
    survey(&world, clock::now()).await;
    assert_eq!(survey(&world, clock::now()).await, 0);
    assert_eq!(written_ones(&world), 0);
    let end = world.model.end(main).lsn;
    assert!(is_right(&world, main, end).await && is_right(&world, dev, point).await);
    let timeline = world.timeline(main).await.expect("it loads");
    assert_eq!(timeline.retained().cutoff_lsn(), end);
    let found = scrub(inner, Removal::default(), std::time::SystemTime::now()).await;
    let found = found.expect("the store works").findings;
    assert!(found.iter().all(|found| found.fault == Fault::Unnamed), "{found:?}");
    operations
}

#[tokio::test]
async fn a_survey_that_a_crash_cut_off_anywhere_is_finished_by_the_next() {
    let operations = surveyed_until(None).await;
    assert!(operations > 10, "a survey has only {operations} operations");
    for until in 0..operations {
        for unseen in [false, true] {
            surveyed_until(Some((until, unseen))).await;
        }
    }
}
