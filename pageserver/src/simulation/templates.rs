//! The end of templates, while tenants are made from them by other pageservers.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, memory::InMemory};
use rand::Rng;

use super::{FaultyStore, World, how_many, world::main_of};
use crate::{error::Error, key::Key};

/// More of them with `OFFSHOOT_HISTORIES`.
const HISTORIES: u64 = 200;

#[tokio::test]
async fn a_tenant_made_while_its_template_is_deleted_elsewhere_has_all_its_history_or_is_refused() {
    let (mut made, mut deleted) = (0, 0);
    for seed in 0..how_many(HISTORIES) {
        println!("history {seed}");
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = Arc::new(FaultyStore::new(inner.clone()).pause(seed));
        let mut world = World::on(store, seed);
        let template = world.template("base").await.expect("the store works");
        let other = world.another("other");
        if world.random.random_bool(0.5) {
            // It knows the template, as it was.
            other.tenants.template("base").await.expect("the store works");
        }
        let head_start = world.random.random_range(0..40);
        let deleting = async {
            // Either may be the first to reach the store.
            for _ in 0..head_start {
                tokio::task::yield_now().await;
            }
            world.tenants.delete_template(template.id).await
        };
        let (child, gone) = tokio::join!(other.tenants.create_tenant("one", "base"), deleting);
        match (child, gone) {
            (Ok(child), Err(Error::Invalid(why))) => {
                made += 1;
                assert!(why.contains("one"), "{why}");
                world.learn(&child);
                let id = main_of(&child);
                let timeline = other.tenants.timeline(id).await.expect("it loads");
                let at = timeline.last_record_lsn();
                let found = timeline.scan(Key::MIN..Key::MAX, at).await.expect("all is there");
                assert!(found.into_iter().eq(world.model.state(id, at)));
                // Without it, the template goes.
                other.tenants.delete_tenant(child.id).await.expect("the store works");
                world.tenants.delete_template(template.id).await.expect("it has no children");
            }
            (Err(Error::Invalid(_) | Error::NotFound(_)), Ok(())) => deleted += 1,
            (Err(Error::Invalid(_)), Err(Error::Invalid(_))) => {
                // The one that was refused was seen before it knew.
                world.tenants.delete_template(template.id).await.expect("it has no children");
            }
            (child, gone) => panic!("{child:?}, {gone:?}"),
        }
        let left: Vec<_> = inner.list(None).try_collect().await.expect("the store works");
        assert!(left.is_empty(), "{left:?}");
        for tenants in [&world.tenants, &other.tenants] {
            let refused = tenants.create_tenant("two", "base").await;
            assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
        }
    }
    assert!(made > 0 && deleted > 0, "{made} were made, {deleted} templates deleted");
}

#[tokio::test]
async fn a_deletion_that_was_cut_off_leaves_a_template_that_is_read_and_can_be_deleted_again() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for operations in 0.. {
        let mut world = World::on(inner.clone(), 3);
        let template = world.template("base").await.expect("the store works");
        let tenant = world.tenant("one", "base").await.expect("the name is free");
        let failing = FaultyStore::new(inner.clone()).fail_after(operations, operations % 2 == 0);
        world.restart_on(Arc::new(failing));
        let cut_off = world.tenants.delete_template(template.id).await;
        world.restart_on(inner.clone());

        let id = main_of(&tenant);
        let timeline = world.timeline(id).await.expect("a child is never left alone");
        let at = timeline.last_record_lsn();
        let found = timeline.scan(Key::MIN..Key::MAX, at).await.expect("all is there");
        assert!(found.into_iter().eq(world.model.state(id, at)));
        let refused = world.tenants.delete_template(template.id).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        let two = world.tenants.create_tenant("two", "base").await.expect("it is open again");
        for tenant in [tenant.id, two.id] {
            world.tenants.delete_tenant(tenant).await.expect("the store works");
        }
        world.tenants.delete_template(template.id).await.expect("it has no children");
        let left: Vec<_> = inner.list(None).try_collect().await.expect("the store works");
        assert!(left.is_empty(), "{left:?}");
        if matches!(cut_off, Err(Error::Invalid(_))) {
            assert!(operations > 3, "nothing was cut off");
            return;
        }
    }
}
