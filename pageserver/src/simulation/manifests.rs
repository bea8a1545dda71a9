//! What many restarts leave of a tenant's and a timeline's manifests.

use object_store::path::Path;

use super::{World, world::main_of};
use crate::{
    engine::{tenant_folder, timeline_folder},
    scrub::{Removal, scrub},
};

/// How many manifests are in a folder, and their bytes.
async fn manifests(world: &World, folder: &Path) -> (usize, u64) {
    // What nobody waits for is done.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    let listed = world.store.list_with_delimiter(Some(folder)).await.expect("the store works");
    let bytes = listed.objects.iter().map(|object| object.size).sum();
    (listed.objects.len(), bytes)
}

#[tokio::test]
async fn a_restart_leaves_one_short_manifest_of_what_is_used_afterwards() {
    let (mut world, tenant) = World::with_tenant(31).await;
    let main = main_of(&tenant);
    for branch in 0..100 {
        world.write(main).await.expect("the store works");
        let point = world.model.end(main);
        world.timeline(main).await.expect("it loads").flush().await.expect("the store works");
        let name = format!("branch-{branch}");
        let made = world.tenants.create_branch(tenant.id, &name, "main", point).await;
        world.model.add(made.expect("it is made").timeline, Some(main), point);
    }
    let folders = [tenant_folder(tenant.id), timeline_folder(main)];
    let mut before = Vec::new();
    for restart in 0..10 {
        world.restart();
        world.write(main).await.expect("the store works");
        world.timeline(main).await.expect("it loads").flush().await.expect("the store works");
        for (number, folder) in folders.iter().enumerate() {
            let (count, bytes) = manifests(&world, folder).await;
            match before.get_mut(number) {
                None => before.push((count, bytes)),
                Some((first_count, first_bytes)) => {
                    assert!(count <= *first_count + restart, "{folder}: {count} manifests");
                    let more = bytes.saturating_sub(*first_bytes);
                    assert!(more <= 1024 * restart as u64, "{folder}: {more} bytes more");
                }
            }
        }
    }
    let tenant = world.tenants.tenant("one").await.expect("it is there");
    assert_eq!(tenant.branches.len(), 101);
    let found = scrub(world.store.clone(), Removal::default(), std::time::SystemTime::now()).await;
    assert_eq!(found.expect("the store works").findings, []);
}
