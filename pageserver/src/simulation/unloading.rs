//! Timelines that nobody uses leave memory, and nothing is different afterwards.

use super::{
    World,
    world::{forks, main_of},
};
use crate::{
    engine::{tenant_folder, timeline_folder},
    error::Error,
    timeline::Timeline,
};

/// All pages of a fork as they are now.
async fn pages(world: &World, timeline: &Timeline) -> Result<bytes::Bytes, Error> {
    timeline.pages(forks()[0], 0, 10, world.model.end(timeline.id()).lsn).await
}

#[tokio::test]
async fn a_timeline_that_nobody_uses_is_written_leaves_memory_and_is_loaded_again() {
    let (mut world, tenant) = World::with_tenant(1).await;
    let id = main_of(&tenant);
    for _ in 0..20 {
        world.write(id).await.expect("the store works");
    }
    let timeline = world.timeline(id).await.expect("it loads");
    let before = pages(&world, &timeline).await.expect("they are read");
    assert_eq!(timeline.remote_consistent_lsn(), timeline.origin().point.lsn);
    assert_eq!(world.idle().await, 0, "it was unloaded while somebody held it");
    drop(timeline);
    assert_eq!(world.idle().await, 2, "the timeline and its template's");
    assert_eq!(world.tenants.loaded().len(), 0);

    let timeline = world.tenants.timeline(id).await.expect("it loads");
    assert_eq!(timeline.last_record_lsn(), world.model.end(id).lsn, "nothing is received again");
    assert_eq!(pages(&world, &timeline).await.expect("they are read"), before);
}

#[tokio::test]
async fn an_ancestor_stays_for_as_long_as_a_branch_of_it_is_used() {
    let (mut world, tenant) = World::with_tenant(2).await;
    let main = main_of(&tenant);
    world.write(main).await.expect("the store works");
    let point = world.model.end(main);
    let branch = world.tenants.create_branch(tenant.id, "child", "main", point).await;
    let child = branch.expect("it is made").timeline;
    let child = world.tenants.timeline_as_stored(child).await.expect("it loads");
    assert_eq!(world.idle().await, 0);
    drop(child);
    assert_eq!(world.idle().await, 3, "the child, then its line");
}

#[tokio::test]
async fn one_process_stays_one_writer_however_often_it_unloads_a_timeline() {
    let (mut world, tenant) = World::with_tenant(3).await;
    let id = main_of(&tenant);
    for _ in 0..20 {
        world.write(id).await.expect("the store works");
        assert_eq!(world.idle().await, 2);
    }
    let listed = world.store.list_with_delimiter(Some(&timeline_folder(id))).await;
    let manifests = listed.expect("the store works").objects.len();
    assert!(manifests <= 5, "{manifests} manifests were left");
}

#[tokio::test]
async fn one_process_stays_one_writer_however_often_a_tenant_leaves_memory() {
    let (mut world, tenant) = World::with_tenant(4).await;
    let main = main_of(&tenant);
    world.write(main).await.expect("the store works");
    let point = world.model.end(main);
    world.timeline(main).await.expect("it loads").flush().await.expect("the store works");
    for number in 0..20 {
        assert!(world.idle().await < 3);
        let name = format!("branch-{number}");
        let branch = world.tenants.create_branch(tenant.id, &name, "main", point).await;
        branch.expect("the name is free");
    }
    // What is old is removed in the background.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let listed = world.store.list_with_delimiter(Some(&tenant_folder(tenant.id))).await;
    let manifests = listed.expect("the store works").objects.len();
    assert!(manifests < 12, "{manifests} manifests were left");
    let known = world.tenants.tenant("one").await.expect("it is there");
    assert_eq!(known.branches.len(), 21);
}
