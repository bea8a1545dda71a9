//! Disks that are lost, replaced, damaged, and that come back.

mod harness;

use anyhow::{Context, Result};
use harness::proposer::{Proposer, elect_patiently};
use harness::{Cluster, bounds, is_refusal, timeline};
use protocol::quorum::Refusal;

/// Whether a safekeeper takes part, as its status over HTTP says.
async fn takes_part(cluster: &Cluster, index: usize) -> Result<bool> {
    let all = cluster.http(index, "/v1/timelines").await?;
    Ok(all.as_array().is_some_and(|all| all.iter().all(|it| it["is_member"] == true)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_safekeeper_takes_no_part_until_it_recovered_and_nothing_is_lost() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append(b"on three").await?;
    // Committed by the first and the third alone.
    cluster.stop(1).await;
    proposer.append(b"on two").await?;
    let acknowledged = proposer.log.clone();
    let old = cluster.safekeepers[2].as_ref().context("it runs")?.identity();
    cluster.wipe(2).await?;
    cluster.start_one(2).await?;
    assert_ne!(cluster.safekeepers[2].as_ref().context("it runs")?.identity(), old);
    // The second lacks an acknowledged record. If the third voted with it, that record would be lost.
    cluster.stop(0).await;
    cluster.start_one(1).await?;
    for _ in 0..10 {
        let refused = Proposer::elect(&cluster.addresses[2..], timeline(1)).await;
        let refused = refused.err().context("it does not vote")?;
        assert!(is_refusal(&refused, |it| matches!(it, Refusal::NotMember { .. })), "{refused}");
        assert!(Proposer::elect(&cluster.addresses[1..], timeline(1)).await.is_err());
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    // With all there it recovers, and can stand in for the first.
    cluster.start_one(0).await?;
    let recovered = cluster.wait_for(2, timeline(1), |it| {
        it.configuration.as_ref().is_some_and(|configuration| configuration.generation == 2)
            && it.flush_lsn == proposer.end()
    });
    recovered.await?;
    cluster.stop(0).await;
    let mut next = elect_patiently(&cluster.addresses[1..], timeline(1), 2).await?;
    assert_eq!(next.log, acknowledged);
    assert_eq!(next.configuration.generation, 2);
    assert_eq!(next.append(b"goes on").await?, 2);
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposer_goes_on_in_its_term_while_a_disk_is_replaced() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append(&[1; 100_000]).await?;
    cluster.wipe(2).await?;
    cluster.start_one(2).await?;
    let admitted = |it: &protocol::quorum::TimelineStatus| {
        it.configuration.as_ref().is_some_and(|configuration| configuration.generation == 2)
    };
    cluster.wait_for(2, timeline(1), admitted).await?;
    cluster.wait_for(0, timeline(1), admitted).await?;
    cluster.wait_for(1, timeline(1), admitted).await?;
    // The old connections count by the old configuration.
    let refused = proposer.append(b"x").await.err().context("the configuration is old")?;
    let is_old = |it: &Refusal| *it == Refusal::OldConfiguration { asked: 1, known: 2 };
    assert!(is_refusal(&refused, is_old), "{refused}");
    for index in 0..3 {
        for attempt in 0.. {
            match proposer.join(index).await {
                Ok(()) => break,
                Err(error) if attempt == 4000 => return Err(error),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(30)).await,
            }
        }
    }
    assert_eq!(proposer.append(b"y").await?, 3);
    assert_eq!(proposer.commit_lsn, proposer.end());
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_timeline_begins_while_one_safekeeper_is_stopped() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    // All have entered their disks in the register.
    elect_patiently(&cluster.addresses, timeline(1), 3).await?;
    for node in 1..=3 {
        let entry = cluster.store_folder().join(format!("safekeepers/{node:010}/0000000001"));
        for _ in 0..6000 {
            if entry.exists() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    cluster.stop(1).await;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(2)).await?;
    assert_eq!(proposer.configuration.members.len(), 3);
    assert_eq!(proposer.append(b"x").await?, 2);
    cluster.start_one(1).await?;
    proposer.join(1).await?;
    assert_eq!(proposer.append(b"y").await?, 3);
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_gives_the_identity_up_and_recovers() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    for turn in 0..10 {
        proposer.append(&[turn; 5_000]).await?;
    }
    let old = cluster.safekeepers[0].as_ref().context("it runs")?.identity();
    cluster.stop(0).await;
    let segment = cluster.disk(0).join("journal/0000000001.segment");
    let mut bytes = std::fs::read(&segment)?;
    bytes[20_000] ^= 1;
    std::fs::write(&segment, bytes)?;
    cluster.start_one(0).await?;
    assert_ne!(cluster.safekeepers[0].as_ref().context("it runs")?.identity(), old);
    assert!(cluster.disk(0).join("journal.damaged").exists());
    cluster.wait_for(0, timeline(1), |it| it.flush_lsn == proposer.end()).await?;
    let next = elect_patiently(&cluster.addresses, timeline(1), 3).await?;
    assert_eq!(next.log, proposer.log);
    assert!(takes_part(&cluster, 0).await?);
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_replaced_does_not_come_back() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append(b"x").await?;
    cluster.stop(2).await;
    let (disk, aside) = (cluster.disk(2), cluster.folder.path().join("aside"));
    std::fs::rename(&disk, &aside)?;
    cluster.start_one(2).await?;
    elect_patiently(&cluster.addresses, timeline(1), 3).await?;
    // The old disk is put in again.
    cluster.stop(2).await;
    std::fs::remove_dir_all(&disk)?;
    std::fs::rename(&aside, &disk)?;
    cluster.start_one(2).await?;
    let mut refusals = 0;
    for _ in 0..20 {
        // The two others elect without it, which teaches it of nothing: it reads the register by itself.
        if let Err(error) = Proposer::elect(&cluster.addresses[2..], timeline(1)).await {
            refusals += usize::from(!error.to_string().is_empty());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(refusals, 20);
    let status = cluster.http(2, "/v1/status").await?;
    assert_eq!(status["is_replaced"], true);
    cluster.stop_all().await;
    Ok(())
}
