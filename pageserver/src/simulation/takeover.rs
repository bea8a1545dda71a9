//! Another writer's manifest comes between loading a timeline and its first own one.

use std::sync::Arc;

use object_store::{ObjectStore, memory::InMemory};
use protocol::TenantTimeline;

use super::{World, world::main_of};
use crate::{error::Error, key::Key, tenants::Tenant};

/// A pageserver with a record that is not stored, and one that came later and knows the same WAL.
async fn two_worlds() -> (World, World, Tenant) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut old = World::on(store.clone(), 31);
    let template = old.template("base").await.expect("the store works");
    let tenant = old.tenant("one", "base").await.expect("the name is free");
    let mut new = World::on(store, 32);
    new.model.copy(&old.model, main_of(&template));
    new.learn(&tenant);
    for _ in 0..6 {
        write_both(&mut old, &mut new, main_of(&tenant)).await;
    }
    (old, new, tenant)
}

/// The same record comes to both.
async fn write_both(old: &mut World, new: &mut World, id: TenantTimeline) {
    let change = old.change(old.model.end(id).lsn);
    for world in [old, new] {
        let timeline = world.timeline(id).await.expect("the store works");
        world.model.apply(id, change.clone());
        timeline.apply(change.clone());
    }
}

async fn assert_right(world: &World, id: TenantTimeline) {
    let timeline = world.timeline(id).await.expect("it loads");
    let end = timeline.last_record_lsn();
    assert_eq!(end, world.model.end(id).lsn);
    let state = timeline.scan(Key::MIN..Key::MAX, end).await.expect("nothing is missing");
    assert!(state.into_iter().eq(world.model.state(id, end)));
}

#[tokio::test]
async fn a_manifest_that_lands_after_another_start_delays_the_new_pageserver_and_does_not_fence_it()
{
    let (mut old, mut new, tenant) = two_worlds().await;
    let main = main_of(&tenant);
    let early = new.timeline(main).await.expect("it loads");
    let point = new.model.points(main)[3];
    let dev = new.tenants.create_branch(tenant.id, "dev", "main", point).await;
    let dev = dev.expect("the name is free").timeline;
    new.model.add(dev, Some(main), point);
    new.write(dev).await.expect("the store works");
    let child = new.timeline(dev).await.expect("it loads");

    let late = old.timeline(main).await.expect("it loads");
    late.flush().await.expect("the store works");
    assert_eq!(early.flush().await, Err(Error::ShuttingDown));
    assert!(early.stopped().is_cancelled());
    assert!(child.stopped().is_cancelled(), "it reads what was loaded too early");

    assert_right(&new, main).await;
    assert_right(&new, dev).await;
    let again = new.timeline(main).await.expect("it loads");
    assert!(!Arc::ptr_eq(&early, &again));
    write_both(&mut old, &mut new, main).await;
    again.flush().await.expect("the newer one goes on");
    new.timeline(dev).await.expect("it loads").flush().await.expect("its branch goes on, too");

    // The older one has written, and stays fenced.
    for _ in 0..2 {
        let fenced = old.timeline(main).await.expect("it is loaded").flush().await;
        assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    }
    write_both(&mut old, &mut new, main).await;
    again.flush().await.expect("the newer one goes on");
    assert_right(&new, main).await;
    new.restart();
    assert_right(&new, main).await;
    assert_right(&new, dev).await;
}

#[tokio::test]
async fn who_unloaded_a_timeline_does_not_take_it_from_who_came_meanwhile() {
    let (old, mut new, tenant) = two_worlds().await;
    let main = main_of(&tenant);
    assert_eq!(old.idle().await, 2, "the timeline, which was written, and its template's");
    let early = new.timeline(main).await.expect("it is loaded").flush().await;
    assert_eq!(early, Err(Error::ShuttingDown));
    for _ in 0..2 {
        new.write(main).await.expect("the store works");
        new.timeline(main).await.expect("it loads").flush().await.expect("the newer one has it");
        let moved = old.timeline(main).await.map(|timeline| timeline.id());
        assert!(matches!(moved, Err(Error::Moved { .. })), "{moved:?}");
    }
    assert_right(&new, main).await;
}
