//! With a small page server.

use wal_format::{Fork, Relation};

use super::*;
use crate::test_page_server::{BASE, Content, PageServer, page_of, timeline};
use access::Bearer;
use protocol::page_service::PageError;

const FORK: RelationFork = RelationFork {
    relation: Relation { tablespace: 1663, database: 5, number: 1259 },
    fork: Fork::Main,
};
const BLOCKS: u32 = 10;

async fn server() -> PageServer {
    let bytes = (0..BLOCKS).flat_map(page_of).collect();
    PageServer::start(Content { forks: [(FORK, bytes)].into(), ..Content::default() }).await
}

async fn early_pages(server: &PageServer) -> Arc<EarlyPages> {
    let of = (timeline(), None);
    let wait = Duration::from_secs(10);
    let connected = PageClient::connect(server.address, of, &Bearer::default(), wait).await;
    let (client, _) = connected.expect("the server is there");
    Arc::new(EarlyPages::new(RemotePages { client, base: BASE, commit: Box::new(|| BASE) }))
}

fn list(blocks: impl IntoIterator<Item = u32>) -> StartList {
    let mut list = StartList::default();
    blocks.into_iter().for_each(|block| list.add(FORK.block(block)));
    list
}

fn expected(first: u32, count: u32) -> Vec<u8> {
    (first..first + count).flat_map(page_of).collect()
}

const SIZES: [ForkSize; 1] = [ForkSize { fork: FORK, blocks: BLOCKS }];

#[tokio::test]
async fn pages_of_the_list_come_in_one_request_and_others_in_their_own() {
    let server = server().await;
    let early = early_pages(&server).await;
    early.ask(&list([2, 3, 4, 7]), &SIZES);
    for (first, count) in [(3, 2), (7, 1), (2, 1), (5, 2)] {
        let pages = early.pages(FORK, first, count).await.expect("pages");
        assert_eq!(pages, expected(first, count), "{first} {count}");
    }
    let content = server.content.lock();
    assert_eq!(
        content.batches,
        [vec![2, 3, 4, 7].into_iter().map(|b| FORK.block(b)).collect::<Vec<_>>()]
    );
    assert_eq!(content.asked, [(FORK, 5, 2)]);
}

#[tokio::test]
async fn a_page_is_given_early_once() {
    let server = server().await;
    let early = early_pages(&server).await;
    early.ask(&list([2]), &SIZES);
    for _ in 0..2 {
        assert_eq!(early.pages(FORK, 2, 1).await.expect("a page"), expected(2, 1));
    }
    assert_eq!(server.content.lock().asked, [(FORK, 2, 1)]);
}

#[tokio::test]
async fn what_is_not_there_any_more_is_not_asked_for() {
    let server = server().await;
    let early = early_pages(&server).await;
    let mut list = list([9, 10, 11]);
    let gone = Relation { number: 4711, ..FORK.relation };
    list.add(gone.fork(Fork::Main).block(0));
    early.ask(&list, &SIZES);
    assert_eq!(early.pages(FORK, 9, 1).await.expect("a page"), expected(9, 1));
    assert_eq!(server.content.lock().batches, [vec![FORK.block(9)]]);
}

#[tokio::test]
async fn pages_that_do_not_come_early_are_asked_for_again() {
    let server = server().await;
    let refusal = PageError::Invalid("not now".to_owned());
    server.content.lock().failures.push_back(refusal);
    let early = early_pages(&server).await;
    early.ask(&list([2, 3]), &SIZES);
    assert_eq!(early.pages(FORK, 2, 2).await.expect("pages"), expected(2, 2));
    assert_eq!(server.content.lock().asked, [(FORK, 2, 2)]);
}

#[tokio::test]
async fn the_list_of_a_start_has_what_was_read_until_its_end() {
    let server = server().await;
    let early = early_pages(&server).await;
    early.ask(&list([1, 2]), &SIZES);
    for (first, count) in [(6, 2), (2, 1)] {
        early.pages(FORK, first, count).await.expect("pages");
    }
    assert_eq!(early.end(), list([6, 7, 2]), "nobody wanted block 1");
    early.pages(FORK, 9, 1).await.expect("a page");
    assert_eq!(early.end(), StartList::default());
}

#[test]
fn a_timeline_without_a_list_begins_with_that_of_the_last_one_that_had_none() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    for keep in [&a, &b, &c] {
        std::fs::create_dir(keep)?;
    }
    assert_eq!(ListFiles::of(&a).read(), StartList::default());
    ListFiles::of(&a).write(&list([1]))?;
    assert_eq!(ListFiles::of(&b).read(), list([1]));
    ListFiles::of(&b).write(&list([2]))?;
    ListFiles::of(&a).write(&list([3]))?;
    assert_eq!(ListFiles::of(&a).read(), list([3]));
    assert_eq!(ListFiles::of(&c).read(), list([2]));
    Ok(())
}
