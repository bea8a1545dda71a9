//! Crashes between any two operations of the object store, and a store that is gone for a while.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use object_store::{ObjectStore, memory::InMemory};
use protocol::TenantTimeline;
use wal_format::PAGE_BYTES;

use super::{
    FaultyStore, World,
    world::{forks, main_of},
};
use crate::{
    change::{Change, Value},
    clock,
    error::Error,
    key::Key,
    timeline::{OPEN_LAYER_BYTES_MAX, Timeline, Window},
};

/// What was acknowledged: branches by tenant and name, as long as nobody tried to change them.
type Acknowledged = BTreeMap<(String, String), TenantTimeline>;

#[tokio::test]
async fn a_crash_between_any_two_operations_loses_nothing_and_another_start_works() {
    let complete = FaultyStore::new(Arc::new(InMemory::new()));
    let mut world = World::on(Arc::new(complete.clone()), 1);
    tell(&mut world, "", &mut Acknowledged::new()).await.expect("the store works");
    let operations = complete.operations();
    assert!(operations > 40, "the story has only {operations} operations");

    for unseen in [false, true] {
        for until in 0..operations {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let store = FaultyStore::new(inner.clone()).fail_after(until, unseen);
            let mut world = World::on(Arc::new(store), 1);
            let mut acknowledged = Acknowledged::new();
            let told = tell(&mut world, "", &mut acknowledged).await;
            assert!(told.is_ok() || matches!(told, Err(Error::Unavailable(_))), "{told:?}");

            world.restart_on(inner);
            check(&world, &acknowledged).await;
            tell(&mut world, "-again", &mut acknowledged).await.expect("the store works");
            check(&world, &acknowledged).await;
        }
    }
}

/// Everything that a pageserver does to its store.
async fn tell(
    world: &mut World,
    suffix: &str,
    acknowledged: &mut Acknowledged,
) -> Result<(), Error> {
    let named = |name: &str| format!("{name}{suffix}");
    let (base, one, two) = (named("base"), named("one"), named("two"));
    world.template(&base).await?;
    let tenant = world.tenant(&one, &base).await?;
    let main = main_of(&tenant);
    acknowledged.insert((one.clone(), "main".to_owned()), main);
    for _ in 0..5 {
        world.write(main).await?;
    }
    world.timeline(main).await?.flush().await?;
    let point = world.model.points(main)[3];
    let dev = world.tenants.create_branch(tenant.id, "dev", "main", point).await?;
    world.model.add(dev.timeline, Some(main), point);
    acknowledged.insert((one.clone(), "dev".to_owned()), dev.timeline);
    for id in [dev.timeline, main] {
        world.write(id).await?;
        world.timeline(id).await?.flush().await?;
        world.write(id).await?;
        world.timeline(id).await?.flush().await?;
    }
    for _ in 0..4 {
        world.write(main).await?;
        world.timeline(main).await?.flush().await?;
    }
    let timeline = world.timeline(main).await?;
    assert!(timeline.compact().await?, "so many layers are to be merged");
    let point = world.model.points(main)[4];
    acknowledged.remove(&(one.clone(), "main".to_owned()));
    let (new, kept) = world.tenants.restore(tenant.id, "main", point, Some("old")).await?;
    world.model.add(new.timeline, Some(main), point);
    acknowledged.insert((one.clone(), new.name), new.timeline);
    acknowledged.insert((one.clone(), kept.name), kept.timeline);
    world.write(new.timeline).await?;
    world.timeline(new.timeline).await?.flush().await?;
    let window = Window { seconds: None, bytes: Some(0) };
    world.tenants.set_history(tenant.id, window).await?;
    let timeline = world.timeline(main).await?;
    world.tenants.retain(&timeline, clock::now()).await?;
    assert!(timeline.compact().await?, "all layers are below the cutoff");
    let gone = timeline.scan(Key::MIN..Key::MAX, point.lsn + 8).await;
    assert!(gone.is_err(), "it is below the cutoff");
    acknowledged.remove(&(one.clone(), "dev".to_owned()));
    world.tenants.delete_branch(tenant.id, "dev").await?;
    // The point at which it began is given up, too.
    world.tenants.retain(&timeline, clock::now()).await?;
    while timeline.compact().await? {}

    let tenant = world.tenant(&two, &base).await?;
    world.write(main_of(&tenant)).await?;
    world.timeline(main_of(&tenant)).await?.flush().await?;
    world.tenants.delete_tenant(tenant.id).await?;
    let again = world.tenant(&two, &base).await?;
    acknowledged.insert((two, "main".to_owned()), main_of(&again));
    Ok(())
}

/// Every tenant that is there is whole, and all that was acknowledged is there.
async fn check(world: &World, acknowledged: &Acknowledged) {
    let mut found = Acknowledged::new();
    for tenant in world.tenants.list().await.expect("the store works") {
        for branch in &tenant.branches {
            let id = branch.timeline;
            found.insert((tenant.name.clone(), branch.name.clone()), id);
            // What was made without being acknowledged is as its ancestor was.
            let (model_id, at) = match &branch.ancestor {
                Some(from) if !world.model.knows(id) => (from.timeline, from.point.lsn),
                _ => (id, world.model.end(id).lsn),
            };
            let timeline = world.timeline(id).await.expect("a listed timeline loads");
            let state = timeline.scan(Key::MIN..Key::MAX, at).await.expect("it can be read");
            assert!(state.into_iter().eq(world.model.state(model_id, at)), "{id} at {at}");
        }
    }
    for (name, id) in acknowledged {
        assert_eq!(found.get(name), Some(id), "{name:?} was acknowledged");
    }
}

#[tokio::test]
async fn while_the_store_is_gone_memory_is_served_and_afterwards_everything_goes_on() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let mut world = World::on(Arc::new(store.clone()), 2);
    world.template("base").await.expect("the store works");
    let tenant = world.tenant("one", "base").await.expect("the store works");
    let main = main_of(&tenant);
    for _ in 0..20 {
        world.write(main).await.expect("the store works");
    }
    let timeline = world.timeline(main).await.expect("it loads");
    timeline.flush().await.expect("the store works");
    let stored = timeline.remote_consistent_lsn();

    store.set_up(false);
    let mut in_memory = world.change(world.model.end(main).lsn);
    in_memory.puts = vec![(Key::CONTROL, Value::Image("new".into()))];
    world.model.apply(main, in_memory.clone());
    timeline.apply(in_memory);
    let end = timeline.last_record_lsn();
    assert_eq!(timeline.get(Key::CONTROL, end).await, Ok(Some("new".into())));
    // A template's block that this small cache does not hold.
    let scanned = timeline.scan(Key::MIN..Key::MAX, end).await;
    assert!(matches!(scanned, Err(Error::Unavailable(_))), "{scanned:?}");
    assert!(matches!(timeline.flush().await, Err(Error::Unavailable(_))));
    assert_eq!(timeline.remote_consistent_lsn(), stored);
    assert_eq!(timeline.ready_for_more().await, Ok(()));
    let refused = world.tenants.create_branch(tenant.id, "dev", "main", timeline.last_record());
    assert!(matches!(refused.await, Err(Error::Unavailable(_))));

    store.set_up(true);
    let mut stored = timeline.watch_remote_consistent_lsn();
    let caught_up = stored.wait_for(|lsn| *lsn == end);
    tokio::time::timeout(Duration::from_secs(120), caught_up)
        .await
        .expect("flushing goes on by itself")
        .expect("the timeline is there");
    let state = timeline.scan(Key::MIN..Key::MAX, end).await.expect("the store works");
    assert!(state.into_iter().eq(world.model.state(main, end)));
    let branch = world.tenants.create_branch(tenant.id, "dev", "main", timeline.last_record());
    branch.await.expect("the store works");
}

/// A new tenant's timeline, whose store is gone once it is loaded.
async fn without_a_store() -> (FaultyStore, World, Arc<Timeline>) {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let mut world = World::on(Arc::new(store.clone()), 2);
    world.template("base").await.expect("the store works");
    let main = main_of(&world.tenant("one", "base").await.expect("the store works"));
    let timeline = world.timeline(main).await.expect("it loads");
    store.set_up(false);
    (store, world, timeline)
}

/// The store is back: a timeline that takes no more WAL takes it again.
async fn goes_on_with(store: &FaultyStore, timeline: &Timeline) {
    store.set_up(true);
    let goes_on = tokio::time::timeout(Duration::from_secs(120), timeline.ready_for_more());
    goes_on.await.expect("there is room again").expect("nobody fenced it");
}

#[tokio::test]
async fn ingest_pauses_at_a_bound_while_the_store_is_gone_and_goes_on_by_itself() {
    let (store, _world, timeline) = without_a_store().await;
    // One buffer stands for all images: what counts is how many bytes the engine takes them for.
    let image = Value::Image(vec![7; PAGE_BYTES].into());
    let mut taken = 0;
    while timeline.ready_for_more().now_or_never().is_some() {
        let puts = (0..1000).map(|block| (Key::page(forks()[0].block(block)), image.clone()));
        let start = timeline.last_record_lsn();
        let change = Change { start, end: start + 64, puts: puts.collect(), ..Change::default() };
        timeline.apply(change);
        taken += 1000 * PAGE_BYTES;
        assert!(taken < 8 * OPEN_LAYER_BYTES_MAX, "ingest took {taken} bytes without a store");
    }
    goes_on_with(&store, &timeline).await;
}

#[tokio::test]
async fn a_layer_ends_after_a_gibibyte_of_wal_however_little_is_kept_of_it() {
    let (store, _world, timeline) = without_a_store().await;
    let (key, value) = (Key::two_phase(7), |number: u32| Bytes::from(number.to_string()));
    let mut ends = Vec::new();
    while timeline.ready_for_more().now_or_never().is_some() {
        let start = timeline.last_record_lsn();
        let end = start + ((1 << 30) - 8);
        let puts = vec![(key, Value::Image(value(ends.len() as u32)))];
        timeline.apply(Change { start, end, puts, ..Change::default() });
        ends.push(end);
        assert!(ends.len() <= 6, "three layers have less than two gibibytes each");
    }
    goes_on_with(&store, &timeline).await;
    for (number, end) in (0..).zip(ends) {
        assert_eq!(timeline.get(key, end).await, Ok(Some(value(number))));
    }
}
