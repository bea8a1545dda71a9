//! What one branch, tenant or pageserver may not do to another.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, memory::InMemory};
use protocol::TenantTimeline;
use wal_format::{Lsn, PAGE_BYTES, RelationFork};

use super::{
    Access, FaultyStore, World,
    world::{forks, main_of},
};
use crate::{
    change::{Change, Value},
    engine::tenant_folder,
    error::Error,
    key::Key,
    manifest::{Sequence, TenantManifest},
    timeline::{RECORDS_PER_IMAGE, Timeline},
};

async fn world_with(tenants: &[&str]) -> (World, Vec<TenantTimeline>) {
    let mut world = World::new(3);
    world.template("base").await.expect("the store works");
    let mut mains = Vec::new();
    for name in tenants {
        mains.push(main_of(&world.tenant(name, "base").await.expect("the name is free")));
    }
    (world, mains)
}

/// Applies a record with these puts and clears, behind the last one.
fn put(timeline: &Timeline, puts: Vec<(Key, Value)>, clears: Vec<std::ops::Range<Key>>) -> Lsn {
    let start = timeline.last_record_lsn();
    let end = Lsn(start.0 + 64);
    timeline.apply(Change { start, end, puts, clears, finished: None });
    end
}

fn record(byte: u8) -> Value {
    Value::Record { will_init: false, bytes: Bytes::copy_from_slice(&[byte; 8]) }
}

async fn page(timeline: &Timeline, fork: RelationFork, block: u32) -> Bytes {
    let at = timeline.last_record_lsn();
    timeline.pages(fork, block, 1, at).await.expect("the store works")
}

#[tokio::test]
async fn pages_cut_off_never_come_back_when_the_fork_grows_again() {
    // The same with every step in memory, in layers of its own, and in an ancestor.
    for (flush, branch) in [(false, false), (true, false), (false, true), (true, true)] {
        let (world, mains) = world_with(&["one"]).await;
        let fork = forks()[0];
        let mut timeline = world.timeline(mains[0]).await.expect("it loads");
        let full = vec![7; PAGE_BYTES];
        let old = |block| (Key::page(fork.block(block)), Value::Image(full.clone().into()));
        put(&timeline, (0..100).map(old).collect(), vec![]);
        // TRUNCATE to 50 blocks.
        let before = timeline.last_record_lsn();
        if flush {
            timeline.flush().await.expect("the store works");
        }
        put(&timeline, vec![], vec![Key::pages_from(fork, 50)]);
        if flush {
            timeline.flush().await.expect("the store works");
        }
        if branch {
            let (tenant, point) = (mains[0].tenant, timeline.last_record());
            let dev = world.tenants.create_branch(tenant, "dev", "main", point).await;
            let id = dev.expect("the name is free").timeline;
            timeline = world.timeline(id).await.expect("it loads");
        }
        // A record at block 99 brings blocks 50 to 98 back into being.
        let gap = Key::pages(fork, 50..99);
        let block_99 = Key::page(fork.block(99));
        put(&timeline, vec![(block_99, record(1))], vec![gap]);
        if flush {
            timeline.flush().await.expect("the store works");
        }
        let end = timeline.last_record_lsn();
        let pages = timeline.pages(fork, 0, 100, end).await.expect("the store works");
        let pages: Vec<&[u8]> = pages.chunks(PAGE_BYTES).collect();
        assert!(pages[..50].iter().all(|page| *page == full));
        assert!(pages[50..99].iter().all(|page| page.iter().all(|byte| *byte == 0)));
        assert_ne!(pages[99], &vec![0; PAGE_BYTES][..]);
        assert!(!pages[99].contains(&7), "block 99 was made from what it was before");
        let earlier = timeline.pages(fork, 0, 100, before).await.expect("the store works");
        assert!(earlier.chunks(PAGE_BYTES).all(|page| page == full));
    }
}

#[tokio::test]
async fn a_dropped_relation_whose_number_is_used_again_begins_empty() {
    let (world, mains) = world_with(&["one"]).await;
    let fork = forks()[0];
    let timeline = world.timeline(mains[0]).await.expect("it loads");
    // The relation's pages and sizes are the template's.
    assert_ne!(page(&timeline, fork, 4).await, vec![0; PAGE_BYTES]);
    let relation = fork.relation;
    let drop = vec![Key::relation_pages(relation), Key::relation_sizes(relation)];
    put(&timeline, vec![], drop);
    let size = Value::Image(Bytes::from_static(&[1, 0, 0, 0]));
    put(&timeline, vec![(Key::fork_size(fork), size)], vec![]);
    timeline.flush().await.expect("the store works");
    assert_eq!(page(&timeline, fork, 4).await, vec![0; PAGE_BYTES]);
    let at = timeline.last_record_lsn();
    let sizes = timeline.scan(Key::relation_sizes(relation), at).await.expect("it can be read");
    assert_eq!(sizes.len(), 1);
}

#[tokio::test]
async fn branches_do_not_see_what_the_other_writes_after_the_branch_point() {
    let (world, mains) = world_with(&["one"]).await;
    let main = world.timeline(mains[0]).await.expect("it loads");
    let key = Key::CONTROL;
    let put_text = |timeline: &Timeline, text: &'static str| {
        put(timeline, vec![(key, Value::Image(text.into()))], vec![])
    };
    put_text(&main, "shared");
    let point = main.last_record();
    let dev = world.tenants.create_branch(mains[0].tenant, "dev", "main", point).await;
    let dev = world.timeline(dev.expect("the name is free").timeline).await.expect("it loads");
    assert_eq!(dev.get(key, dev.last_record_lsn()).await, Ok(Some("shared".into())));
    put_text(&main, "of main");
    assert_eq!(dev.get(key, dev.last_record_lsn()).await, Ok(Some("shared".into())));
    put_text(&dev, "of dev");
    assert_eq!(main.get(key, main.last_record_lsn()).await, Ok(Some("of main".into())));
    assert_eq!(dev.get(key, dev.last_record_lsn()).await, Ok(Some("of dev".into())));
    assert_eq!(dev.get(key, point.lsn).await, Ok(Some("shared".into())));
}

#[tokio::test]
async fn branches_and_restores_touch_no_other_tenant_and_only_read_the_template() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let mut world = World::on(Arc::new(store.clone()), 4);
    let template = world.template("base").await.expect("the store works");
    let mut mains = Vec::new();
    for name in ["one", "two"] {
        let main = main_of(&world.tenant(name, "base").await.expect("the name is free"));
        for _ in 0..20 {
            world.write(main).await.expect("the store works");
        }
        world.timeline(main).await.expect("it loads").flush().await.expect("the store works");
        mains.push(main);
    }
    // Nothing is in memory any more: whatever is needed is asked for.
    world.restart();
    store.take_accesses();

    let (main, tenant) = (mains[0], mains[0].tenant);
    let points = world.model.points(main);
    let timeline = world.timeline(main).await.expect("it loads");
    let point = timeline.round_down(points[5].lsn).await.expect("it is in the history");
    let dev = world.tenants.create_branch(tenant, "dev", "main", point).await;
    let dev = dev.expect("the name is free").timeline;
    world.model.add(dev, Some(main), point);
    let (new, _) = world
        .tenants
        .restore(tenant, "main", points[10], Some("old"))
        .await
        .expect("the branch is there");
    world.model.add(new.timeline, Some(main), points[10]);
    for id in [dev, new.timeline] {
        world.write(id).await.expect("the store works");
        let timeline = world.timeline(id).await.expect("it loads");
        timeline.flush().await.expect("the store works");
        let end = timeline.last_record_lsn();
        timeline.scan(Key::MIN..Key::MAX, end).await.expect("the store works");
    }
    world.tenants.delete_branch(tenant, "dev").await.expect("it has no children");

    let (own, of_template) = (tenant_folder(tenant), tenant_folder(template.id));
    let accesses = store.take_accesses();
    for (access, path) in &accesses {
        let is_read_of_template = *access == Access::Read && path.prefix_matches(&of_template);
        assert!(path.prefix_matches(&own) || is_read_of_template, "{access:?} of {path}");
    }
    let count = |wanted, folder| {
        accesses.iter().filter(|(it, path)| *it == wanted && path.prefix_matches(folder)).count()
    };
    assert!(count(Access::Write, &own) > 4, "{accesses:?}");
    assert!(count(Access::Read, &of_template) > 0, "{accesses:?}");
}

#[tokio::test]
async fn lsns_outside_of_the_history_are_refused_with_what_there_is() {
    let (world, mains) = world_with(&["one"]).await;
    let main = world.timeline(mains[0]).await.expect("it loads");
    let oldest = main.origin().point.lsn;
    let end = put(&main, vec![], vec![]);
    let (before, beyond) = (Lsn(oldest.0 - 8), Lsn(end.0 + 8));
    let gone = Error::Gone { asked: before, oldest };
    assert_eq!(main.get(Key::CONTROL, before).await, Err(gone.clone()));
    assert_eq!(main.round_down(before).await, Err(gone));
    let not_yet = Error::NotYet { asked: beyond, ingested: end };
    assert_eq!(main.get(Key::CONTROL, beyond).await, Err(not_yet.clone()));
    assert_eq!(main.round_down(beyond).await, Err(not_yet.clone()));
    assert_eq!(main.wait_for(beyond, std::time::Duration::ZERO).await, Err(not_yet));
    assert_eq!(main.round_down(oldest).await, Ok(main.origin().point));
    assert_eq!(main.round_down(Lsn(end.0 - 1)).await, Ok(main.origin().point));
    assert_eq!(main.round_down(end).await, Ok(main.last_record()));

    let created = world.tenants.tenant("one").await.expect("it is there").created_at;
    let early = main.point_at_time(created - 1).await;
    let early = early.expect_err("the tenant was not there").to_string();
    assert!(early.contains("before the tenant's creation"), "{early}");
    let late = main.point_at_time(crate::clock::now() + 60_000_000).await;
    let late = late.expect_err("nobody knows the future").to_string();
    assert!(late.contains("in the future"), "{late}");
}

#[tokio::test]
async fn deleting_is_refused_where_others_need_it_and_else_leaves_no_object() {
    let (mut world, mains) = world_with(&["one", "two"]).await;
    let tenant = mains[0].tenant;
    world.write(mains[0]).await.expect("the store works");
    let main = world.timeline(mains[0]).await.expect("it loads");
    main.flush().await.expect("the store works");
    let point = main.last_record();
    world.tenants.create_branch(tenant, "dev", "main", point).await.expect("the name is free");
    let (_, kept) =
        world.tenants.restore(tenant, "dev", point, None).await.expect("the branch is there");
    assert!(kept.name.starts_with("dev_old_"), "{}", kept.name);
    let refused = |result: Result<(), Error>| result.expect_err("it is needed").to_string();
    let main_refused = refused(world.tenants.delete_branch(tenant, "main").await);
    assert!(main_refused.contains("only with its tenant"), "{main_refused}");
    let kept_refused = refused(world.tenants.delete_branch(tenant, &kept.name).await);
    assert!(kept_refused.contains("dev"), "{kept_refused}");
    let template = world.tenants.template("base").await.expect("it is there");
    assert!(world.tenants.delete_tenant(template.id).await.is_err());

    world.tenants.delete_branch(tenant, "dev").await.expect("it has no children");
    world.tenants.delete_branch(tenant, &kept.name).await.expect("now it has none");
    world.tenants.delete_tenant(tenant).await.expect("it is there");
    assert!(main.stopped().is_cancelled());
    assert!(matches!(world.tenants.tenant("one").await, Err(Error::NotFound(_))));
    let objects: Vec<_> = world.store.list(None).try_collect().await.expect("the store works");
    let of_tenant = format!("tenants/{tenant}/");
    assert!(objects.iter().all(|object| !object.location.as_ref().starts_with(&of_tenant)));
    assert!(world.tenants.tenant("two").await.is_ok());
    world.tenant("one", "base").await.expect("the name is free again");
}

#[tokio::test]
async fn names_that_are_taken_or_bad_are_refused() {
    let (world, mains) = world_with(&["one"]).await;
    let taken = world.tenants.create_tenant("one", "base").await;
    assert!(matches!(taken, Err(Error::Exists(_))), "{taken:?}");
    let bad = world.tenants.create_tenant("../one", "base").await;
    assert!(matches!(bad, Err(Error::Invalid(_))), "{bad:?}");
    let nothing = world.tenants.create_tenant("two", "nothing").await;
    assert!(matches!(nothing, Err(Error::NotFound(_))), "{nothing:?}");
    let of_tenant = world.tenants.create_tenant("two", &mains[0].tenant.to_string()).await;
    assert!(matches!(of_tenant, Err(Error::NotFound(_))), "{of_tenant:?}");
    let point = world.timeline(mains[0]).await.expect("it loads").last_record();
    let tenant = mains[0].tenant;
    let main = world.tenants.create_branch(tenant, "main", "main", point).await;
    assert!(matches!(main, Err(Error::Exists(_))), "{main:?}");
    let kept = world.tenants.restore(tenant, "main", point, Some("main")).await;
    assert!(matches!(kept, Err(Error::Exists(_))), "{kept:?}");
}

#[tokio::test]
async fn of_two_pageservers_with_one_timeline_only_one_can_publish() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut first = World::on(store.clone(), 5);
    first.template("base").await.expect("the store works");
    let tenant = first.tenant("one", "base").await.expect("the name is free");
    let id = main_of(&tenant);
    first.write(id).await.expect("the store works");
    let old = first.timeline(id).await.expect("it loads");
    old.flush().await.expect("the store works");
    first.write(id).await.expect("the store works");

    let mut second = World::on(store.clone(), 5);
    second.learn(&tenant);
    let new = second.tenants.timeline(id).await.expect("it loads");
    assert_eq!(new.last_record_lsn(), old.remote_consistent_lsn());
    put(&new, vec![], vec![]);
    new.flush().await.expect("the store works");

    let fenced = old.flush().await;
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    assert!(matches!(old.ready_for_more().await, Err(Error::Fenced { .. })));
    put(&new, vec![], vec![]);
    new.flush().await.expect("the newer one goes on");

    // The tenant's own manifest: the second has taken the tenant, and the first finds out.
    let point = new.origin().point;
    second.tenants.create_branch(tenant.id, "a", "main", point).await.expect("the name is free");
    let refused = first.tenants.create_branch(tenant.id, "b", "main", point).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    let refused = first.tenants.create_branch(tenant.id, "b", "main", point).await;
    assert!(matches!(refused, Err(Error::Moved { .. })), "{refused:?}");
    let names: Vec<String> = first
        .tenants
        .tenant("one")
        .await
        .expect("it is there")
        .branches
        .into_iter()
        .map(|branch| branch.name)
        .collect();
    assert_eq!(names, ["main", "a"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_redone_is_named_with_its_page() {
    let (world, mains) = world_with(&["one"]).await;
    let timeline = world.timeline(mains[0]).await.expect("it loads");
    let fork = forks()[0];
    let bad = Value::Record { will_init: true, bytes: Bytes::from_static(b"bad") };
    let end = put(&timeline, vec![(Key::page(fork.block(2)), bad)], vec![]);
    let failed = timeline.pages(fork, 0, 4, end).await.expect_err("the record is bad").to_string();
    assert!(failed.contains("1663/5/100 block 2") && failed.contains(&end.to_string()), "{failed}");
}

#[tokio::test]
async fn a_page_that_many_records_changed_is_read_with_few_of_them() {
    let (world, mains) = world_with(&["one"]).await;
    let timeline = world.timeline(mains[0]).await.expect("it loads");
    let fork = forks()[0];
    let ends: Vec<Lsn> = (0..100)
        .map(|byte| put(&timeline, vec![(Key::page(fork.block(2)), record(byte))], vec![]))
        .collect();
    let read = async |at| timeline.pages(fork, 2, 1, at).await.expect("the store works");
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for end in &ends {
        before.push(read(*end).await);
    }
    timeline.flush().await.expect("the store works");
    for end in &ends {
        let applied = world.redo.applied.load(Ordering::Relaxed);
        after.push(read(*end).await);
        let applied = world.redo.applied.load(Ordering::Relaxed) - applied;
        assert!(applied < RECORDS_PER_IMAGE, "{applied} records were redone");
    }
    assert!(before == after);
}

#[tokio::test]
async fn a_page_in_memory_is_made_once_of_many_records_and_then_of_what_came_since() {
    let (world, mains) = world_with(&["one"]).await;
    let timeline = world.timeline(mains[0]).await.expect("it loads");
    let fork = forks()[0];
    let key = Key::page(fork.block(2));
    let read = async |at| timeline.pages(fork, 2, 1, at).await.expect("the store works");
    let redone = async |at| {
        let before = world.redo.applied.load(Ordering::Relaxed);
        let page = read(at).await;
        (page, world.redo.applied.load(Ordering::Relaxed) - before)
    };
    let mut ends: Vec<Lsn> =
        (0..40).map(|byte| put(&timeline, vec![(key, record(byte))], vec![])).collect();
    assert_eq!(redone(ends[39]).await.1, 40);
    assert_eq!(redone(ends[39]).await.1, 0);
    for byte in 40..43 {
        ends.push(put(&timeline, vec![(key, record(byte))], vec![]));
    }
    assert_eq!(redone(ends[42]).await.1, 3);
    // What was before the page that is kept is made as ever; and a clear hides what is kept.
    assert_eq!(redone(ends[9]).await.1, 10);
    let cleared = put(&timeline, vec![(Key::page(fork.block(3)), record(1))], vec![key.only()]);
    assert_eq!(read(cleared).await, Bytes::from(vec![0; PAGE_BYTES]));
    let mut before = Vec::new();
    for end in &ends {
        before.push(read(*end).await);
    }
    timeline.flush().await.expect("the store works");
    for (end, before) in ends.iter().zip(&before) {
        assert!(read(*end).await == *before, "as of {end}");
    }
}

#[tokio::test]
async fn a_tenant_that_claims_another_tenants_timeline_as_its_ancestor_is_not_served() {
    let (mut world, mains) = world_with(&["one", "two"]).await;
    let folder = tenant_folder(mains[0].tenant);
    let opened = Sequence::open::<TenantManifest>(world.store.clone(), folder.clone()).await;
    let (mut sequence, manifest) = opened.expect("the store works");
    let mut manifest = manifest.expect("the tenant is there");
    let main = Arc::make_mut(&mut manifest.branches[0]);
    let ancestor = main.ancestor.as_mut().expect("main comes from the template");
    (ancestor.tenant, ancestor.timeline) = (mains[1].tenant, mains[1].timeline);
    let forged = sequence.prepare(&manifest).expect("it is JSON");
    sequence.publish(forged).await.expect("nobody else writes");

    world.restart();
    let refused = world.tenants.timeline(mains[0]).await.map(|timeline| timeline.id());
    assert!(
        matches!(&refused, Err(Error::Corrupt { object, .. }) if *object == folder.to_string())
    );
    assert!(world.tenants.timeline(mains[1]).await.is_ok());
}
