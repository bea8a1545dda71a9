//! A client of the page service on a blocking socket: the least that a compute can do.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{bail, ensure};
use protocol::{
    TenantTimeline,
    page_service::{
        Hello, PROTOCOL_VERSION, ReadAt, Request, RequestFrame, Response, ResponseFrame, Welcome,
    },
    wire::{self, PREFIX_BYTES},
};
use wal_format::{Lsn, PageKey, RelationFork};

use crate::harness::token;

/// A connection for one timeline.
pub struct Client {
    stream: TcpStream,
    welcome: Welcome,
    next_id: u64,
    frame: Vec<u8>,
}

/// An answer, whose payload is in the client's buffer.
pub struct Answer {
    pub response: Response,
    /// All bytes of it on the wire.
    pub frame_bytes: usize,
}

impl Client {
    /// Connects as a reader without a term.
    pub fn connect(server: SocketAddr, timeline: TenantTimeline) -> anyhow::Result<Client> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        let hello = Hello { version: PROTOCOL_VERSION, timeline, term: None, token: token() };
        stream.write_all(&wire::encode(&hello, b"")?)?;
        let mut frame = Vec::new();
        match read(&mut stream, &mut frame)?.response {
            Response::Welcome(welcome) => Ok(Client { stream, welcome, next_id: 1, frame }),
            other => bail!("not welcome: {other:?}"),
        }
    }

    pub fn last_record_lsn(&self) -> Lsn {
        self.welcome.last_record_lsn
    }

    /// Pages that follow each other, as of the end.
    pub fn range(&self, fork: RelationFork, first: u32, count: u32) -> Request {
        Request::Range { at: self.now(), fork, first, count }
    }

    /// Pages anywhere, as of the end.
    pub fn batch(&self, pages: Vec<PageKey>) -> Request {
        Request::Batch { at: self.now(), pages }
    }

    fn now(&self) -> ReadAt {
        let lsn = self.last_record_lsn();
        ReadAt { request_lsn: lsn, not_modified_since: lsn }
    }

    /// The request as it goes over the wire.
    pub fn frame(&self, request: &Request) -> anyhow::Result<bytes::Bytes> {
        let frame = RequestFrame { id: self.next_id, request: request.clone() };
        Ok(wire::encode(&frame, b"")?)
    }

    /// Sends a request and does not wait.
    pub fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        let frame = self.frame(request)?;
        self.next_id += 1;
        Ok(self.stream.write_all(&frame)?)
    }

    /// The next answer, whichever it is; it must not be a failure.
    pub fn receive(&mut self) -> anyhow::Result<Answer> {
        let answer = read(&mut self.stream, &mut self.frame)?;
        if let Response::Failed(error) = &answer.response {
            bail!("a request failed: {error}");
        }
        Ok(answer)
    }

    /// Asks and waits.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<Answer> {
        self.send(request)?;
        self.receive()
    }

    /// Asks for a base backup and takes all of it.
    pub fn base_backup(&mut self, request: &Request) -> anyhow::Result<()> {
        let head = self.ask(request)?.response;
        ensure!(matches!(head, Response::BackupHead(_)), "no head: {head:?}");
        loop {
            match self.receive()?.response {
                Response::BackupFile { .. } => {}
                Response::BackupEnd => return Ok(()),
                other => bail!("not part of a backup: {other:?}"),
            }
        }
    }
}

fn read(stream: &mut TcpStream, frame: &mut Vec<u8>) -> anyhow::Result<Answer> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix)?;
    let (header, payload) = wire::decode_prefix(prefix)?;
    frame.resize(header + payload, 0);
    stream.read_exact(frame)?;
    let ResponseFrame { response, .. } = wire::decode_header(&frame[..header])?;
    Ok(Answer { response, frame_bytes: PREFIX_BYTES + header + payload })
}
