use std::time::Duration;

use bytes::Buf;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::*;
use crate::{
    StartWal,
    test_quorum::{Quorum, timeline},
    test_wal::{TestWal, origin_at},
};

/// In the middle of a page, in the middle of a segment.
const BEGIN: Lsn = Lsn(0x0142_1F58);
const SEGMENT: Lsn = Lsn(0x0100_0000);
const PATIENCE: Duration = Duration::from_secs(60);

/// A walreceiver, as far as its words go.
struct Receiver {
    stream: UnixStream,
}

impl Receiver {
    async fn connect(feed: &WalFeed) -> anyhow::Result<Receiver> {
        let mut stream = UnixStream::connect(feed.folder.join(format!(".s.PGSQL.{PORT}"))).await?;
        // It asks for TLS first, as libpq may, and is told that there is none.
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        anyhow::ensure!(stream.read_u8().await? == b'N');
        let parameters = b"user\0standby\0replication\0true\0\0";
        stream.write_u32(8 + parameters.len() as u32).await?;
        stream.write_u32(196_608).await?;
        stream.write_all(parameters).await?;
        let mut receiver = Receiver { stream };
        receiver.until(b'Z').await?;
        Ok(receiver)
    }

    async fn query(&mut self, text: &str) -> anyhow::Result<()> {
        self.send(b'Q', format!("{text}\0").as_bytes()).await
    }

    async fn send(&mut self, tag: u8, body: &[u8]) -> anyhow::Result<()> {
        self.stream.write_u8(tag).await?;
        self.stream.write_u32(4 + body.len() as u32).await?;
        Ok(self.stream.write_all(body).await?)
    }

    async fn message(&mut self) -> anyhow::Result<(u8, Vec<u8>)> {
        let tag = self.stream.read_u8().await?;
        let mut body = vec![0; self.stream.read_u32().await? as usize - 4];
        self.stream.read_exact(&mut body).await?;
        Ok((tag, body))
    }

    /// The body of the next message of this kind.
    async fn until(&mut self, tag: u8) -> anyhow::Result<Vec<u8>> {
        loop {
            let (found, body) = self.message().await?;
            anyhow::ensure!(found != b'E', "refused: {}", String::from_utf8_lossy(&body));
            if found == tag {
                return Ok(body);
            }
        }
    }

    /// Receives WAL up to `end`, after what was received of it before.
    async fn wal(&mut self, wal: &mut Vec<u8>, end: Lsn) -> anyhow::Result<()> {
        let received = async {
            while SEGMENT + (wal.len() as u64) < end {
                let body = self.until(b'd').await?;
                let Some(mut body) = body.strip_prefix(b"w") else { continue };
                let (begin, upto) = (body.get_u64(), body.get_u64());
                body.advance(8);
                anyhow::ensure!(begin == SEGMENT.0 + wal.len() as u64, "it is not the next");
                anyhow::ensure!(upto == begin + body.len() as u64);
                wal.extend_from_slice(body);
            }
            Ok(())
        };
        timeout(PATIENCE, received).await?
    }
}

fn feed(quorum: &Quorum, folder: &Path) -> anyhow::Result<(WalFeed, Replayed)> {
    let owner = Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() };
    let config = FeedConfig {
        timeline: timeline(),
        origin: origin_at(BEGIN),
        version: Version::V15,
        safekeepers: quorum.addresses.clone(),
        bearer: Bearer::nobody(),
    };
    let replayed = Replayed::from(BEGIN);
    Ok((WalFeed::listen(folder, owner, config, replayed.clone())?, replayed))
}

/// Has a new proposer write what the stream has behind the record that starts there.
async fn write(quorum: &Quorum, name: &str, wal: &TestWal, last_record: Lsn) -> anyhow::Result<()> {
    let (proposer, elected) = quorum.elect(origin_at(BEGIN), name).await;
    let bytes = bytes::Bytes::copy_from_slice(wal.from(elected.position));
    proposer.start_at(StartWal { begin: elected.position, bytes, last_record }).await?;
    proposer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walreceiver_is_sent_what_is_committed_from_its_segment_on_whoever_has_it()
-> anyhow::Result<()> {
    let mut quorum = Quorum::start().await;
    let folder = tempfile::tempdir()?;
    let (feed, replayed) = feed(&quorum, folder.path())?;
    let before = Lsn(BEGIN.0 - 120);
    let mut written = TestWal::new(BEGIN, before, 1);
    let first = written.record();
    write(&quorum, "first", &written, before).await?;

    let mut receiver = Receiver::connect(&feed).await?;
    receiver.query("IDENTIFY_SYSTEM").await?;
    let row = receiver.until(b'D').await?;
    let system = origin_at(BEGIN).system_id.to_string();
    assert!(row.windows(system.len()).any(|part| part == system.as_bytes()), "{row:?}");
    receiver.until(b'Z').await?;
    receiver.query(&format!("START_REPLICATION {SEGMENT} TIMELINE 1")).await?;
    receiver.until(b'W').await?;
    let mut wal = Vec::new();
    receiver.wal(&mut wal, first).await?;

    // Before the timeline there are the headers that Postgres looks at, and zeros.
    let before = usize::try_from(BEGIN.since(SEGMENT))?;
    let page = usize::try_from(BEGIN.page_start().since(SEGMENT))?;
    assert_eq!(&wal[before..], &written.bytes[..]);
    assert!(wal[..2] != [0, 0] && wal[page..page + 2] != [0, 0], "a page header is missing");
    assert!(wal[40..page].iter().chain(&wal[page + 24..before]).all(|byte| *byte == 0));

    // The one that it reads from goes; another serves what comes then.
    for down in 0..2 {
        quorum.stop_one(down).await;
        let last_record = written.last_record;
        let next = written.records_to(written.end() + 3_000_000);
        write(&quorum, &format!("after {down}"), &written, last_record).await?;
        receiver.wal(&mut wal, next).await?;
        assert!(wal[before..] == written.bytes[..], "another stream after the loss of {down}");
        quorum.start_one(down).await;
    }

    // It says how far it is, and never less.
    for lsn in [written.end(), BEGIN] {
        let mut status = vec![b'r'];
        for lsn in [written.end(), written.end(), lsn] {
            status.extend_from_slice(&lsn.0.to_be_bytes());
        }
        status.extend_from_slice(&[0; 9]);
        receiver.send(b'd', &status).await?;
    }
    let reached = async {
        while replayed.lsn() < written.end() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, reached).await?;

    // A record is found by its place.
    let config = &feed.shared.config;
    let record = timeout(PATIENCE, record_at(config, written.last_record)).await??;
    assert_eq!((record.start, record.end), (written.last_record, written.end()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_something_else_is_refused_and_may_ask_again() -> anyhow::Result<()> {
    let quorum = Quorum::start().await;
    let folder = tempfile::tempdir()?;
    let (feed, _) = feed(&quorum, folder.path())?;
    let mut receiver = Receiver::connect(&feed).await?;
    receiver.query("SELECT 1").await?;
    let refused = receiver.until(b'Z').await;
    assert!(refused.is_err_and(|error| error.to_string().contains("only WAL")));
    receiver.until(b'Z').await?;
    receiver.query("IDENTIFY_SYSTEM").await?;
    receiver.until(b'D').await?;
    Ok(())
}
