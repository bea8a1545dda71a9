//! What a scrub finds, and what it leaves alone.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use protocol::TenantTimeline;

use super::{FaultyStore, World, world::main_of};
use crate::{
    engine::{layers_folder, timeline_folder},
    error::Error,
    key::Key,
    scrub::{Fault, Removal, Report, scrub},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn world_with_layers(store: Arc<dyn ObjectStore>) -> (World, TenantTimeline) {
    let mut world = World::on(store, 21);
    world.template("base").await.expect("the store works");
    let main = main_of(&world.tenant("one", "base").await.expect("the name is free"));
    for _ in 0..9 {
        world.write(main).await.expect("the store works");
        let timeline = world.timeline(main).await.expect("it loads");
        timeline.flush().await.expect("the store works");
    }
    let timeline = world.timeline(main).await.expect("it loads");
    while timeline.compact().await.expect("the store works") {}
    (world, main)
}

async fn look(world: &World) -> Report {
    let scrubbed = scrub(world.store.clone(), Removal::default(), SystemTime::now());
    scrubbed.await.expect("the store works")
}

/// Removes what is unnamed, whatever its age.
async fn sweep(world: &World) -> Report {
    let removal = Removal { older_than: Some(DAY) };
    let later = SystemTime::now() + 2 * DAY;
    scrub(world.store.clone(), removal, later).await.expect("the store works")
}

async fn layers(world: &World, id: TenantTimeline) -> Vec<Path> {
    let folder = layers_folder(id);
    let listed = world.store.list(Some(&folder)).map_ok(|object| object.location);
    listed.try_collect().await.expect("the store works")
}

fn faults(report: &Report) -> Vec<(Fault, &str)> {
    report.findings.iter().map(|found| (found.fault, found.object.as_str())).collect()
}

#[tokio::test]
async fn a_store_that_is_whole_gives_nothing_to_say_and_every_layer_was_read() {
    let (world, main) = world_with_layers(Arc::new(InMemory::new())).await;
    let report = look(&world).await;
    assert_eq!(faults(&report), []);
    assert_eq!(report.tenants, 2);
    let own = layers(&world, main).await.len() as u64;
    assert!(report.layers > own, "the template's layers were read too");
}

#[tokio::test]
async fn every_damaged_and_every_missing_layer_is_found_and_left_alone() {
    let (world, main) = world_with_layers(Arc::new(InMemory::new())).await;
    for path in layers(&world, main).await {
        let whole = world.store.get(&path).await.expect("it is there").bytes().await;
        let whole = whole.expect("it is there");
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 1;
            world.store.put(&path, damaged.into()).await.expect("the store works");
            assert_eq!(faults(&sweep(&world).await), [(Fault::Damaged, path.as_ref())]);
        }
        world.store.delete(&path).await.expect("the store works");
        assert_eq!(faults(&sweep(&world).await), [(Fault::Missing, path.as_ref())]);
        world.store.put(&path, whole.into()).await.expect("the store works");
    }
    assert_eq!(faults(&look(&world).await), []);
}

#[tokio::test]
async fn unnamed_objects_are_removed_only_when_asked_and_only_when_old() {
    let (mut world, main) = world_with_layers(Arc::new(InMemory::new())).await;
    let folder = timeline_folder(main);
    let unnamed = [
        folder
            .clone()
            .join("layers")
            .join("delta-0000000000000001-0000000000000002-0000000000000003"),
        Path::from("tenants/00000000000000000000000000000001/manifest-00000000000000000001"),
    ];
    // What safekeepers keep beside the layers is theirs.
    let wal = folder.join("wal").join("0000000000000001-0000000000000002");
    for path in unnamed.iter().chain([&wal]) {
        world.store.put(path, "x".into()).await.expect("the store works");
    }
    let expected = || unnamed.iter().map(|path| (Fault::Unnamed, path.as_ref()));
    let mut expected: Vec<_> = expected().collect();
    expected.sort_unstable();
    for _ in 0..2 {
        let removal = Removal { older_than: Some(DAY) };
        let young = scrub(world.store.clone(), removal, SystemTime::now()).await;
        let young = young.expect("the store works");
        assert_eq!(faults(&young), expected);
        assert!(young.findings.iter().all(|found| !found.removed));
    }
    assert!(sweep(&world).await.findings.iter().all(|found| found.removed));
    assert_eq!(faults(&look(&world).await), []);
    assert!(world.store.head(&wal).await.is_ok());
    world.restart();
    let timeline = world.timeline(main).await.expect("it loads");
    let end = timeline.last_record_lsn();
    let state = timeline.scan(Key::MIN..Key::MAX, end).await.expect("nothing is missing");
    assert!(state.into_iter().eq(world.model.state(main, end)));
}

#[tokio::test]
async fn a_tenant_whose_name_is_lost_is_told_of_and_kept() {
    let (mut world, main) = world_with_layers(Arc::new(InMemory::new())).await;
    let name = Path::from("names/one");
    let lost = world.store.get(&name).await.expect("it is there").bytes().await;
    world.store.delete(&name).await.expect("the store works");
    let swept = sweep(&world).await;
    let layers = layers(&world, main).await;
    assert!(swept.findings.len() > layers.len() && layers.len() > 1);
    assert!(swept.findings.iter().all(|found| found.fault == Fault::Unnamed && !found.removed));
    world.store.put(&name, lost.expect("it is there").into()).await.expect("the store works");
    assert_eq!(faults(&look(&world).await), []);
    world.restart();
    assert!(world.timeline(main).await.is_ok());
}

#[tokio::test]
async fn what_a_crash_leaves_is_unnamed_and_nothing_else_is_wrong() {
    for until in 0.. {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (mut world, main) = world_with_layers(inner.clone()).await;
        let store = FaultyStore::new(inner.clone()).fail_after(until, false);
        world.restart_on(Arc::new(store));
        let told = tell(&mut world, main).await;
        assert!(told.is_ok() || matches!(told, Err(Error::Unavailable(_))), "{told:?}");
        world.restart_on(inner);
        let found = sweep(&world).await;
        assert!(found.findings.iter().all(|found| found.fault == Fault::Unnamed), "{found:?}");
        assert_eq!(faults(&look(&world).await), []);
        let timeline = world.timeline(main).await.expect("it loads");
        let end = timeline.last_record_lsn();
        let state = timeline.scan(Key::MIN..Key::MAX, end).await.expect("nothing is missing");
        assert!(state.into_iter().eq(world.model.state(main, end)));
        if told.is_ok() {
            assert!(until > 20, "the story has only {until} operations");
            return;
        }
    }
}

/// Flushes and merges.
async fn tell(world: &mut World, main: TenantTimeline) -> Result<(), Error> {
    for _ in 0..4 {
        world.write(main).await?;
        world.timeline(main).await?.flush().await?;
    }
    let timeline = world.timeline(main).await?;
    assert!(timeline.compact().await?, "so many layers are to be merged");
    while timeline.compact().await? {}
    Ok(())
}
