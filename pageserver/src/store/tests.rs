use object_store::{ObjectStoreExt, memory::InMemory};

use super::*;
use crate::simulation::{Fault, FaultyStore, Weather};

async fn folder_store() -> (tempfile::TempDir, Arc<dyn ObjectStore>) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("not/yet/there");
    let store = open(path.to_str().expect("the path is UTF-8")).await.expect("it can be used");
    (folder, store)
}

fn create(text: &'static str) -> (PutPayload, object_store::PutOptions) {
    (PutPayload::from_static(text.as_bytes()), PutMode::Create.into())
}

#[tokio::test]
async fn a_folder_is_created_and_the_probe_leaves_nothing_behind() {
    let (folder, store) = folder_store().await;
    let listed = store.list_with_delimiter(None).await.expect("it can be listed");
    assert!(listed.objects.is_empty() && listed.common_prefixes.is_empty());
    assert!(folder.path().join("not/yet/there").is_dir());
}

#[tokio::test]
async fn a_folder_lets_one_of_many_creators_win() {
    let (_folder, store) = folder_store().await;
    for round in 0..20 {
        let path = Path::from(format!("a/{round}"));
        let racers = (0..8).map(|_| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move {
                let (payload, options) = create("mine");
                store.put_opts(&path, payload, options).await
            })
        });
        let results = futures::future::join_all(racers).await;
        let won = results.iter().filter(|result| matches!(result, Ok(Ok(_)))).count();
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn a_folder_fsyncs_every_put() {
    let (_folder, store) = folder_store().await;
    // The wrapped store says so of itself; what a loss of power does cannot be shown here.
    assert!(format!("{store:?}").contains("fsync: true"), "{store:?}");
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_not_an_object() {
    let (folder, store) = folder_store().await;
    let (payload, options) = create("whole");
    store.put_opts(&Path::from("m/manifest-1"), payload, options).await.expect("it is new");
    let half = folder.path().join("not/yet/there/m/manifest-2#1");
    std::fs::write(half, "ha").expect("the folder is there");
    let listed = store.list_with_delimiter(Some(&Path::from("m"))).await.expect("it is there");
    assert_eq!(listed.objects.len(), 1);
    assert!(store.get(&Path::from("m/manifest-2")).await.is_err());
}

#[tokio::test]
async fn urls_that_cannot_be_used_are_refused_with_a_sentence() {
    for (url, part) in [("gs://bucket", "is not an object store"), ("s3://", "needs a bucket")] {
        let error = open(url).await.expect_err("it cannot be used").to_string();
        assert!(error.contains(part), "{error}");
    }
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    let below = file.path().join("folder");
    let error =
        open(below.to_str().expect("the path is UTF-8")).await.expect_err("a file is there");
    assert!(error.to_string().contains("cannot be used"), "{error}");
}

#[tokio::test]
async fn a_store_that_lets_a_name_be_created_twice_is_refused_at_start() {
    let store = FaultyStore::new(Arc::new(InMemory::new())).ignore_create();
    let error = probe(&store, 5).await.expect_err("it ignores create-only").to_string();
    assert!(error.contains("created twice"), "{error}");
    assert_eq!(probe(&InMemory::new(), 1).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_start_over_a_bad_network_tries_again_and_gives_up_in_the_end() {
    // To create, to create again, to delete.
    for failing in 0..3 {
        for fault in [Fault::Fails, Fault::LostAnswer, Fault::TimesOut, Fault::TimesOutUnseen] {
            let weather = move |operation| if operation == failing { fault } else { Fault::None };
            let store = Weather::new(Arc::new(InMemory::new()), weather);
            assert_eq!(probe(&store, 2).await, Ok(()), "{fault:?} at operation {failing}");
        }
    }
    let store = Weather::new(Arc::new(InMemory::new()), |_| Fault::TimesOut);
    let error = probe(&store, 3).await.expect_err("nothing answers").to_string();
    assert!(error.contains("cannot be used"), "{error}");
}
