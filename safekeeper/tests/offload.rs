//! WAL on its way to the object store and back, and what happens when it cannot go there.

mod harness;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::proposer::Proposer;
use harness::wal::origin;
use harness::{Cluster, ask, bounds, is_refusal, read_committed, timeline};
use protocol::quorum::{Purpose, Refusal};
use safekeeper::Bounds;
use wal_format::Lsn;

async fn consume(cluster: &Cluster, lsn: Lsn) -> Result<()> {
    for address in &cluster.addresses {
        let purpose = Purpose::Consumed { remote_consistent_lsn: lsn };
        ask(*address, timeline(1), purpose).await?;
    }
    Ok(())
}

fn wal_objects(cluster: &Cluster) -> Result<Vec<PathBuf>> {
    let id = timeline(1);
    let folder = format!("tenants/{}/timelines/{}/wal", id.tenant, id.timeline);
    let entries = std::fs::read_dir(cluster.store_folder().join(folder))?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    paths.sort();
    Ok(paths)
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_is_offloaded_trimmed_and_read_back() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    // Over the end of one object: its successor begins at a multiple of the objects' size.
    proposer.append_many(7_000, 20 << 20).await?;
    proposer.append(b"the end").await?;
    let (begin, end) = (origin().point.lsn, proposer.end());
    for index in 0..3 {
        let status = cluster.wait_for(index, timeline(1), |it| it.offloaded_lsn == end).await?;
        assert_eq!(status.local_start_lsn, begin, "the pageserver still needs it");
    }
    consume(&cluster, end).await?;
    for index in 0..3 {
        cluster.wait_for(index, timeline(1), |it| it.local_start_lsn == end).await?;
    }
    let first_end = Lsn(32 << 20);
    let names: Vec<String> = wal_objects(&cluster)?
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    assert!(names.contains(&format!("{:016X}-{:016X}", begin.0, first_end.0)), "{names:?}");
    proposer.append(b"in the journal").await?;
    let wal = read_committed(cluster.addresses[0], timeline(1), begin, proposer.end()).await?;
    assert_eq!(wal, proposer.log);
    // A restarted safekeeper knows where its WAL is.
    cluster.stop(0).await;
    cluster.start_one(0).await?;
    let later = Lsn(first_end.0 - 100);
    let wal = read_committed(cluster.addresses[0], timeline(1), later, end).await?;
    assert_eq!(
        wal[..end.since(later) as usize],
        proposer.log[later.since(begin) as usize..end.since(begin) as usize]
    );
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_refused_by_name_and_offset() -> Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append_many(5_000, 300_000).await?;
    let (begin, end) = (origin().point.lsn, proposer.end());
    cluster.wait_for(0, timeline(1), |it| it.offloaded_lsn == end).await?;
    consume(&cluster, end).await?;
    cluster.wait_for(0, timeline(1), |it| it.local_start_lsn == end).await?;
    for path in wal_objects(&cluster)? {
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes)?;
    }
    let refused = read_committed(cluster.addresses[0], timeline(1), begin, end).await;
    let refused = refused.err().context("nothing damaged is served")?;
    assert!(is_refusal(&refused, |it| matches!(it, Refusal::Damaged(_))), "{refused}");
    let (refused, name) = (refused.to_string(), format!("{:016X}-", begin.0));
    assert!(refused.contains(&name) && refused.contains("offset"), "{refused}");
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_byte_of_a_running_journal_is_refused_by_segment_and_offset() -> Result<()> {
    let cluster = Cluster::start(Bounds { offload_idle: harness::PATIENCE, ..bounds() }).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    let before = proposer.end();
    proposer.append(b"this is what the disk loses").await?;
    let (begin, end) = (origin().point.lsn, proposer.end());
    let segment = cluster.disk(0).join("journal/0000000001.segment");
    let mut bytes = std::fs::read(&segment)?;
    let content = b"this is what the disk loses";
    let place = bytes.windows(content.len()).position(|window| window == content);
    bytes[place.context("the content is in the journal")?] ^= 4;
    std::fs::write(&segment, bytes)?;
    let refused = read_committed(cluster.addresses[0], timeline(1), begin, end).await;
    let refused = refused.err().context("nothing damaged is served")?;
    assert!(is_refusal(&refused, |it| matches!(it, Refusal::Damaged(_))), "{refused}");
    let refused = refused.to_string();
    assert!(refused.contains("segment 1") && refused.contains("at offset"), "{refused}");
    // What lies before it is served, and the others have it all.
    let whole = read_committed(cluster.addresses[0], timeline(1), begin, before).await?;
    assert_eq!(whole, proposer.log[..before.since(begin) as usize]);
    let other = read_committed(cluster.addresses[1], timeline(1), begin, end).await?;
    assert_eq!(other, proposer.log);
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_timeline_is_forgotten_and_leaves_no_new_objects() -> Result<()> {
    let mut cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    let mut other = Proposer::elect(&cluster.addresses, timeline(2)).await?;
    other.append(b"stays").await?;
    proposer.append(b"goes").await?;
    for index in 0..3 {
        cluster.wait_for(index, timeline(1), |it| it.offloaded_lsn == proposer.end()).await?;
    }
    proposer.append(&[1; 5_000]).await?;
    let id = timeline(1);
    let folder = cluster.store_folder();
    let folder = folder.join(format!("tenants/{}/timelines/{}", id.tenant, id.timeline));
    std::fs::remove_dir_all(&folder)?;
    for index in 0..3 {
        cluster.wait_for(index, id, |it| it.origin.is_none()).await?;
    }
    assert!(proposer.append(b"nobody takes it").await.is_err());
    assert!(!folder.exists());
    // It stays forgotten, and the other one known.
    cluster.stop(0).await;
    cluster.start_one(0).await?;
    assert!(cluster.status(0, id).await?.origin.is_none());
    assert_eq!(cluster.status(0, timeline(2)).await?.flush_lsn, other.end());
    cluster.stop_all().await;
    Ok(())
}

/// Puts a file where the object store's folder was: whatever is asked of it fails.
fn take_store_away(cluster: &Cluster) -> Result<()> {
    std::fs::rename(cluster.store_folder(), cluster.folder.path().join("away"))?;
    std::fs::write(cluster.store_folder(), b"")?;
    Ok(())
}

fn bring_store_back(cluster: &Cluster) -> Result<()> {
    std::fs::remove_file(cluster.store_folder())?;
    std::fs::rename(cluster.folder.path().join("away"), cluster.store_folder())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_without_the_object_store_and_offload_resumes() -> Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append(b"x").await?;
    cluster.wait_for(0, timeline(1), |it| it.offloaded_lsn == proposer.end()).await?;
    take_store_away(&cluster)?;
    for _ in 0..5 {
        assert_eq!(proposer.append(&[3; 10_000]).await?, 3);
    }
    // A takeover needs nothing of the store either.
    let mut next = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    assert_eq!(next.append(b"y").await?, 3);
    let status = cluster.status(0, timeline(1)).await?;
    assert!(status.offloaded_lsn < status.commit_lsn);
    bring_store_back(&cluster)?;
    for index in 0..3 {
        cluster.wait_for(index, timeline(1), |it| it.offloaded_lsn == next.end()).await?;
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_that_passes_its_bound_is_refused_until_there_is_room() -> Result<()> {
    let small = Bounds { timeline_bytes_max: 200_000, ..bounds() };
    let cluster = Cluster::start(small).await?;
    let mut proposer = Proposer::elect(&cluster.addresses, timeline(1)).await?;
    proposer.append(b"x").await?;
    cluster.wait_for(0, timeline(1), |it| it.offloaded_lsn == proposer.end()).await?;
    take_store_away(&cluster)?;
    proposer.append(&[1; 210_000]).await?;
    let full = proposer.append(b"one more").await.err().context("the bound holds")?;
    assert!(is_refusal(&full, |it| matches!(it, Refusal::Full(_))), "{full}");
    // Another timeline has its own share.
    bring_store_back(&cluster)?;
    let mut other = Proposer::elect(&cluster.addresses, timeline(2)).await?;
    assert_eq!(other.append(b"x").await?, 3);
    // Offloaded WAL makes room, also where the pageserver has not seen it.
    let deadline = tokio::time::Instant::now() + harness::PATIENCE;
    loop {
        let mut joined = 0;
        for index in 0..3 {
            joined += usize::from(proposer.join(index).await.is_ok());
        }
        if joined == 3 && proposer.append(b"goes on").await.is_ok() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "there is room again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(proposer.commit_lsn, proposer.end());
    let wal = read_committed(cluster.addresses[1], timeline(1), origin().point.lsn, proposer.end());
    assert_eq!(wal.await?, proposer.log);
    cluster.stop_all().await;
    Ok(())
}
