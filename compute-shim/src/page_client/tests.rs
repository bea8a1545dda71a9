//! The client against a server that speaks the protocol over TCP.

use wal_format::{Fork, Relation};

use super::*;
use crate::test_page_server::{BASE, Content, PageServer, page_of, timeline};

const WAIT: Duration = Duration::from_secs(60);
const AT: ReadAt = ReadAt { request_lsn: BASE, not_modified_since: BASE };

fn fork() -> RelationFork {
    Relation { tablespace: 1663, database: 5, number: 16384 }.fork(Fork::Main)
}

fn content(blocks: u32) -> Content {
    let pages = (0..blocks).flat_map(page_of).collect();
    Content { forks: [(fork(), pages)].into(), ..Content::default() }
}

async fn connected(server: &PageServer) -> PageClient {
    let (client, welcome) =
        PageClient::connect(server.address, (timeline(), None), &access::Bearer::nobody(), WAIT)
            .await
            .expect("it connects");
    assert_eq!(welcome.last_record_lsn, BASE);
    client
}

#[tokio::test]
async fn many_requests_are_in_flight_and_each_has_its_own_answer() {
    let server = PageServer::start(content(200)).await;
    server.content.lock().together = 200;
    let client = connected(&server).await;
    let reads = (0..200).map(|block| {
        let client = client.clone();
        async move { (block, client.pages(AT, fork(), block, 1).await) }
    });
    for (block, page) in futures::future::join_all(reads).await {
        assert_eq!(page.expect("the page is there"), page_of(block), "block {block}");
    }
}

#[tokio::test]
async fn a_range_across_the_end_is_zeros_beyond_it() {
    let server = PageServer::start(content(2)).await;
    let client = connected(&server).await;
    let pages = client.pages(AT, fork(), 1, 3).await.expect("the range is served");
    assert_eq!(pages.len(), 3 * PAGE_BYTES);
    assert_eq!(pages[..PAGE_BYTES], page_of(1));
    assert!(pages[PAGE_BYTES..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn requests_outlive_a_restart_of_the_pageserver() {
    let server = PageServer::start(content(4)).await;
    server.content.lock().silent = 4;
    let client = connected(&server).await;
    let reads: Vec<_> = (0..4)
        .map(|block| {
            let client = client.clone();
            tokio::spawn(async move { client.pages(AT, fork(), block, 1).await })
        })
        .collect();
    while server.content.lock().silent > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let address = server.address;
    let content = server.stop().await;
    sleep(Duration::from_millis(50)).await;
    let _server = PageServer::start_at(address, content).await;
    for (block, read) in (0..).zip(reads) {
        let page = read.await.expect("the task ends").expect("the page is there");
        assert_eq!(page, page_of(block));
    }
}

#[tokio::test]
async fn a_passing_refusal_is_asked_again_and_a_lasting_one_is_said() {
    let server = PageServer::start(content(1)).await;
    let client = connected(&server).await;
    server.content.lock().failures = [
        PageError::Unavailable("the store is away".to_owned()),
        PageError::NotYet { asked: BASE, ingested: Lsn(8) },
    ]
    .into();
    assert_eq!(client.pages(AT, fork(), 0, 1).await.expect("after two refusals"), page_of(0));
    let corrupt = PageError::Corrupt("layer 7 at offset 12".to_owned());
    server.content.lock().failures = [corrupt.clone()].into();
    let error = client.pages(AT, fork(), 0, 1).await.expect_err("the layer is damaged");
    assert!(matches!(&error, ShimError::Page(said) if *said == corrupt), "{error}");
    assert_eq!(client.pages(AT, fork(), 0, 1).await.expect("the connection goes on"), page_of(0));
}

#[tokio::test]
async fn an_answer_that_never_comes_is_waited_for_no_longer_than_the_bound() {
    let server = PageServer::start(content(1)).await;
    let client = connected(&server).await;
    server.content.lock().silent = usize::MAX;
    let request = Request::Range { at: AT, fork: fork(), first: 0, count: 1 };
    let wait = Duration::from_millis(200);
    let begun = Instant::now();
    let error = client.ask(request, wait).await.expect_err("nobody answers");
    assert!(matches!(error, ShimError::Unavailable(_)), "{error}");
    assert!(begun.elapsed() >= wait, "it was not waited for");
    assert!(client.shared.pending.lock().is_empty(), "it is still waited for");
}

#[tokio::test]
async fn an_older_term_is_fenced_at_the_greeting_and_at_a_request() {
    let server = PageServer::start(content(1)).await;
    server.content.lock().term = Term(5);
    let refused = PageClient::connect(
        server.address,
        (timeline(), Some(Term(4))),
        &access::Bearer::nobody(),
        WAIT,
    )
    .await;
    assert!(matches!(refused, Err(ShimError::Fenced(_))), "a lower term was let in");

    let (client, _) = PageClient::connect(
        server.address,
        (timeline(), Some(Term(5))),
        &access::Bearer::nobody(),
        WAIT,
    )
    .await
    .expect("it is the newest");
    let fence = PageError::Fenced { asked: Term(5), known: Term(6) };
    server.content.lock().failures = [fence].into();
    let error = client.pages(AT, fork(), 0, 1).await.expect_err("a newer one was elected");
    assert!(matches!(error, ShimError::Fenced(_)), "{error}");
    assert!(matches!(client.fenced().await, ShimError::Fenced(_)), "nobody is told");
}

#[tokio::test]
async fn a_pageserver_that_is_not_there_is_unavailable() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    drop(listener);
    let wait = Duration::from_millis(100);
    let refused =
        PageClient::connect(address, (timeline(), None), &access::Bearer::nobody(), wait).await;
    assert!(matches!(refused, Err(ShimError::Unavailable(_))), "nobody is there");
}
