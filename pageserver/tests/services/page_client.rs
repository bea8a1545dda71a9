//! A client of the page service: one request at a time, or frames as the test wants them.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use protocol::{
    TenantTimeline, Term,
    page_service::{
        BackupHead, ForkSize, Hello, PROTOCOL_VERSION, PageError, ReadAt, Request, RequestFrame,
        Response, ResponseFrame, Welcome,
    },
    token::Token,
    wire::{self, PREFIX_BYTES},
};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use wal_format::{Lsn, RelationFork};

pub struct PageClient {
    stream: TcpStream,
    pub welcome: Welcome,
    next_id: u64,
}

/// Exactly this version.
pub fn at(lsn: Lsn) -> ReadAt {
    ReadAt { request_lsn: lsn, not_modified_since: lsn }
}

impl PageClient {
    /// Connects, with a refusal as the inner error.
    pub async fn connect(
        address: SocketAddr,
        timeline: TenantTimeline,
        term: Option<Term>,
    ) -> Result<Result<PageClient, PageError>> {
        PageClient::connect_showing(address, timeline, term, None).await
    }

    /// The same, with a token that is shown.
    pub async fn connect_showing(
        address: SocketAddr,
        timeline: TenantTimeline,
        term: Option<Term>,
        token: Option<Token>,
    ) -> Result<Result<PageClient, PageError>> {
        let hello = Hello { version: PROTOCOL_VERSION, timeline, term, token };
        PageClient::connect_as(address, hello).await
    }

    pub async fn connect_as(
        address: SocketAddr,
        hello: Hello,
    ) -> Result<Result<PageClient, PageError>> {
        let mut stream = TcpStream::connect(address).await?;
        write(&mut stream, &hello).await?;
        let (frame, _) = read(&mut stream).await?.context("an answer to the hello")?;
        match frame.response {
            Response::Welcome(welcome) => Ok(Ok(PageClient { stream, welcome, next_id: 1 })),
            Response::Failed(error) => Ok(Err(error)),
            other => bail!("{other:?} is no answer to a hello"),
        }
    }

    /// Sends a request and says its id.
    pub async fn send(&mut self, request: Request) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        write(&mut self.stream, &RequestFrame { id, request }).await?;
        Ok(id)
    }

    /// Sends bytes that may be no frame.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The next answer; `None` where the pageserver closed the connection.
    pub async fn receive(&mut self) -> Result<Option<(ResponseFrame, Bytes)>> {
        read(&mut self.stream).await
    }

    /// Sends a request and takes its one answer.
    pub async fn ask(&mut self, request: Request) -> Result<(Response, Bytes)> {
        let id = self.send(request).await?;
        let (frame, payload) = self.receive().await?.context("an answer")?;
        anyhow::ensure!(frame.id == id, "the answer is to another request");
        Ok((frame.response, payload))
    }

    /// Some pages of a fork.
    pub async fn range(
        &mut self,
        at: ReadAt,
        fork: RelationFork,
        first: u32,
        count: u32,
    ) -> Result<Result<Bytes, PageError>> {
        match self.ask(Request::Range { at, fork, first, count }).await? {
            (Response::Pages { .. }, payload) => Ok(Ok(payload)),
            (Response::Failed(error), _) => Ok(Err(error)),
            (other, _) => bail!("{other:?} is no answer to a range"),
        }
    }

    /// All forks.
    pub async fn relations(&mut self, at: ReadAt) -> Result<Vec<ForkSize>> {
        match self.ask(Request::Relations { at }).await? {
            (Response::Relations { forks, .. }, _) => Ok(forks),
            (other, _) => bail!("{other:?} is no answer to a request for relations"),
        }
    }

    /// A whole base backup: its head, and its files by path.
    pub async fn base_backup(
        &mut self,
        lsn: Lsn,
    ) -> Result<Result<(BackupHead, BTreeMap<String, Vec<u8>>), PageError>> {
        self.send(Request::BaseBackup { lsn }).await?;
        let mut head = None;
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        loop {
            let (frame, payload) = self.receive().await?.context("the backup's end")?;
            match frame.response {
                Response::BackupHead(backup) => head = Some(backup),
                Response::BackupFile { path } => {
                    files.entry(path).or_default().extend_from_slice(&payload);
                }
                Response::BackupEnd => return Ok(Ok((head.context("a head")?, files))),
                Response::Failed(error) => return Ok(Err(error)),
                other => bail!("{other:?} is no part of a base backup"),
            }
        }
    }
}

async fn write(stream: &mut TcpStream, header: &impl Serialize) -> Result<()> {
    Ok(stream.write_all(&wire::encode(header, &[])?).await?)
}

async fn read(stream: &mut TcpStream) -> Result<Option<(ResponseFrame, Bytes)>> {
    let mut prefix = [0; PREFIX_BYTES];
    if stream.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut prefix[1..]).await?;
    let (header, payload) = wire::decode_prefix(prefix)?;
    let mut bytes = vec![0; header + payload];
    stream.read_exact(&mut bytes).await?;
    let frame = wire::decode_header(&bytes[..header])?;
    Ok(Some((frame, Bytes::from(bytes).slice(header..))))
}
