//! Three safekeepers in this process with folders of their own, and a small proposer.

// Each test file is a program of its own and uses some of this.
#![allow(dead_code)]

#[path = "../../../tests/harness/ports.rs"]
mod ports;
pub mod proposer;
pub mod wal;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use protocol::quorum::{
    Hello, PROTOCOL_VERSION, Purpose, ReadLimit, ReaderMessage, Refusal, TimelineStatus,
};
use protocol::wire::{self, PREFIX_BYTES};
use protocol::{NodeId, TenantId, TenantTimeline, TimelineId};
use safekeeper::{Bounds, Config, Safekeeper};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wal_format::Lsn;

use ports::free_address;

/// Long enough for anything that is to happen at all.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits of background work, short enough for tests.
pub fn bounds() -> Bounds {
    Bounds {
        offload_idle: Duration::from_millis(100),
        offload_stagger: Duration::from_millis(300),
        ..Bounds::default()
    }
}

pub fn timeline(number: u128) -> TenantTimeline {
    TenantTimeline { tenant: TenantId::from_bits(0xAB), timeline: TimelineId::from_bits(number) }
}

/// Safekeepers, numbered from 0 here; their nodes from 1.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    pub addresses: Vec<SocketAddr>,
    pub safekeepers: Vec<Option<Safekeeper>>,
    bounds: Bounds,
}

impl Cluster {
    pub async fn start(bounds: Bounds) -> Result<Cluster> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("store"))?;
        let addresses = vec![free_address(), free_address(), free_address()];
        let mut cluster =
            Cluster { folder, addresses, safekeepers: vec![None, None, None], bounds };
        for index in 0..3 {
            cluster.start_one(index).await?;
        }
        Ok(cluster)
    }

    pub fn store(&self) -> Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(LocalFileSystem::new_with_prefix(self.store_folder())?))
    }

    pub fn store_folder(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn disk(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("disk-{index}"))
    }

    pub async fn start_one(&mut self, index: usize) -> Result<()> {
        let node = |index: usize| NodeId(index as u32 + 1);
        let others = (0..3).filter(|&other| other != index);
        let config = Config {
            node: node(index),
            folder: self.disk(index),
            listen: self.addresses[index],
            http: Some("127.0.0.1:0".parse()?),
            peers: others.map(|other| (node(other), self.addresses[other])).collect(),
            store: self.store()?,
            guard: access::Guard::open(),
            bearer: access::Bearer::nobody(),
            certificate: None,
            bounds: self.bounds,
        };
        self.safekeepers[index] = Some(Safekeeper::start(config).await?);
        Ok(())
    }

    pub async fn stop(&mut self, index: usize) {
        if let Some(safekeeper) = self.safekeepers[index].take() {
            safekeeper.shutdown().await;
        }
    }

    /// Stops one and throws its folder away.
    pub async fn wipe(&mut self, index: usize) -> Result<()> {
        self.stop(index).await;
        std::fs::remove_dir_all(self.disk(index))?;
        Ok(())
    }

    pub async fn stop_all(mut self) {
        for index in 0..self.safekeepers.len() {
            self.stop(index).await;
        }
    }

    pub async fn status(&self, index: usize, id: TenantTimeline) -> Result<TimelineStatus> {
        ask(self.addresses[index], id, Purpose::Status).await
    }

    /// Asks again and again until the status is as wanted.
    pub async fn wait_for(
        &self,
        index: usize,
        id: TenantTimeline,
        is_wanted: impl Fn(&TimelineStatus) -> bool,
    ) -> Result<TimelineStatus> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.status(index, id).await?;
            if is_wanted(&status) {
                return Ok(status);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("safekeeper {index} stays at {status:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The body of an answer over HTTP.
    pub async fn http(&self, index: usize, path: &str) -> Result<serde_json::Value> {
        let safekeeper = self.safekeepers[index].as_ref().context("it runs")?;
        let address = safekeeper.http_addr().context("it serves HTTP")?;
        let mut socket = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        Ok(serde_json::from_str(body)?)
    }
}

/// A connection that speaks in frames.
pub struct Frames {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Frames {
    pub async fn connect(
        address: SocketAddr,
        timeline: TenantTimeline,
        purpose: Purpose,
    ) -> Result<Frames> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut frames = Frames { socket, buffer: BytesMut::new() };
        let hello = Hello { version: PROTOCOL_VERSION, timeline, purpose, token: None };
        frames.send(&hello, &[]).await?;
        Ok(frames)
    }

    pub async fn send<H: Serialize>(&mut self, header: &H, payload: &[u8]) -> Result<()> {
        self.socket.write_all(&wire::encode(header, payload)?).await?;
        Ok(())
    }

    pub async fn next<H: DeserializeOwned>(&mut self) -> Result<Option<(H, Bytes)>> {
        tokio::time::timeout(PATIENCE, self.receive()).await.context("nothing came in time")?
    }

    async fn receive<H: DeserializeOwned>(&mut self) -> Result<Option<(H, Bytes)>> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() {
                let (header, payload) = wire::decode_prefix(*prefix)?;
                if self.buffer.len() >= PREFIX_BYTES + header + payload {
                    self.buffer.advance(PREFIX_BYTES);
                    let header = wire::decode_header(&self.buffer.split_to(header))?;
                    return Ok(Some((header, self.buffer.split_to(payload).freeze())));
                }
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Asks one question that is answered by a status.
pub async fn ask(
    address: SocketAddr,
    id: TenantTimeline,
    purpose: Purpose,
) -> Result<TimelineStatus> {
    let mut frames = Frames::connect(address, id, purpose).await?;
    match frames.next().await? {
        Some((ReaderMessage::Status(status), _)) => Ok(status),
        other => bail!("a status was expected, {other:?} was found"),
    }
}

/// Committed WAL from `from` to `until`.
pub async fn read_committed(
    address: SocketAddr,
    id: TenantTimeline,
    from: Lsn,
    until: Lsn,
) -> Result<Bytes> {
    let purpose = Purpose::Read { from, limit: ReadLimit::Commit };
    let mut frames = Frames::connect(address, id, purpose).await?;
    let mut wal = BytesMut::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while from + (wal.len() as u64) < until {
        match frames.next().await? {
            Some((ReaderMessage::Wal { begin, .. }, bytes)) => {
                anyhow::ensure!(begin == from + wal.len() as u64, "WAL is contiguous");
                wal.extend_from_slice(&bytes);
            }
            Some((ReaderMessage::Refused(refusal), _)) => return Err(refusal.into()),
            other => bail!("WAL was expected, {other:?} was found"),
        }
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "only {} bytes came", wal.len());
    }
    Ok(wal.freeze())
}

/// Whether an error is this refusal.
pub fn is_refusal(error: &anyhow::Error, is_it: impl Fn(&Refusal) -> bool) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(is_it)
}
