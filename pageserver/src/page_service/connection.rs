//! One compute's connection.

use std::{io, sync::Arc};

use protocol::page_service::{
    Hello, PROTOCOL_VERSION, PageError, RequestFrame, Response, ResponseFrame, Welcome,
};
use tokio::{
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::{Semaphore, mpsc},
};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::{
    PageService,
    requests::{Reader, serve},
    writer::{ANSWERS_MAX, Answer, Answers, write_answers},
};
use crate::connection::{FrameBounds, read_frame};

/// Requests of one connection that are served at once; further ones wait unread in the socket.
const REQUESTS_MAX: usize = 64;
/// What is taken from a compute: a batch of 512 pages has some 15 KiB.
const BOUNDS: FrameBounds = FrameBounds { header_bytes_max: 64 << 10, payload_bytes_max: 0 };

/// An accepted connection.
pub(super) struct Connection {
    service: PageService,
    stream: TcpStream,
}

impl Connection {
    pub fn new(service: PageService, stream: TcpStream) -> Connection {
        Connection { service, stream }
    }

    /// Serves until the compute closes the connection, breaks the protocol, or the service stops.
    pub async fn run(self) -> io::Result<()> {
        let Connection { service, stream } = self;
        stream.set_nodelay(true)?;
        let (mut incoming, outgoing) = stream.into_split();
        let (answers, to_write) = mpsc::channel(ANSWERS_MAX);
        let requests = TaskTracker::new();
        let serving = async {
            let writing = write_answers(outgoing, to_write);
            let reading = async {
                // The answers end when the last request has left its own.
                let answers = answers;
                read_requests(&service, &mut incoming, &answers, &requests).await
            };
            let (written, read) = tokio::join!(writing, reading);
            read.and(written)
        };
        tokio::select! {
            ended = serving => ended,
            () = service.stop.cancelled() => Ok(()),
        }
    }
}

async fn read_requests(
    service: &PageService,
    incoming: &mut OwnedReadHalf,
    answers: &Answers,
    requests: &TaskTracker,
) -> io::Result<()> {
    let Some((hello, _)) = read_frame::<Hello>(incoming, BOUNDS).await? else { return Ok(()) };
    let (reader, response) = match greet(service, hello).await {
        Ok((reader, welcome)) => (Some(reader), Response::Welcome(welcome)),
        Err(error) => (None, Response::Failed(error)),
    };
    let frame = ResponseFrame { id: 0, response };
    if answers.send(Answer { frame, payload: Vec::new() }).await.is_err() {
        return Ok(());
    }
    let Some(reader) = reader.map(Arc::new) else { return Ok(()) };
    let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let frame = tokio::select! {
            frame = read_frame::<RequestFrame>(incoming, BOUNDS) => frame?,
            // Nobody writes the answers any more: the compute is gone.
            () = answers.closed() => return Ok(()),
        };
        let Some((RequestFrame { id, request }, _)) = frame else { return Ok(()) };
        let (reader, answers) = (Arc::clone(&reader), answers.clone());
        requests.spawn(async move {
            serve(&reader, id, request, &answers).await;
            drop(slot);
        });
    }
}

async fn greet(service: &PageService, hello: Hello) -> Result<(Reader, Welcome), PageError> {
    if hello.version != PROTOCOL_VERSION {
        return Err(PageError::Invalid(format!(
            "version {} of the page service was asked for; this is version {PROTOCOL_VERSION}",
            hello.version
        )));
    }
    let timeline = service.tenants.timeline(hello.timeline).await?;
    let reader = Reader::new(service.receivers.receive(&timeline), hello.term);
    reader.keep_term().await?;
    info!(timeline = %hello.timeline, term = ?hello.term, "a reader connected");
    let welcome =
        Welcome { origin: timeline.origin(), last_record_lsn: timeline.last_record_lsn() };
    Ok((reader, welcome))
}
