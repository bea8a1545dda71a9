//! What is metered equals what can be counted by others: in the store, and in the model.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use object_store::memory::InMemory;
use protocol::{TenantTimeline, Term};

use super::{FaultyStore, World, world::main_of};
use crate::{
    engine::layers_folder,
    metering::{Given, Usage},
    tenants::TenantUsage,
};

/// The bytes of a timeline's layers, as the store lists them.
async fn listed_bytes(world: &World, id: TenantTimeline) -> u64 {
    let listed = world.store.list(Some(&layers_folder(id)));
    let objects: Vec<_> = listed.try_collect().await.expect("the store works");
    objects.iter().map(|object| object.size).sum()
}

async fn usage(world: &World, tenant: &str) -> TenantUsage {
    let (all, _) = world.tenants.usage("", 10).await.expect("the store works");
    let listed = all.into_iter().find(|usage| usage.name == tenant).expect("it is listed");
    let asked = world.tenants.usage_of(tenant).await.expect("the store works");
    assert_eq!(listed, asked);
    listed
}

fn branch(usage: &TenantUsage, name: &str) -> Usage {
    usage.branches.iter().find(|branch| branch.name == name).expect("it is there").usage
}

async fn write_and_flush(world: &mut World, id: TenantTimeline) {
    for _ in 0..20 {
        world.write(id).await.expect("the store works");
    }
    world.timeline(id).await.expect("it loads").flush().await.expect("the store works");
}

#[tokio::test]
async fn usage_is_what_the_store_lists_and_the_model_has_in_memory_or_not() {
    let mut world = World::new(11);
    let template = world.template("base").await.expect("the store works");
    let base = listed_bytes(&world, template.branches[0].timeline).await;
    let tenant = world.tenant("one", "base").await.expect("the store works");
    let main = main_of(&tenant);
    let begin = world.model.end(main).lsn;

    let fresh = usage(&world, "one").await.total();
    assert_eq!((fresh.stored_bytes, fresh.inherited_bytes), (0, base));
    assert_eq!(fresh.wal_written_bytes, 0);
    assert!(fresh.logical_size_bytes > 0, "the template has forks");
    assert_eq!(world.tenants.loaded().len(), 0, "a timeline was loaded to be metered");

    write_and_flush(&mut world, main).await;
    let point = world.model.end(main);
    let child = world.tenants.create_branch(tenant.id, "child", "main", point).await;
    child.expect("it is made");
    let size = world.timeline(main).await.expect("it loads").logical_size(point.lsn).await;
    let at_branch_point = size.expect("the store works");
    let shared = listed_bytes(&world, main).await;
    write_and_flush(&mut world, main).await;
    world
        .timeline(main)
        .await
        .expect("it loads")
        .note_given(Given { pages_read: 7, bytes_sent: 70 });

    let check = async |world: &World| {
        let now = usage(world, "one").await;
        let (main_usage, child_usage) = (branch(&now, "main"), branch(&now, "child"));
        assert_eq!(main_usage.stored_bytes, listed_bytes(world, main).await);
        assert_eq!(main_usage.shared_bytes, shared);
        assert_eq!(main_usage.unique_bytes, main_usage.stored_bytes - shared);
        assert_eq!(main_usage.inherited_bytes, base);
        assert_eq!(main_usage.wal_written_bytes, world.model.end(main).lsn.0 - begin.0);
        assert_eq!((main_usage.pages_read, main_usage.bytes_sent), (7, 70));
        let expected = Usage {
            logical_size_bytes: at_branch_point,
            inherited_bytes: base + shared,
            ..Usage::default()
        };
        assert_eq!(child_usage, expected);
        now
    };
    let loaded = check(&world).await;
    assert!(world.idle().await > 0);
    assert_eq!(check(&world).await, loaded);
    assert_eq!(world.tenants.loaded().len(), 0, "a timeline was loaded to be metered");
    world.restart();
    assert_eq!(check(&world).await, loaded);

    world.tenants.delete_branch(tenant.id, "child").await.expect("the store works");
    let after = branch(&usage(&world, "one").await, "main");
    assert_eq!((after.shared_bytes, after.unique_bytes), (0, after.stored_bytes));
}

#[tokio::test]
async fn pages_read_survive_a_stop_and_a_crash_loses_what_no_manifest_has() {
    let (mut world, tenant) = World::with_tenant(12).await;
    let main = main_of(&tenant);
    write_and_flush(&mut world, main).await;
    let read = async |world: &World, pages| {
        world
            .timeline(main)
            .await
            .expect("it loads")
            .note_given(Given { pages_read: pages, bytes_sent: pages * 10 });
    };
    read(&world, 5).await;
    world.tenants.shutdown().await;
    world.restart();
    assert_eq!(usage(&world, "one").await.total().pages_read, 5);

    read(&world, 100).await;
    assert_eq!(usage(&world, "one").await.total().pages_read, 105);
    world.restart();
    assert_eq!(usage(&world, "one").await.total().pages_read, 5);

    // It is not this process that writes the timeline: its manifests are left alone, and the count
    // stays in memory.
    read(&world, 3).await;
    assert!(world.idle().await > 0);
    assert_eq!(usage(&world, "one").await.total().pages_read, 8);
    write_and_flush(&mut world, main).await;
    world.restart();
    assert_eq!(usage(&world, "one").await.total().pages_read, 8);
}

#[tokio::test]
async fn tenants_are_listed_by_name_a_page_at_a_time() {
    let mut world = World::new(13);
    world.template("base").await.expect("the store works");
    for name in ["b", "a", "c"] {
        world.tenant(name, "base").await.expect("the store works");
    }
    let tenants = world.tenants.clone();
    let names = async |after, count| {
        let (page, _) = tenants.usage(after, count).await.expect("the store works");
        page.into_iter().map(|usage| usage.name).collect::<Vec<_>>()
    };
    assert_eq!(names("", 2).await, ["a", "b"]);
    assert_eq!(names("b", 2).await, ["c"]);
    assert!(names("c", 2).await.is_empty());
    // A page goes on from the list of the one before, and a first page is a list of its own.
    assert_eq!(names("", 1).await, ["a"]);
    world.tenant("aa", "base").await.expect("the store works");
    assert_eq!(names("a", 2).await, ["b", "c"]);
    assert_eq!(names("", 4).await, ["a", "aa", "b", "c"]);
}

#[tokio::test]
async fn of_those_that_changed_since_a_moment_the_usage_is_told_and_of_no_others() {
    let mut world = World::new(18);
    world.template("base").await.expect("the store works");
    let one = world.tenant("one", "base").await.expect("the name is free");
    world.tenant("two", "base").await.expect("the name is free");
    let names = async |world: &World, since: &str| {
        let page = world.tenants.usage_since(since, None, 10).await;
        let mut names: Vec<_> = page?.0.into_iter().map(|usage| usage.name).collect();
        names.sort_unstable();
        Some(names)
    };
    let begun = world.tenants.usage_moment();
    assert_eq!(names(&world, &begun).await, Some(Vec::new()));
    world.write(main_of(&one)).await.expect("the store works");
    assert_eq!(names(&world, &begun).await, Some(vec!["one".to_owned()]), "it is in memory");
    let written = world.tenants.usage_moment();
    world.idle().await;
    assert_eq!(names(&world, &written).await, Some(vec!["one".to_owned()]), "it was unloaded");
    let unloaded = world.tenants.usage_moment();
    assert_eq!(names(&world, &unloaded).await, Some(Vec::new()));
    let point = world.model.end(main_of(&one));
    let child = world.tenants.create_branch(one.id, "child", "main", point).await;
    child.expect("the name is free");
    assert_eq!(names(&world, &unloaded).await, Some(vec!["one".to_owned()]), "it has a branch");

    // By id, a page at a time.
    world.tenant("three", "base").await.expect("the name is free");
    let (first, next) = world.tenants.usage_since(&unloaded, None, 1).await.expect("it is known");
    let (second, end) = world.tenants.usage_since(&unloaded, next, 1).await.expect("it is known");
    let mut both: Vec<_> = first.iter().chain(&second).map(|usage| &*usage.name).collect();
    both.sort_unstable();
    assert_eq!((both, end), (vec!["one", "three"], None));

    world.restart();
    assert_eq!(names(&world, &unloaded).await, None, "of another process");
    assert_eq!(names(&world, "nonsense").await, None);
}

#[tokio::test]
async fn the_usage_of_a_tenant_is_the_same_whether_it_is_in_memory_or_read_for_it() {
    let (mut world, tenant) = World::with_tenant(19).await;
    let main = main_of(&tenant);
    for number in 0..6 {
        write_and_flush(&mut world, main).await;
        let (name, point) = (format!("branch-{number}"), world.model.end(main));
        let made = world.tenants.create_branch(tenant.id, &name, "main", point).await;
        let child = made.expect("the name is free").timeline;
        world.model.add(child, Some(main), point);
        if number % 2 == 0 {
            write_and_flush(&mut world, child).await;
        }
    }
    let asked = world.tenants.usage_of("one").await.expect("the store works");
    for restart in [false, true] {
        world.idle().await;
        if restart {
            world.restart();
        }
        let (all, _) = world.tenants.usage_of_served("", 10).await.expect("the store works");
        assert_eq!(all, std::slice::from_ref(&asked));
    }
}

#[tokio::test]
async fn what_a_compute_has_read_survives_each_stop_though_nothing_was_written_meanwhile() {
    let (mut world, tenant) = World::with_tenant(14).await;
    let main = main_of(&tenant);
    for start in 1..4 {
        let timeline = world.timeline(main).await.expect("it loads");
        timeline.keep_term(Term(3)).await.expect("the store works");
        timeline.note_given(Given { pages_read: 10, bytes_sent: 0 });
        drop(timeline);
        world.tenants.shutdown().await;
        world.restart();
        assert_eq!(usage(&world, "one").await.total().pages_read, 10 * start);
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_store_that_is_gone_to_count_what_was_read() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let mut world = World::on(Arc::new(store.clone()), 15);
    world.template("base").await.expect("the store works");
    let tenant = world.tenant("one", "base").await.expect("the store works");
    let main = main_of(&tenant);
    write_and_flush(&mut world, main).await;
    world
        .timeline(main)
        .await
        .expect("it loads")
        .note_given(Given { pages_read: 5, bytes_sent: 50 });
    store.set_up(false);
    let stopped = tokio::time::timeout(Duration::from_secs(60), world.tenants.shutdown()).await;
    assert!(stopped.is_ok(), "the stop waits for the store");
}

#[tokio::test]
async fn a_branch_below_its_parents_beginning_reads_no_more_of_their_ancestor_than_up_to_there() {
    let mut world = World::new(16);
    let template = world.template("base").await.expect("the store works");
    let base = listed_bytes(&world, template.branches[0].timeline).await;
    let tenant = world.tenant("one", "base").await.expect("the store works");
    let main = main_of(&tenant);
    write_and_flush(&mut world, main).await;
    let (early, first) = (world.model.end(main), listed_bytes(&world, main).await);
    write_and_flush(&mut world, main).await;
    let (late, both) = (world.model.end(main), listed_bytes(&world, main).await);
    assert!(first < both);
    for (name, from, point) in [("child", "main", late), ("grandchild", "child", early)] {
        world.tenants.create_branch(tenant.id, name, from, point).await.expect("it is made");
    }
    let usage = usage(&world, "one").await;
    assert_eq!(branch(&usage, "child").inherited_bytes, base + both);
    assert_eq!(branch(&usage, "grandchild").inherited_bytes, base + first);
}

#[tokio::test]
async fn branches_that_have_nothing_of_their_own_cost_no_requests_each() {
    const BRANCHES: i64 = 300;
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let mut world = World::on(Arc::new(store.clone()), 17);
    world.template("base").await.expect("the store works");
    let tenant = world.tenant("one", "base").await.expect("the store works");
    let main = main_of(&tenant);
    write_and_flush(&mut world, main).await;
    let point = world.model.end(main);
    for number in 0..BRANCHES {
        let name = format!("branch-{number}");
        world.tenants.create_branch(tenant.id, &name, "main", point).await.expect("it is made");
    }
    world.restart();
    let before = store.operations();
    let asked = world.tenants.usage_of("one").await.expect("the store works");
    let first = store.operations() - before;
    // The names, two tenants' manifests with their changes, two timelines', one list.
    assert!(first < BRANCHES + 50, "{first} operations");
    let between = store.operations();
    assert_eq!(world.tenants.usage_of("one").await.expect("the store works"), asked);
    // Whether another pageserver has written of the tenant meanwhile.
    assert_eq!(store.operations(), between + 1, "what was met is in memory");
    assert_eq!(asked.branches.len() as i64, BRANCHES + 1);
    assert_eq!(world.tenants.loaded().len(), 0);
}

#[tokio::test]
async fn what_a_deleted_branch_has_used_stays_in_the_tenants_account() {
    for is_loaded in [true, false] {
        let (mut world, tenant) = World::with_tenant(14).await;
        let main = main_of(&tenant);
        let mut expected = 0;
        for round in 1..=2 {
            let point = world.model.end(main);
            let child = world.tenants.create_branch(tenant.id, "child", "main", point).await;
            let child = child.expect("the name is free").timeline;
            world.model.add(child, Some(main), point);
            write_and_flush(&mut world, child).await;
            let timeline = world.timeline(child).await.expect("it loads");
            timeline.note_given(Given { pages_read: 3, bytes_sent: 30 });
            drop(timeline);
            expected += world.model.end(child).lsn.0 - point.lsn.0;
            if !is_loaded {
                world.idle().await;
                world.restart();
            }
            let before = usage(&world, "one").await.total();
            world.tenants.delete_branch(tenant.id, "child").await.expect("it has no children");
            let after = usage(&world, "one").await;
            let deleted = after.deleted_branches;
            assert_eq!(deleted.wal_written_bytes, expected);
            let given = Given { pages_read: 3 * round, bytes_sent: 30 * round };
            assert_eq!(deleted.given, given);
            let counts =
                |usage: Usage| (usage.wal_written_bytes, usage.pages_read, usage.bytes_sent);
            assert_eq!(counts(after.total()), counts(before), "nothing of the account is lost");
            assert!(after.total().stored_bytes < before.stored_bytes);
            world.restart();
            assert_eq!(usage(&world, "one").await, after);
        }
    }
}

#[tokio::test]
async fn a_tenant_is_told_of_by_the_pageserver_that_serves_it_and_by_no_other() {
    let mut world = World::new(15);
    world.template("base").await.expect("the store works");
    let mut other = world.another("other");
    for name in ["a", "b", "c"] {
        let tenant = world.tenant(name, "base").await.expect("the name is free");
        if name == "b" {
            world.swap(&mut other);
            world.take(tenant.id, &[]).await.expect("it may be taken");
            write_and_flush(&mut world, main_of(&tenant)).await;
            world.swap(&mut other);
        } else if name == "c" {
            write_and_flush(&mut world, main_of(&tenant)).await;
        }
        world.tenants.look(tenant.id).await.expect("the store works");
        other.tenants.look(tenant.id).await.expect("the store works");
    }
    let names = |page: Vec<TenantUsage>| page.into_iter().map(|it| it.name).collect::<Vec<_>>();
    let (of_one, next) = world.tenants.usage_of_served("", 10).await.expect("the store works");
    assert_eq!((names(of_one), next), (vec!["a".to_owned(), "c".to_owned()], None));
    let (of_other, _) = other.tenants.usage_of_served("", 10).await.expect("the store works");
    assert_eq!(names(of_other), ["b"]);
    // A page says where it ends by the names that were looked at.
    let (page, next) = world.tenants.usage_of_served("a", 1).await.expect("the store works");
    assert_eq!((names(page), next), (Vec::new(), Some("b".to_owned())));
    let some = ["c", "b", "nobody"].map(str::to_owned).to_vec();
    let some = world.tenants.usage_of_some(some, true).await.expect("the store works");
    assert_eq!(names(some), ["c"]);
}

#[tokio::test]
async fn what_is_in_memory_is_measured_where_that_is_asked_for() {
    let (mut world, tenant) = World::with_tenant(17).await;
    let main = main_of(&tenant);
    world.timeline(main).await.expect("it loads");
    for _ in 0..20 {
        world.write(main).await.expect("the store works");
    }
    let timeline = world.timeline(main).await.expect("it is loaded");
    let now = timeline.logical_size(timeline.last_record_lsn()).await.expect("the store works");
    let size = async |measure| {
        let names = vec!["one".to_owned()];
        let some = world.tenants.usage_of_some(names, measure).await.expect("the store works");
        some[0].total().logical_size_bytes
    };
    assert_ne!(size(false).await, now, "nothing was to be seen");
    assert_eq!(size(true).await, now);
}
