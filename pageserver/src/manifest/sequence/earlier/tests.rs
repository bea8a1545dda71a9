use std::sync::Arc;

use object_store::memory::InMemory;

use super::{
    super::{
        Sequence, TAKEOVER_BYTES_MAX,
        tests::{Said, body, folder, grow, open, publish, store},
    },
    *,
};
use crate::simulation::FaultyStore;

/// Longer than a takeover may be.
fn long() -> Said {
    body(&"long ".repeat(1000))
}

/// Writes the whole of it, and some changes.
async fn write(store: &Arc<dyn ObjectStore>, changes: usize) -> (Sequence, Said) {
    let (mut sequence, newest) = open(store).await;
    let said = body(&format!("{}y", newest.unwrap_or_else(long).text));
    publish(&mut sequence, &said.text).await.expect("nobody else writes");
    sequence.collect().await;
    let said = grow(&mut sequence, said, changes).await;
    (sequence, said)
}

/// The lengths of all that is there, by rising number.
async fn lengths(store: &Arc<dyn ObjectStore>) -> Vec<u64> {
    let mut objects: Vec<_> = store.list(None).try_collect().await.expect("the store works");
    objects.sort_unstable_by(|one, other| one.location.cmp(&other.location));
    objects.iter().map(|object| object.size).collect()
}

#[tokio::test]
async fn of_an_earlier_writer_nothing_stays_but_a_short_takeover() {
    let store = store();
    write(&store, 3).await;
    for writers in 1..10 {
        let (_, said) = write(&store, 20).await;
        assert_eq!(open(&store).await.1, Some(said));
        let lengths = lengths(&store).await;
        // The very first one was the first that there was: it is whole.
        let takeovers = &lengths[1..=writers];
        assert!(takeovers.iter().all(|bytes| *bytes <= TAKEOVER_BYTES_MAX as u64), "{lengths:?}");
        assert_eq!(lengths.len(), 1 + writers + 1 + 20, "{lengths:?}");
    }
}

#[tokio::test]
async fn what_was_removed_is_not_looked_at_again() {
    let inner = store();
    for _ in 0..5 {
        write(&inner, 5).await;
    }
    let counted = FaultyStore::new(inner.clone());
    let faulty: Arc<dyn ObjectStore> = Arc::new(counted.clone());
    let (mut sequence, said) = write(&faulty, 1).await;
    let with_a_collection = counted.operations();
    for _ in 0..5 {
        write(&inner, 5).await;
    }
    let counted_again = FaultyStore::new(inner);
    write(&(Arc::new(counted_again.clone()) as Arc<dyn ObjectStore>), 1).await;
    // A whole one and five changes of the writer before are read and removed, and its takeover read.
    assert_eq!(counted_again.operations(), with_a_collection);
    counted.take_accesses();
    sequence.collect().await;
    assert_eq!(counted.take_accesses(), [], "for {said:?}");
}

#[tokio::test]
async fn a_writer_that_slept_is_refused_whatever_others_have_removed_since() {
    let store = store();
    let mut asleep = Vec::new();
    for changes in [0, 1, 2, 20] {
        asleep.push(write(&store, changes).await);
    }
    // One that has read a number, and has written nothing: the next one is gone by now.
    let (mut other, said) = write(&store, 3).await;
    let (mut silent, _) = open(&store).await;
    let said = grow(&mut other, said, 5).await;
    asleep.push((other, said));
    let (mut awake, said) = write(&store, 10).await;
    for (mut sequence, said) in asleep {
        let late = body(&format!("{}z", said.text));
        let change = sequence.prepare_after(&said, &late).expect("a body is JSON");
        assert!(matches!(sequence.publish(change).await, Err(Error::Fenced { .. })));
        assert!(matches!(publish(&mut sequence, "whole").await, Err(Error::Fenced { .. })));
    }
    let next = silent.path(silent.newest() + 1);
    assert!(store.head(&next).await.is_err(), "it was not removed");
    assert!(matches!(publish(&mut silent, "slept").await, Err(Error::Fenced { .. })));
    assert_eq!(open(&store).await.1.as_ref(), Some(&said));
    let said = grow(&mut awake, said, 1).await;
    assert_eq!(open(&store).await.1, Some(said));
}

#[tokio::test]
async fn who_reads_while_another_takes_over_and_removes_reads_one_or_the_other() {
    let mut read = [0, 0];
    for seed in 0..200 {
        let inner = store();
        let (_, before) = write(&inner, 5).await;
        let slow: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(inner.clone()).pause(seed));
        let reading = async {
            // At each moment of the other's in turn.
            for _ in 0..seed {
                tokio::task::yield_now().await;
            }
            open(&slow).await
        };
        let (found, (_, after)) = tokio::join!(reading, write(&slow, 5));
        let found = found.1.expect("it is there");
        let is_after = found.text.len() > before.text.len();
        assert!(after.text.starts_with(&found.text) && found.text.starts_with(&before.text));
        read[usize::from(is_after)] += 1;
    }
    assert!(read.iter().all(|count| *count > 5), "{read:?}");
}

#[tokio::test]
async fn a_crash_at_any_operation_of_a_takeover_or_a_removal_leaves_the_newest_whole() {
    let mut crashes = 0;
    for unseen in [false, true] {
        for until in 0.. {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let (mut asleep, before) = write(&inner, 5).await;
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(FaultyStore::new(inner.clone()).fail_after(until, unseen));
            let after = body(&format!("{}y", before.text));
            let opened = Sequence::open::<Said>(faulty, folder()).await;
            let (mut published, mut is_whole) = (false, false);
            if let Ok((mut sequence, _)) = opened {
                // Tried twice, as a flush would be.
                let manifest = sequence.prepare(&after).expect("a body is JSON");
                published = sequence.publish(manifest.clone()).await.is_ok()
                    || sequence.publish(manifest).await.is_ok();
                sequence.collect().await;
                is_whole = sequence.earlier.collected_below() > 1;
            }
            let found = open(&inner).await.1;
            assert!(found == Some(after) || found == Some(before) && !published);
            assert!(
                matches!(publish(&mut asleep, "slept").await, Err(Error::Fenced { .. }))
                    || !published
            );
            let (_, said) = write(&inner, 2).await;
            assert_eq!(open(&inner).await.1, Some(said));
            let lengths = lengths(&inner).await;
            // At most the first, the takeovers of three others, and what the last one wrote.
            assert!(lengths.len() <= 1 + 3 + 3, "{lengths:?}");
            if is_whole {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes} operations are too few");
}
