//! Proposers and readers against three safekeepers over TCP.

mod harness;

use anyhow::{Context, Result};
use harness::proposer::{Proposer, elect_patiently};
use harness::wal::origin;
use harness::{Cluster, Frames, bounds, is_refusal, read_committed, timeline};
use protocol::Term;
use protocol::quorum::{Purpose, ReadLimit, ReaderMessage, Refusal};
use wal_format::Lsn;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_quorum_flushed_is_there_after_all_were_restarted() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    for turn in 0..20usize {
        assert_eq!(proposer.append(&vec![turn as u8; turn * 900]).await?, 3);
    }
    assert_eq!(proposer.commit_lsn, proposer.end());
    for index in 0..3 {
        cluster.stop(index).await;
    }
    for index in 0..3 {
        cluster.start_one(index).await?;
    }
    let next = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    assert_eq!(next.log, proposer.log);
    assert_eq!(next.term, proposer.term.next());
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_commits_the_old_log_without_a_new_byte() -> Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let first = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    assert_eq!(first.commit_lsn, origin().point.lsn);
    let mut second = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    second.append(b"x").await?;
    let third = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    assert_eq!(third.commit_lsn, second.end());
    let fourth = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    // Terms of zero length are part of the history.
    assert_eq!(fourth.history.entries().len(), 4);
    let status = cluster.status(0, timeline(1)).await?;
    assert_eq!((status.term, status.history.last_term()), (Term(4), Term(4)));
    assert_eq!(status.flush_lsn, second.end());
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_proposers_wins_and_the_earlier_is_fenced() -> Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut earlier = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    earlier.append(b"acknowledged").await?;
    let acknowledged = earlier.log.clone();
    let mut later = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    assert_eq!(later.log, acknowledged);
    let fenced = earlier.append(b"too late").await.err().context("nothing may be acknowledged")?;
    let fence = Refusal::Fenced { asked: earlier.term, known: later.term };
    assert!(is_refusal(&fenced, |it| *it == fence), "{fenced}");
    let fenced = earlier.join(0).await.err().context("an old term stays fenced")?;
    assert!(is_refusal(&fenced, |it| *it == fence), "{fenced}");
    assert_eq!(later.append(b"goes on").await?, 3);
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stopped_does_not_stop_commits_and_catches_up_later() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append(b"with three").await?;
    cluster.stop(2).await;
    assert_eq!(proposer.append(&[2; 50_000]).await?, 2);
    assert_eq!(proposer.commit_lsn, proposer.end());
    cluster.start_one(2).await?;
    proposer.join(2).await?;
    assert_eq!(proposer.append(b"with three again").await?, 3);
    let status = cluster.status(2, timeline(1)).await?;
    assert_eq!(status.flush_lsn, proposer.end());
    assert!(status.proposer_connected);
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_stopped_nothing_is_committed_and_nothing_is_lost() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append(b"committed").await?;
    let committed = proposer.end();
    cluster.stop(1).await;
    cluster.stop(2).await;
    assert!(proposer.append(b"waits").await.is_err());
    assert_eq!(proposer.commit_lsn, committed);
    cluster.start_one(2).await?;
    proposer.join(2).await?;
    assert_eq!(proposer.append(b"goes on").await?, 2);
    assert_eq!(proposer.commit_lsn, proposer.end());
    cluster.start_one(1).await?;
    let next = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    assert_eq!(next.log, proposer.log);
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_pushed_what_is_committed_and_no_more() -> Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    let from = origin().point.lsn;
    let purpose = Purpose::Read { from, limit: ReadLimit::Commit };
    let mut reader = Frames::connect(cluster.addresses[1], timeline(1), purpose).await?;
    let mut read = Vec::new();
    for turn in 0..10 {
        proposer.append(&[turn; 30_000]).await?;
        while read.len() < proposer.log.len() {
            let (message, wal) = reader.next().await?.context("the stream goes on")?;
            let ReaderMessage::Wal { begin, commit_lsn, term } = message else {
                panic!("WAL was expected, {message:?} was found");
            };
            assert_eq!(begin, from + read.len() as u64);
            assert!(begin + wal.len() as u64 <= commit_lsn && commit_lsn <= proposer.end());
            assert_eq!(term, proposer.term);
            read.extend_from_slice(&wal);
        }
    }
    assert_eq!(read, proposer.log);
    // Without news there is a heartbeat, and a new term is news.
    let next = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    loop {
        let (message, wal) = reader.next().await?.context("the stream goes on")?;
        assert!(wal.is_empty());
        if matches!(message, ReaderMessage::Wal { term, .. } if term == next.term) {
            break;
        }
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_by_name() -> Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append(b"x").await?;
    let (address, origin) = (cluster.addresses[0], origin().point.lsn);
    let early = read_committed(address, timeline(1), Lsn(origin.0 - 8), origin).await;
    let early = early.err().context("that WAL is the ancestor's")?;
    assert!(is_refusal(
        &early,
        |it| matches!(it, Refusal::NotAvailable { from, .. } if *from == origin)
    ));
    let unknown = read_committed(address, timeline(9), origin, origin + 8).await;
    let unknown = unknown.err().context("nobody knows it")?;
    assert!(is_refusal(&unknown, |it| *it == Refusal::UnknownTimeline(timeline(9))));
    for (last_log_term, until) in [(Term(7), proposer.end()), (proposer.term, proposer.end() + 8)] {
        let limit = ReadLimit::Flush { last_log_term, until };
        let purpose = Purpose::Read { from: origin, limit };
        let mut frames = Frames::connect(address, timeline(1), purpose).await?;
        let answer = frames.next::<ReaderMessage>().await?.context("an answer")?.0;
        assert!(
            matches!(answer, ReaderMessage::Refused(Refusal::NotAvailable { .. })),
            "{answer:?}"
        );
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_timelines_that_commit_at_once_share_fdatasyncs() -> Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut proposers = Vec::new();
    for number in 0..8 {
        proposers.push(elect_patiently(&cluster.addresses, timeline(number), 3).await?);
    }
    let before = cluster.http(0, "/v1/status").await?;
    let appends = proposers.iter_mut().map(|proposer| async {
        for _ in 0..50 {
            proposer.append(&[1; 400]).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(appends).await?;
    let after = cluster.http(0, "/v1/status").await?;
    let rise = |counter: &str| {
        let count = |status: &serde_json::Value| status["journal"][counter].as_u64().unwrap_or(0);
        count(&after) - count(&before)
    };
    assert!(rise("entries") >= 400);
    assert!(rise("syncs") < rise("entries"), "{} for {}", rise("syncs"), rise("entries"));
    let all = cluster.http(0, "/v1/timelines").await?;
    assert_eq!(all.as_array().map(Vec::len), Some(8));
    assert_eq!(all[3]["timeline_id"], timeline(3).timeline.to_string());
    assert_eq!(all[3]["flush_lsn"], proposers[3].end().to_string());
    assert_eq!(all[3]["is_member"], true);
    cluster.stop_all().await;
    Ok(())
}
