//! A small page server for tests: it speaks the real protocol over TCP, from memory.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use protocol::{
    BranchPoint, TenantId, TenantTimeline, Term, TimelineId, TimelineOrigin,
    page_service::{
        BackupHead, ForkSize, Hello, PageError, Request, RequestFrame, Response, ResponseFrame,
        Welcome,
    },
    wire,
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
};
use wal_format::{Lsn, PAGE_BYTES, PageKey, RelationFork};

/// The LSN that everything in the server is as of.
pub const BASE: Lsn = Lsn(0x0100_0028);

/// What the server has, and how it behaves.
#[derive(Default)]
pub struct Content {
    pub forks: BTreeMap<RelationFork, Vec<u8>>,
    pub files: Vec<(String, Vec<u8>)>,
    pub tablespaces: Vec<(u32, String)>,
    pub databases: Vec<(u32, u32)>,
    pub control_file: Vec<u8>,
    /// No answer goes before so many requests for pages have come.
    pub together: usize,
    /// What the next requests are answered with instead.
    pub failures: VecDeque<PageError>,
    /// The next requests are not answered at all.
    pub silent: usize,
    /// Requests for pages so far: fork, first, count.
    pub asked: Vec<(RelationFork, u32, u32)>,
    /// Requests for any pages so far.
    pub batches: Vec<Vec<PageKey>>,
    /// Hellos below this term are refused.
    pub term: Term,
}

impl Content {
    /// Pages of a fork; zeros beyond its end.
    fn pages(&self, fork: RelationFork, first: u32, count: u32) -> Vec<u8> {
        let mut pages = vec![0; count as usize * PAGE_BYTES];
        if let Some(bytes) = self.forks.get(&fork) {
            let from = (first as usize * PAGE_BYTES).min(bytes.len());
            let some = (bytes.len() - from).min(pages.len());
            pages[..some].copy_from_slice(&bytes[from..from + some]);
        }
        pages
    }
}

/// A running server; its connections end when it is dropped.
pub struct PageServer {
    pub address: SocketAddr,
    pub content: Arc<Mutex<Content>>,
    task: JoinHandle<()>,
}

impl PageServer {
    pub async fn start(content: Content) -> PageServer {
        PageServer::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(Mutex::new(content)))
            .await
    }

    pub async fn start_at(address: SocketAddr, content: Arc<Mutex<Content>>) -> PageServer {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("it has an address");
        let served = content.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, served.clone()));
            }
        });
        PageServer { address, content, task }
    }

    /// Ends the server with its connections, and returns when its port is free.
    pub async fn stop(mut self) -> Arc<Mutex<Content>> {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.content.clone()
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A timeline of no meaning.
pub fn timeline() -> TenantTimeline {
    TenantTimeline { tenant: TenantId::from_bits(1), timeline: TimelineId::from_bits(2) }
}

/// A page that says where it belongs.
pub fn page_of(block: u32) -> Vec<u8> {
    (0..PAGE_BYTES as u32 / 4).flat_map(|word| (block << 12 | word).to_le_bytes()).collect()
}

async fn serve(stream: TcpStream, content: Arc<Mutex<Content>>) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let hello: Hello = read_frame(&mut reader).await?;
    let known = content.lock().term;
    let asked = hello.term.unwrap_or(known);
    if asked < known {
        let refusal = Response::Failed(PageError::Fenced { asked, known });
        return send(&mut writer, 0, refusal, &[]).await;
    }
    let point = BranchPoint { lsn: BASE, last_record: Lsn(BASE.0 - 120) };
    let origin = TimelineOrigin { point, system_id: 7, segment_bytes: 16 << 20, major: 15 };
    let welcome = Welcome { origin, last_record_lsn: BASE };
    send(&mut writer, 0, Response::Welcome(welcome), &[]).await?;
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    loop {
        let RequestFrame { id, request } = read_frame(&mut reader).await?;
        let (content, writer) = (content.clone(), writer.clone());
        tokio::spawn(async move { answer(id, request, &content, &writer).await });
    }
}

async fn answer(
    id: u64,
    request: Request,
    content: &Mutex<Content>,
    writer: &tokio::sync::Mutex<OwnedWriteHalf>,
) -> io::Result<()> {
    let failure = {
        let mut content = content.lock();
        if let Request::Range { fork, first, count, .. } = request {
            content.asked.push((fork, first, count));
        }
        if let Request::Batch { pages, .. } = &request {
            content.batches.push(pages.clone());
        }
        if content.silent > 0 {
            content.silent -= 1;
            return Ok(());
        }
        content.failures.pop_front()
    };
    while is_awaiting(&content.lock()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut writer = writer.lock().await;
    if let Some(failure) = failure {
        return send(&mut writer, id, Response::Failed(failure), &[]).await;
    }
    match request {
        Request::Range { fork, first, count, .. } => {
            let pages = content.lock().pages(fork, first, count);
            send(&mut writer, id, Response::Pages { lsn: BASE }, &pages).await
        }
        Request::Batch { pages, .. } => {
            let page = |page: PageKey| content.lock().pages(page.fork, page.block, 1);
            let pages: Vec<u8> = pages.into_iter().flat_map(page).collect();
            send(&mut writer, id, Response::Pages { lsn: BASE }, &pages).await
        }
        Request::BaseBackup { lsn } => {
            let (head, files) = {
                let content = content.lock();
                let size = |(fork, bytes): (&RelationFork, &Vec<u8>)| ForkSize {
                    fork: *fork,
                    blocks: (bytes.len() / PAGE_BYTES) as u32,
                };
                let head = BackupHead {
                    lsn,
                    last_record: Lsn(lsn.0 - 120),
                    ends_in_shutdown_checkpoint: false,
                    control_file: content.control_file.clone(),
                    tablespaces: content.tablespaces.clone(),
                    databases: content.databases.clone(),
                    forks: content.forks.iter().map(size).collect(),
                };
                (head, content.files.clone())
            };
            send(&mut writer, id, Response::BackupHead(head), &[]).await?;
            for (path, bytes) in files {
                send(&mut writer, id, Response::BackupFile { path }, &bytes).await?;
            }
            send(&mut writer, id, Response::BackupEnd, &[]).await
        }
        other => {
            let refusal = PageError::Invalid(format!("{other:?}"));
            send(&mut writer, id, Response::Failed(refusal), &[]).await
        }
    }
}

/// Whether answers wait for more requests.
fn is_awaiting(content: &Content) -> bool {
    content.asked.len() < content.together
}

async fn send(
    writer: &mut OwnedWriteHalf,
    id: u64,
    response: Response,
    payload: &[u8],
) -> io::Result<()> {
    let frame = wire::encode(&ResponseFrame { id, response }, payload).map_err(io::Error::other)?;
    writer.write_all(&frame).await
}

async fn read_frame<H: DeserializeOwned>(reader: &mut OwnedReadHalf) -> io::Result<H> {
    let mut prefix = [0; wire::PREFIX_BYTES];
    reader.read_exact(&mut prefix).await?;
    let (header, _) = wire::decode_prefix(prefix).map_err(io::Error::other)?;
    let mut bytes = vec![0; header];
    reader.read_exact(&mut bytes).await?;
    wire::decode_header(&bytes).map_err(io::Error::other)
}
