//! Many timelines share a memory that is too small for what all of them write.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::{World, world::main_of};
use crate::{key::Key, limits::Limits};

const TIMELINES: usize = 1000;
/// Records of each.
const RECORDS: usize = 4;
const OPEN_LAYERS_BYTES_MAX: usize = 512 << 10;
/// More than any record of a history takes: some images.
const RECORD_BYTES_MAX: usize = 64 << 10;

#[tokio::test]
async fn a_thousand_timelines_with_a_little_wal_each_stay_within_their_memory() {
    let limits = Limits { open_layers_bytes_max: OPEN_LAYERS_BYTES_MAX, ..Limits::default() };
    let mut world = World::with_limits(Arc::new(InMemory::new()), 41, limits);
    tokio::spawn(Arc::clone(&world.tenants).work());
    world.template("base").await.expect("the store works");
    let tenant = world.tenant("one", "base").await.expect("the store works");
    let main = main_of(&tenant);
    world.write(main).await.expect("the store works");
    let point = world.model.end(main);
    let mut ids = Vec::new();
    for number in 0..TIMELINES {
        let name = format!("branch-{number}");
        let branch = world.tenants.create_branch(tenant.id, &name, "main", point).await;
        let id = branch.expect("the store works").timeline;
        world.model.add(id, Some(main), point);
        ids.push(id);
    }
    let (mut highest, mut written) = (0, 0);
    for _ in 0..RECORDS {
        for &id in &ids {
            let timeline = world.timeline(id).await.expect("it loads");
            timeline.ready_for_more().await.expect("it is not fenced");
            let before = timeline.memory_bytes();
            world.write(id).await.expect("the store works");
            written += timeline.memory_bytes().saturating_sub(before);
            highest = highest.max(world.tenants.open_layers().bytes());
        }
    }
    assert!(written > 4 * OPEN_LAYERS_BYTES_MAX, "only {written} bytes were written");
    assert!(highest < OPEN_LAYERS_BYTES_MAX + RECORD_BYTES_MAX, "{highest} bytes were in memory");
    for id in ids {
        let timeline = world.timeline(id).await.expect("it loads");
        let end = world.model.end(id).lsn;
        let state = timeline.scan(Key::MIN..Key::MAX, end).await.expect("nothing is missing");
        assert!(state.into_iter().eq(world.model.state(id, end)), "{id} differs");
    }
    world.tenants.shutdown().await;
    assert_eq!(world.tenants.open_layers().bytes(), 0, "something is counted that is written");
}
