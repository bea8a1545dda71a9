//! The page service: versions, fences, bounds, many requests at once.

use std::{collections::HashSet, time::Instant};

use anyhow::{Context, Result};
use protocol::{
    TenantId, TenantTimeline, Term, TimelineId,
    page_service::{
        Hello, PROTOCOL_VERSION, PageError, REQUEST_PAGES_MAX, ReadAt, Request, Response,
    },
};
use redo_oracle::cluster::Cluster;
use wal_format::{Lsn, PAGE_BYTES, Page, Relation, RelationFork};

use crate::{
    page_client::{PageClient, at},
    world::{PG_CLASS, World, enable_checksums, wal_end},
};

/// A tenant of a fresh cluster, and where its WAL begins.
async fn tenant(world: &World, cluster: &Cluster) -> Result<(TenantTimeline, Lsn)> {
    world.import("stock", &cluster.data()).await?;
    Ok((world.tenant("acme", "stock").await?, wal_end(&cluster.data())?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compute_of_an_older_term_is_fenced_for_ever() -> Result<()> {
    let mut world = World::new().await?;
    let cluster = Cluster::create("")?;
    let (timeline, start) = tenant(&world, &cluster).await?;
    let mut reader = world.connect(timeline, None).await?;
    let mut old = world.connect(timeline, Some(3)).await?;
    assert!(old.range(at(start), PG_CLASS, 0, 1).await?.is_ok());

    let mut new = world.connect(timeline, Some(5)).await?;
    let fenced = PageError::Fenced { asked: Term(3), known: Term(5) };
    assert_eq!(old.range(at(start), PG_CLASS, 0, 1).await?, Err(fenced.clone()));
    assert_eq!(old.base_backup(start).await?.err(), Some(fenced.clone()));
    assert!(new.range(at(start), PG_CLASS, 0, 1).await?.is_ok());
    assert!(reader.range(at(start), PG_CLASS, 0, 1).await?.is_ok(), "a reader is never fenced");
    let again = PageClient::connect(world.page_addr(), timeline, Some(Term(3))).await?;
    assert_eq!(again.err(), Some(fenced.clone()));

    world.restart().await?;
    let again = PageClient::connect(world.page_addr(), timeline, Some(Term(3))).await?;
    assert_eq!(again.err(), Some(fenced));
    assert!(world.connect(timeline, Some(5)).await.is_ok());

    // A term that only the safekeepers have seen yet.
    world.serve_wal(timeline, &cluster)?;
    let mut served = crate::wal_server::Served {
        wal: cluster.data().join("pg_wal"),
        commit_lsn: start,
        term: Term(7),
        damaged_at: None,
    };
    let mut live = world.connect(timeline, Some(5)).await?;
    world.wal.serve(timeline, served.clone());
    let fenced = PageError::Fenced { asked: Term(5), known: Term(7) };
    let began = Instant::now();
    while live.range(at(start), PG_CLASS, 0, 1).await? != Err(fenced.clone()) {
        assert!(began.elapsed().as_secs() < 120, "the safekeeper's term was not learnt");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    served.term = Term(1);
    world.wal.serve(timeline, served);
    assert_eq!(live.range(at(start), PG_CLASS, 0, 1).await?, Err(fenced), "terms do not go back");
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_ingest_a_bounded_time_and_says_how_far_it_is() -> Result<()> {
    let world = World::new().await?;
    let mut cluster = Cluster::create("wal_keep_size = 1GB\n")?;
    let (timeline, start) = tenant(&world, &cluster).await?;
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 100) n")?;
    cluster.stop()?;
    let end = wal_end(&cluster.data())?;

    let mut client = world.connect(timeline, None).await?;
    let began = Instant::now();
    let late = client.range(at(end), PG_CLASS, 0, 1).await?;
    assert_eq!(late, Err(PageError::NotYet { asked: end, ingested: start }));
    let waited = began.elapsed().as_secs();
    assert!(waited >= 9, "it waited {waited} s");

    let id = client.send(Request::Relations { at: at(end) }).await?;
    world.serve_wal(timeline, &cluster)?;
    let (frame, _) = client.receive().await?.context("an answer")?;
    assert_eq!(frame.id, id);
    assert!(matches!(frame.response, Response::Relations { lsn, .. } if lsn == end));
    // Between the two, the newest that is there.
    let between = ReadAt { request_lsn: Lsn::MAX, not_modified_since: start };
    let (response, _) = client.ask(Request::Relations { at: between }).await?;
    assert!(matches!(response, Response::Relations { lsn, .. } if lsn == end));
    // The past is still there.
    let (response, _) = client.ask(Request::Relations { at: at(start) }).await?;
    assert!(matches!(response, Response::Relations { lsn, .. } if lsn == start));
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_valid_checksums_and_those_beyond_the_end_are_zeros() -> Result<()> {
    let world = World::new().await?;
    let mut cluster = Cluster::create("wal_keep_size = 1GB\n")?;
    enable_checksums(&cluster)?;
    let (timeline, _) = tenant(&world, &cluster).await?;
    cluster.start()?;
    cluster
        .sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 30000) n; DELETE FROM t")?;
    cluster.stop()?;
    let end = world.serve_wal(timeline, &cluster)?;
    let mut client = world.connect(timeline, None).await?;
    let mut checked = 0;
    for size in client.relations(at(end)).await? {
        let count = size.blocks.saturating_add(2).min(REQUEST_PAGES_MAX);
        let pages = client.range(at(end), size.fork, 0, count).await??;
        for (block, bytes) in (0..).zip(pages.chunks(PAGE_BYTES)) {
            let page = Page::from_slice(bytes).context("a whole page")?;
            assert!(page.is_zero() || page.verify_checksum(block), "{} block {block}", size.fork);
            assert!(block < size.blocks || page.is_zero(), "{} goes on at {block}", size.fork);
            checked += 1;
        }
    }
    assert!(checked > 1000, "only {checked} pages were checked");
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_in_its_own_order() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    let (timeline, start) = tenant(&world, &cluster).await?;
    let mut client = world.connect(timeline, None).await?;
    let attribute =
        RelationFork { relation: Relation { number: 1249, ..PG_CLASS.relation }, ..PG_CLASS };
    let pages = [
        PG_CLASS.block(4),
        PG_CLASS.block(5),
        attribute.block(2),
        PG_CLASS.block(0),
        PG_CLASS.block(0),
        attribute.block(1_000_000),
    ];
    let request = Request::Batch { at: at(start), pages: pages.to_vec() };
    let (response, payload) = client.ask(request).await?;
    assert_eq!(response, Response::Pages { lsn: start });
    assert_eq!(payload.len(), pages.len() * PAGE_BYTES);
    for (page, served) in pages.iter().zip(payload.chunks(PAGE_BYTES)) {
        let alone = client.range(at(start), page.fork, page.block, 1).await??;
        assert!(alone == served, "{page} differs in the batch");
    }
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_are_in_flight_and_each_is_answered_once() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    let (timeline, start) = tenant(&world, &cluster).await?;
    let mut client = world.connect(timeline, None).await?;
    // This one waits in vain; the others do not wait for it.
    let waits = client.send(Request::BaseBackup { lsn: start + 8 }).await?;
    let mut open = HashSet::new();
    for n in 0..500 {
        let request = Request::Range { at: at(start), fork: PG_CLASS, first: n % 20, count: 1 };
        open.insert(client.send(request).await?);
    }
    while !open.is_empty() {
        let (frame, payload) = client.receive().await?.context("an answer")?;
        assert!(open.remove(&frame.id), "request {} was answered twice", frame.id);
        assert_eq!(payload.len(), PAGE_BYTES);
    }
    let (frame, _) = client.receive().await?.context("the last answer")?;
    assert_eq!(frame.id, waits);
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused_and_the_connection_goes_on() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    let (timeline, start) = tenant(&world, &cluster).await?;
    let mut client = world.connect(timeline, None).await?;
    let range = |first, count| Request::Range { at: at(start), fork: PG_CLASS, first, count };
    let backwards = ReadAt { request_lsn: start, not_modified_since: start + 8 };
    let senseless = [
        range(0, 0),
        range(0, REQUEST_PAGES_MAX + 1),
        range(u32::MAX, 1),
        range(u32::MAX - 1, 3),
        Request::Batch { at: at(start), pages: Vec::new() },
        Request::Batch { at: at(start), pages: vec![PG_CLASS.block(u32::MAX)] },
        Request::Relations { at: backwards },
    ];
    for request in senseless {
        let (response, _) = client.ask(request.clone()).await?;
        let invalid = matches!(response, Response::Failed(PageError::Invalid(_)));
        assert!(invalid, "{request:?} was answered by {response:?}");
    }
    let gone = client.range(at(Lsn(8)), PG_CLASS, 0, 1).await?;
    assert!(matches!(gone, Err(PageError::Gone { oldest, .. }) if oldest == start), "{gone:?}");
    assert!(client.range(at(start), PG_CLASS, 0, 1).await?.is_ok());
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_turned_away() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    let (timeline, _) = tenant(&world, &cluster).await?;
    let unknown =
        TenantTimeline { tenant: TenantId::from_bits(1), timeline: TimelineId::from_bits(2) };
    let refused = PageClient::connect(world.page_addr(), unknown, None).await?;
    assert!(matches!(refused.err(), Some(PageError::NotFound(_))));
    let other_timeline = TenantTimeline { timeline: TimelineId::from_bits(2), ..timeline };
    let refused = PageClient::connect(world.page_addr(), other_timeline, None).await?;
    assert!(matches!(refused.err(), Some(PageError::NotFound(_))));

    let hello = Hello { version: PROTOCOL_VERSION + 1, timeline, term: None, token: None };
    let refused = PageClient::connect_as(world.page_addr(), hello).await?;
    assert!(matches!(refused.err(), Some(PageError::Invalid(_))));

    // What is no frame, or claims too much, ends the connection and nothing else.
    for bytes in [&[0xFF; 64][..], &[200, 0, 0, 0, 0, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9]]
    {
        let mut client = world.connect(timeline, None).await?;
        client.send_raw(bytes).await?;
        if bytes.len() > 8 {
            assert!(!matches!(client.receive().await, Ok(Some(_))), "it was answered");
        }
    }
    assert!(world.connect(timeline, None).await.is_ok());
    world.stop().await;
    Ok(())
}
