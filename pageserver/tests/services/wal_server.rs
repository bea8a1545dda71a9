//! Serves the WAL files of a stopped Postgres as a safekeeper serves what was committed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{
    Identity, NodeId, TenantTimeline, Term,
    quorum::{Hello, Purpose, ReaderMessage, Refusal, TermHistory, TimelineStatus},
    wire::{self, PREFIX_BYTES},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use wal_format::{DEFAULT_SEGMENT_BYTES, Lsn, Segment};

/// WAL sent in one message: odd, so that records and pages are cut everywhere.
const CHUNK_BYTES: u64 = 77_777;
const HEARTBEAT: Duration = Duration::from_millis(50);

/// What is served of one timeline.
#[derive(Clone, Debug)]
pub struct Served {
    /// Where the segment files are.
    pub wal: PathBuf,
    /// How far they may be read.
    pub commit_lsn: Lsn,
    /// The highest term.
    pub term: Term,
    /// A byte that arrives damaged.
    pub damaged_at: Option<Lsn>,
}

#[derive(Default)]
struct State {
    served: HashMap<TenantTimeline, Served>,
    consumed: HashMap<TenantTimeline, Lsn>,
}

/// A listening server; it ends with its runtime.
#[derive(Clone)]
pub struct WalServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl WalServer {
    pub async fn start() -> Result<WalServer> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = WalServer { address, state: Arc::default() };
        let state = Arc::clone(&server.state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                // A reader that goes away ends its connection.
                tokio::spawn(async move { drop(serve(stream, state).await) });
            }
        });
        Ok(server)
    }

    /// Begins to serve, or goes on with more.
    pub fn serve(&self, timeline: TenantTimeline, served: Served) {
        self.state.lock().served.insert(timeline, served);
    }

    /// What the pageserver said that it needs no more.
    pub fn consumed(&self, timeline: TenantTimeline) -> Option<Lsn> {
        self.state.lock().consumed.get(&timeline).copied()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) -> Result<()> {
    let hello = read_hello(&mut stream).await?;
    let served = || state.lock().served.get(&hello.timeline).cloned();
    let mut at = match hello.purpose {
        Purpose::Read { from, .. } => from,
        Purpose::Consumed { remote_consistent_lsn } => {
            state.lock().consumed.insert(hello.timeline, remote_consistent_lsn);
            return send(&mut stream, &ReaderMessage::Status(status()), &[]).await;
        }
        other => anyhow::bail!("a pageserver does not ask for {other:?}"),
    };
    loop {
        let Some(served) = served() else {
            let refusal = Refusal::UnknownTimeline(hello.timeline);
            return send(&mut stream, &ReaderMessage::Refused(refusal), &[]).await;
        };
        let bytes = read_wal(&served, at)?;
        let wal =
            ReaderMessage::Wal { begin: at, commit_lsn: served.commit_lsn, term: served.term };
        send(&mut stream, &wal, &bytes).await?;
        at += bytes.len() as u64;
        if bytes.is_empty() {
            tokio::time::sleep(HEARTBEAT).await;
        }
    }
}

async fn read_hello(stream: &mut TcpStream) -> Result<Hello> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let (header, _) = wire::decode_prefix(prefix)?;
    let mut bytes = vec![0; header];
    stream.read_exact(&mut bytes).await?;
    Ok(wire::decode_header(&bytes)?)
}

async fn send(stream: &mut TcpStream, message: &ReaderMessage, payload: &[u8]) -> Result<()> {
    stream.write_all(&wire::encode(message, payload)?).await?;
    Ok(())
}

/// Up to a chunk of WAL, not beyond the segment.
fn read_wal(served: &Served, at: Lsn) -> Result<Bytes> {
    let segment = Segment::containing(1, at, DEFAULT_SEGMENT_BYTES);
    let end = served.commit_lsn.min(segment.end(DEFAULT_SEGMENT_BYTES)).min(at + CHUNK_BYTES);
    if end <= at {
        return Ok(Bytes::new());
    }
    let mut bytes = vec![0; end.since(at) as usize];
    let path: &Path = &served.wal.join(segment.file_name(DEFAULT_SEGMENT_BYTES));
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let offset = at.segment_offset(u64::from(DEFAULT_SEGMENT_BYTES));
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, offset)?;
    if let Some(damaged) = served.damaged_at.filter(|lsn| (at..end).contains(lsn)) {
        bytes[damaged.since(at) as usize] ^= 0x10;
    }
    Ok(bytes.into())
}

fn status() -> TimelineStatus {
    TimelineStatus {
        node: NodeId(1),
        identity: Identity::from_bits(1),
        configuration: None,
        origin: None,
        term: Term(1),
        history: TermHistory::default(),
        flush_lsn: Lsn::INVALID,
        commit_lsn: Lsn::INVALID,
        offloaded_lsn: Lsn::INVALID,
        remote_consistent_lsn: Lsn::INVALID,
        local_start_lsn: Lsn::INVALID,
        proposer_connected: false,
    }
}
