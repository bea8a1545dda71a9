//! The end of history: what is given up goes, what somebody may read stays.

use std::sync::Arc;

use object_store::memory::InMemory;
use protocol::TenantTimeline;
use wal_format::Lsn;

use super::{FaultyStore, World, world::main_of};
use crate::{
    clock,
    error::Error,
    key::Key,
    tenants::Beginning,
    timeline::{Timeline, Window},
};

pub const NOTHING: Window = Window { seconds: None, bytes: Some(0) };

/// Layers of eight records each.
pub async fn grow(world: &mut World, id: TenantTimeline, flushes: usize) {
    for _ in 0..flushes {
        for _ in 0..8 {
            world.write(id).await.expect("the store works");
        }
        world.timeline(id).await.expect("it loads").flush().await.expect("the store works");
    }
}

pub async fn merge_all(timeline: &Arc<Timeline>) {
    while timeline.compact().await.expect("the store works") {}
}

/// Whether a read gives what the model has.
pub async fn is_right(world: &World, id: TenantTimeline, at: Lsn) -> bool {
    let timeline = world.timeline(id).await.expect("it loads");
    let found = timeline.scan(Key::MIN..Key::MAX, at).await;
    found.is_ok_and(|found| found.into_iter().eq(world.model.state(id, at)))
}

#[tokio::test]
async fn what_a_window_leaves_behind_is_removed_but_for_where_branches_begin() {
    let (mut world, tenant) = World::with_tenant(12).await;
    let main = main_of(&tenant);
    grow(&mut world, main, 20).await;
    let point = world.model.points(main)[70];
    let dev = world.tenants.create_branch(tenant.id, "dev", "main", point).await;
    let dev = dev.expect("the name is free").timeline;
    world.model.add(dev, Some(main), point);
    grow(&mut world, main, 20).await;
    let timeline = world.timeline(main).await.expect("it loads");
    merge_all(&timeline).await;
    let all = timeline.stored_bytes();

    world.tenants.set_history(tenant.id, NOTHING).await.expect("the store works");
    world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
    let end = timeline.last_record_lsn();
    assert_eq!(timeline.retained().cutoff_lsn(), end);
    assert_eq!(timeline.retained().points, [point.lsn]);
    merge_all(&timeline).await;
    let two_states = timeline.stored_bytes();
    assert!(two_states * 2 < all, "{all} bytes became {two_states}");
    assert_eq!(timeline.runs(), 1);
    assert!(is_right(&world, main, end).await);
    assert!(is_right(&world, dev, point.lsn).await);
    let gone = Error::Gone { asked: Lsn(end.0 - 8), oldest: end };
    assert_eq!(timeline.get(Key::CONTROL, Lsn(end.0 - 8)).await, Err(gone.clone()));
    assert_eq!(timeline.round_down(Lsn(end.0 - 8)).await, Err(gone));
    let refused = world.tenants.create_branch(tenant.id, "late", "main", point).await;
    assert_eq!(refused, Err(Error::Gone { asked: point.lsn, oldest: end }));

    // With the branch, the state at its point goes; both are found again after a restart.
    world.restart();
    assert!(is_right(&world, main, end).await);
    assert!(is_right(&world, dev, point.lsn).await);
    world.tenants.delete_branch(tenant.id, "dev").await.expect("it has no children");
    let timeline = world.timeline(main).await.expect("it loads");
    world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
    assert_eq!(timeline.retained().points, []);
    merge_all(&timeline).await;
    assert!(timeline.stored_bytes() < two_states);
    assert!(is_right(&world, main, end).await);
}

#[tokio::test]
async fn what_a_branch_forgets_is_gone_from_it_alone() {
    let (mut world, tenant) = World::with_tenant(13).await;
    let main = main_of(&tenant);
    grow(&mut world, main, 10).await;
    let (early, point) = (world.model.points(main)[20], world.model.points(main)[70]);
    let dev = world.tenants.create_branch(tenant.id, "dev", "main", point).await;
    let dev = dev.expect("the name is free").timeline;
    world.model.add(dev, Some(main), point);
    grow(&mut world, dev, 4).await;
    let from = world.model.points(dev)[12];
    let child = world.tenants.create_branch(tenant.id, "child", "dev", from).await;
    let child = child.expect("the name is free").timeline;
    world.model.add(child, Some(dev), from);
    world.write(dev).await.expect("the store works");

    let timeline = world.timeline(dev).await.expect("it loads");
    world.tenants.forget_past(&timeline).await.expect("the store works");
    let end = timeline.last_record_lsn();
    merge_all(&timeline).await;
    assert!(is_right(&world, dev, end).await);
    for gone in [early, point, from] {
        let is_gone = Error::Gone { asked: gone.lsn, oldest: end };
        let refused = world.tenants.create_branch(tenant.id, "back", "dev", gone).await;
        assert_eq!(refused, Err(is_gone.clone()));
        assert_eq!(timeline.round_down(gone.lsn).await, Err(is_gone));
    }
    // What others have, they keep: the parent its history, the child what it began with.
    assert!(is_right(&world, child, from.lsn).await);
    assert!(is_right(&world, main, early.lsn).await);
    let late = world.tenants.create_branch(tenant.id, "late", "main", early).await;
    assert!(late.is_ok(), "{late:?}");
    world.restart();
    assert_eq!(world.timeline(dev).await.expect("it loads").retained().cutoff_lsn(), end);
    assert!(is_right(&world, child, from.lsn).await);
}

#[tokio::test]
async fn a_snapshot_keeps_its_point_until_it_is_deleted_and_no_longer() {
    let (mut world, tenant) = World::with_tenant(14).await;
    let main = main_of(&tenant);
    grow(&mut world, main, 20).await;
    let point = world.model.points(main)[70];
    let of = Beginning::Point("main", point);
    world.tenants.create_snapshot(tenant.id, "kept", of).await.expect("the name is free");
    let again = world.tenants.create_snapshot(tenant.id, "kept", of).await;
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
    grow(&mut world, main, 20).await;
    world.tenants.set_history(tenant.id, NOTHING).await.expect("the store works");
    let timeline = world.timeline(main).await.expect("it loads");
    world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
    merge_all(&timeline).await;
    let two_states = timeline.stored_bytes();
    assert_eq!(timeline.retained().points, [point.lsn]);

    // Another pageserver knows it too; what begins there is whole, whatever the branch is by now.
    world.restart();
    let of = Beginning::Snapshot("kept");
    let branch = world.tenants.begin_branch(tenant.id, "dev", of).await.expect("it is kept");
    world.model.add(branch.timeline, Some(main), point);
    assert!(is_right(&world, branch.timeline, point.lsn).await);
    let restored = world.tenants.restore_to(tenant.id, "main", of, Some("before")).await;
    let (new, old) = restored.expect("it is kept");
    assert_eq!(old.timeline, main);
    world.model.add(new.timeline, Some(main), point);
    assert!(is_right(&world, new.timeline, point.lsn).await);
    let kept = world.tenants.snapshots(tenant.id, "before").await.expect("it is there");
    assert_eq!(kept.iter().map(|kept| &*kept.name).collect::<Vec<_>>(), ["kept"]);
    assert_eq!(world.tenants.snapshots(tenant.id, "main").await, Ok(Vec::new()));

    // A branch with snapshots stays until they are deleted.
    let of = Beginning::Point("dev", point);
    world.tenants.create_snapshot(tenant.id, "of-dev", of).await.expect("the name is free");
    let refused = world.tenants.delete_branch(tenant.id, "dev").await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let refused = world.tenants.delete_snapshot(tenant.id, "main", "of-dev").await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    world.tenants.delete_snapshot(tenant.id, "dev", "of-dev").await.expect("it is there");
    world.tenants.delete_branch(tenant.id, "dev").await.expect("nothing is of it");

    // The restored branch alone keeps the point now; then, with another restore, nothing does.
    world.tenants.delete_snapshot(tenant.id, "before", "kept").await.expect("it is there");
    let timeline = world.timeline(main).await.expect("it loads");
    world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
    assert_eq!(timeline.retained().points, [point.lsn]);
    let end = timeline.last_record();
    let to_end = Beginning::Point("before", end);
    let restored = world.tenants.restore_to(tenant.id, "main", to_end, Some("after")).await;
    restored.expect("it is the head");
    world.tenants.delete_branch(tenant.id, "after").await.expect("nothing is of it");
    world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
    assert_eq!(timeline.retained().points, []);
    merge_all(&timeline).await;
    assert!(timeline.stored_bytes() < two_states);
}

#[tokio::test]
async fn a_branch_made_while_the_cutoff_passes_has_its_whole_history_or_is_refused() {
    let (mut made, mut refused) = (0, 0);
    for seed in 0..120 {
        let store = FaultyStore::new(Arc::new(InMemory::new())).pause(seed);
        let mut world = World::on(Arc::new(store), seed);
        world.template("base").await.expect("the store works");
        let tenant = world.tenant("one", "base").await.expect("the name is free");
        let main = main_of(&tenant);
        grow(&mut world, main, 4).await;
        world.tenants.set_history(tenant.id, NOTHING).await.expect("the store works");
        let point = world.model.points(main)[9];
        let timeline = world.timeline(main).await.expect("it loads");
        let retaining = async {
            // Either may be the first to reach the store.
            for _ in 0..seed / 6 {
                tokio::task::yield_now().await;
            }
            world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
            merge_all(&timeline).await;
        };
        let branching = async {
            for _ in 0..seed % 6 {
                tokio::task::yield_now().await;
            }
            world.tenants.create_branch(tenant.id, "dev", "main", point).await
        };
        let ((), branch) = tokio::join!(retaining, branching);
        match branch {
            Ok(branch) => {
                made += 1;
                world.model.add(branch.timeline, Some(main), point);
                // The next passes keep it too.
                grow(&mut world, main, 2).await;
                let timeline = world.timeline(main).await.expect("it loads");
                world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
                merge_all(&timeline).await;
                assert!(is_right(&world, branch.timeline, point.lsn).await, "seed {seed}");
                world.restart();
                assert!(is_right(&world, branch.timeline, point.lsn).await, "seed {seed}");
            }
            Err(Error::Gone { .. }) => {
                refused += 1;
                let names = world.tenants.tenant("one").await.expect("it is there").branches;
                assert_eq!(names.len(), 1, "a refused branch is not there");
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(made > 5 && refused > 5, "{made} were made, {refused} refused");
}

#[tokio::test]
async fn what_a_reader_holds_a_lease_of_stays_readable() {
    let (mut world, tenant) = World::with_tenant(13).await;
    let main = main_of(&tenant);
    grow(&mut world, main, 6).await;
    let timeline = world.timeline(main).await.expect("it loads");
    let held = world.model.points(main)[10].lsn;
    let lease = timeline.lease(None);
    lease.renew(held, tokio::time::Instant::now());
    world.tenants.set_history(tenant.id, NOTHING).await.expect("the store works");
    world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
    merge_all(&timeline).await;
    assert_eq!(timeline.retained().cutoff_lsn(), held);
    assert!(is_right(&world, main, held).await);

    lease.say_goodbye();
    drop(lease);
    let end = world.model.end(main).lsn;
    world.tenants.retain(&timeline, clock::now()).await.expect("the store works");
    assert_eq!(timeline.retained().cutoff_lsn(), end);
    assert!(is_right(&world, main, end).await);
}

#[tokio::test]
async fn a_reader_of_a_branch_that_says_goodbye_lets_go_of_its_parents_history_too() {
    let (mut world, tenant) = World::with_tenant(15).await;
    let main = main_of(&tenant);
    grow(&mut world, main, 6).await;
    let point = world.model.end(main);
    let dev = world.tenants.create_branch(tenant.id, "dev", "main", point).await;
    let dev = dev.expect("the name is free").timeline;
    world.model.add(dev, Some(main), point);
    let (parent, child) = (world.timeline(main).await, world.timeline(dev).await);
    let (parent, child) = (parent.expect("it loads"), child.expect("it loads"));
    let old = world.model.points(main)[10].lsn;
    let term = Some(protocol::Term(1));
    let (one, two) = (child.lease(term), child.lease(term));
    one.renew(old, tokio::time::Instant::now());
    world.tenants.set_history(tenant.id, NOTHING).await.expect("the store works");
    one.say_goodbye();
    drop(one);
    world.tenants.retain(&parent, clock::now()).await.expect("the store works");
    assert_eq!(parent.retained().cutoff_lsn(), old, "the compute has another connection");
    two.say_goodbye();
    drop(two);
    world.tenants.retain(&parent, clock::now()).await.expect("the store works");
    assert_eq!(parent.retained().cutoff_lsn(), point.lsn);
}
