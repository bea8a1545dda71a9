use object_store::memory::InMemory;

use super::*;

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct Said {
    pub text: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct More {
    more: String,
}

impl Body for Said {
    type Change = More;

    fn since(&self, before: &Said) -> Option<More> {
        Some(More { more: self.text.strip_prefix(&before.text)?.to_owned() })
    }

    fn apply(&mut self, change: More) {
        self.text.push_str(&change.more);
    }
}

pub(super) fn body(text: &str) -> Said {
    Said { text: text.to_owned() }
}

pub(super) fn folder() -> Path {
    Path::from("tenants/t")
}

pub(super) async fn open(store: &Arc<dyn ObjectStore>) -> (Sequence, Option<Said>) {
    Sequence::open(store.clone(), folder()).await.expect("the store works")
}

pub(super) async fn publish(sequence: &mut Sequence, text: &str) -> Result<(), Error> {
    let manifest = sequence.prepare(&body(text)).expect("a body is JSON");
    sequence.publish(manifest).await
}

pub(super) fn store() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

#[tokio::test]
async fn the_highest_number_is_the_truth() {
    let store = store();
    let (mut sequence, none) = open(&store).await;
    assert_eq!(none, None);
    for text in ["a", "b", "c"] {
        publish(&mut sequence, text).await.expect("nobody else writes");
    }
    let (sequence, newest) = open(&store).await;
    assert_eq!((sequence.newest(), newest), (3, Some(body("c"))));
}

#[tokio::test]
async fn of_two_writers_of_one_number_one_is_fenced() {
    let store = store();
    let (mut one, _) = open(&store).await;
    let (mut two, _) = open(&store).await;
    publish(&mut one, "one").await.expect("it is the first");
    assert!(matches!(publish(&mut two, "two").await, Err(Error::Fenced { .. })));
    assert_eq!(open(&store).await.1, Some(body("one")));
}

#[tokio::test]
async fn a_put_that_is_tried_again_after_it_succeeded_unseen_is_a_success() {
    let store = store();
    let (mut sequence, _) = open(&store).await;
    let manifest = sequence.prepare(&body("once")).expect("a body is JSON");
    let path = sequence.path(1);
    store.put(&path, manifest.object.clone().into()).await.expect("the store works");
    sequence.publish(manifest).await.expect("it is our own");
    assert_eq!(sequence.newest(), 1);
}

#[tokio::test]
async fn a_writer_that_slept_cannot_use_a_number_that_was_collected() {
    let store = store();
    let (mut awake, _) = open(&store).await;
    publish(&mut awake, "0").await.expect("nobody else writes");
    publish(&mut awake, "1").await.expect("nobody else writes");
    // It reads number 2 as the newest, and sleeps.
    let (mut asleep, _) = open(&store).await;
    for text in 2..10 {
        publish(&mut awake, &text.to_string()).await.expect("nobody else writes");
        awake.collect().await;
    }
    assert!(store.head(&asleep.path(3)).await.is_err(), "number 3 was collected");
    assert!(matches!(publish(&mut asleep, "slept").await, Err(Error::Fenced { .. })));
    publish(&mut awake, "10").await.expect("it is still the newest");
    assert_eq!(open(&store).await.1, Some(body("10")));
}

#[tokio::test]
async fn a_writers_first_manifest_is_kept_so_that_the_one_before_is_fenced_for_ever() {
    let store = store();
    let (mut old, _) = open(&store).await;
    publish(&mut old, "0").await.expect("nobody else writes");
    let (mut new, _) = open(&store).await;
    for text in 1..10 {
        publish(&mut new, &text.to_string()).await.expect("it is the newest");
        new.collect().await;
    }
    assert!(matches!(publish(&mut old, "slept").await, Err(Error::Fenced { .. })));
    publish(&mut new, "10").await.expect("it is still the newest");
}

#[tokio::test]
async fn of_many_writers_at_once_exactly_one_wins_each_number() {
    let store = store();
    for number in 0..5_u64 {
        let mut writers = Vec::new();
        for _ in 0..8 {
            writers.push(open(&store).await.0);
        }
        let tries = writers.iter_mut().map(|writer| publish(writer, "x"));
        let results = futures::future::join_all(tries).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(open(&store).await.0.newest(), number + 1);
    }
}

#[tokio::test]
async fn every_flipped_bit_of_a_manifest_is_found_and_named() {
    let store = store();
    let (mut sequence, _) = open(&store).await;
    publish(&mut sequence, "whole").await.expect("nobody else writes");
    let path = sequence.path(1);
    let whole = read(store.as_ref(), &path).await.expect("it is there").expect("it is there");
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 1 << bit;
            store.put(&path, damaged.into()).await.expect("the store works");
            let opened = Sequence::open::<Said>(store.clone(), folder()).await;
            match opened.map(|(_, body)| body) {
                Err(Error::Corrupt { object, .. }) => assert_eq!(object, path.to_string()),
                other => panic!("bit {bit} of byte {at} went unnoticed: {other:?}"),
            }
        }
    }
}

/// Publishes ever longer texts, one letter more each, and gives the last.
pub(super) async fn grow(sequence: &mut Sequence, mut before: Said, letters: usize) -> Said {
    for _ in 0..letters {
        let next = body(&format!("{}x", before.text));
        let manifest = sequence.prepare_after(&before, &next).expect("a body is JSON");
        sequence.publish(manifest).await.expect("nobody else writes");
        sequence.collect().await;
        before = next;
    }
    before
}

#[tokio::test]
async fn what_changes_say_is_read_after_the_whole_that_they_follow() {
    let store = store();
    let (mut sequence, _) = open(&store).await;
    let mut said = body(&"long ".repeat(100_000));
    publish(&mut sequence, &said.text).await.expect("nobody else writes");
    for _ in 0..40 {
        said = grow(&mut sequence, said, 25).await;
        assert_eq!(open(&store).await.1.as_ref(), Some(&said));
    }
    let objects: Vec<_> = store.list(None).try_collect().await.expect("the store works");
    let whole = objects.iter().filter(|object| object.size > 500_000).count();
    let changes = objects.iter().filter(|object| object.size < 1_000).count();
    assert_eq!(whole + changes, objects.len());
    // The first is kept for ever; of the later, one whole and what follows it, or what comes before
    // the newest of it.
    assert!((2..=3).contains(&whole), "{whole} whole ones are there");
    assert!(changes <= CHANGES_MAX as usize, "{changes} changes are there");
}

#[tokio::test]
async fn changes_never_outgrow_what_they_change() {
    let store = store();
    let (mut sequence, _) = open(&store).await;
    let short = body("short");
    publish(&mut sequence, &short.text).await.expect("nobody else writes");
    let said = grow(&mut sequence, short, 30).await;
    assert_eq!(open(&store).await.1, Some(said));
    let (whole, _) = sequence.whole;
    assert!(sequence.newest - whole <= 2, "{} changes of a few bytes", sequence.newest - whole);
}

#[tokio::test]
async fn a_new_writer_begins_with_a_whole_manifest() {
    let store = store();
    let (mut old, _) = open(&store).await;
    let said = body(&"long ".repeat(1000));
    publish(&mut old, &said.text).await.expect("nobody else writes");
    let said = grow(&mut old, said, 5).await;
    let (mut new, newest) = open(&store).await;
    assert_eq!(newest.as_ref(), Some(&said));
    let longer = grow(&mut new, said.clone(), 1).await;
    let object = new.read(new.newest).await.expect("it is there");
    assert!(object.len() > 5_000, "it is a change of another writer's manifest");
    assert_eq!(open(&store).await.1, Some(longer));
    let late = body(&format!("{}y", said.text));
    let late = old.prepare_after(&said, &late).expect("a body is JSON");
    assert!(matches!(old.publish(late).await, Err(Error::Fenced { .. })));
}

#[tokio::test]
async fn a_damaged_or_missing_manifest_below_the_newest_is_named() {
    let store = store();
    let (mut sequence, _) = open(&store).await;
    let said = body(&"long ".repeat(1000));
    publish(&mut sequence, &said.text).await.expect("nobody else writes");
    grow(&mut sequence, said, 5).await;
    for number in 1..=6 {
        let path = sequence.path(number);
        let whole = read(store.as_ref(), &path).await.expect("it is there").expect("it is there");
        let mut damaged = whole.to_vec();
        damaged[whole.len() / 2] ^= 1;
        store.put(&path, damaged.into()).await.expect("the store works");
        let opened = Sequence::open::<Said>(store.clone(), folder()).await.map(|_| ());
        let named = |name: &str| *name == *path.as_ref();
        assert!(
            matches!(&opened, Err(Error::Corrupt { object, .. }) if named(object)),
            "{opened:?}"
        );
        if number < 6 {
            store.delete(&path).await.expect("it is there");
            let opened = Sequence::open::<Said>(store.clone(), folder()).await.map(|_| ());
            assert!(
                matches!(&opened, Err(Error::Missing { object }) if named(object)),
                "{opened:?}"
            );
        }
        store.put(&path, whole.into()).await.expect("the store works");
    }
}

#[tokio::test]
async fn a_writer_that_left_memory_goes_on_as_the_same_one_unless_another_has_come() {
    let store = store();
    let (mut sequence, _) = open(&store).await;
    assert!(sequence.rest().is_none(), "it has written nothing");
    for text in ["a", "b", "c", "d"] {
        publish(&mut sequence, text).await.expect("nobody else writes");
    }
    let resting = sequence.rest().expect("it has written");
    drop(sequence);
    let mut again = open(&store).await.0.resume(resting);
    for text in ["e", "f"] {
        publish(&mut again, text).await.expect("nobody else writes");
    }
    again.collect().await;
    let numbers = async || {
        let mut there = numbers(store.as_ref(), &folder()).await.expect("the store works");
        there.sort_unstable();
        there
    };
    assert_eq!(numbers().await, [1, 4, 5, 6], "it forgot what it may remove, or took over anew");

    let resting = again.rest().expect("it has written");
    let mut other = open(&store).await.0;
    publish(&mut other, "g").await.expect("nobody else writes");
    let mut late = open(&store).await.0.resume(resting);
    assert!(!late.has_written(), "it goes on though another has come");
    publish(&mut late, "h").await.expect("it is a new writer");
    other.collect().await;
    assert!(numbers().await.ends_with(&[7, 8]));
}
