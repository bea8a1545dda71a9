//! One compute's connection: one task that reads requests, answers those whose pages are at hand,
//! and writes. A switch to another task and back costs more than such an answer, so only what has
//! to wait, or is much, gets a task of its own.

use std::{io, sync::Arc, time::Duration};

use access::tls::{Arrival, ReadHalf, SPEAKS_TLS, Speaks, WriteHalf};
use bytes::Buf;
use protocol::{
    page_service::{Hello, PROTOCOL_VERSION, PageError, Request, RequestFrame, Response, Welcome},
    wire::FrameBounds,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    PageService,
    answers::{Answer, Outgoing},
    requests::Reader,
    visitor::Visitor,
};
use crate::connection::{Buffers, Incoming, read_hello};

/// A connection says what it is for within this time.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// Requests of one connection that have a task of their own; further ones wait unread.
const TASKS_MAX: usize = 64;
/// Answers of such tasks that are ready but not taken yet; more wait where they were made.
const ANSWERS_MAX: usize = 64;
/// Pages of a request that is answered at once where they are in memory. A larger one gets a task
/// in any case: it may take another processor meanwhile.
const PAGES_AT_ONCE_MAX: usize = 32;
/// Answers that wait to be written; beyond that, no further request is read.
const UNWRITTEN_BYTES_MAX: usize = 1 << 20;
/// What is taken from a compute: a batch of 512 pages has some 15 KiB.
const BOUNDS: FrameBounds = FrameBounds { header_bytes_max: 64 << 10, payload_bytes_max: 0 };

/// An accepted connection.
pub(super) struct Connection {
    service: PageService,
    arrival: Arrival,
}

impl Connection {
    pub fn new(service: PageService, arrival: Arrival) -> Connection {
        Connection { service, arrival }
    }

    /// Serves until the compute closes the connection, breaks the protocol, or the service stops.
    pub async fn run(self) -> io::Result<()> {
        let Connection { service, arrival } = self;
        let serving = async {
            match arrival.open().await {
                Ok(opened) => serve(&service, opened).await,
                Err(error) => {
                    warn!(%error, "a handshake of TLS failed");
                    Ok(())
                }
            }
        };
        tokio::select! {
            ended = serving => ended,
            () = service.stop.cancelled() => Ok(()),
        }
    }
}

async fn serve(service: &PageService, opened: Speaks) -> io::Result<()> {
    let (connection, is_refused) = match opened {
        Speaks::Alike(connection) => (connection, false),
        Speaks::Plainly(connection) => (connection, true),
    };
    let (mut receiving, mut sending) = connection.into_split();
    let hello = timeout(HELLO_TIME_MAX, read_hello::<Hello>(&mut receiving)).await;
    let hello = hello.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let Some(hello) = hello? else { return Ok(()) };
    let greeted = match is_refused {
        true => Err(PageError::Invalid(SPEAKS_TLS.to_owned())),
        false => greet(service, hello).await,
    };
    let (reader, response) = match greeted {
        Ok((reader, welcome)) => (Some(reader), Response::Welcome(welcome)),
        Err(error) => (None, Response::Failed(error)),
    };
    let mut outgoing = Outgoing::default();
    outgoing.push(Answer::head(0, response))?;
    match reader {
        Some(reader) => {
            exchange(Arc::new(reader), (&mut receiving, &mut sending), outgoing).await?;
        }
        None => sending.write_all_buf(outgoing.unwritten()).await?,
    }
    sending.shutdown().await
}

/// Takes requests and writes answers until the compute has said its last, and has its last answer.
async fn exchange(
    reader: Arc<Reader>,
    (receiving, sending): (&mut ReadHalf, &mut WriteHalf),
    mut outgoing: Outgoing,
) -> io::Result<()> {
    let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
    let mut incoming = Incoming::new(BOUNDS);
    let (mut tasks, mut has_ended) = (0, false);
    loop {
        while tasks < TASKS_MAX
            && outgoing.bytes() < UNWRITTEN_BYTES_MAX
            && let Some(frame) = incoming.next()?
        {
            match begin(&reader, frame, &answers).await {
                Some(answer) => outgoing.push(answer)?,
                None => tasks += 1,
            }
        }
        let has_to_send = outgoing.bytes() > 0 || sending.has_unsent();
        if has_ended && tasks == 0 && !has_to_send {
            return Ok(());
        }
        let has_room = outgoing.bytes() < UNWRITTEN_BYTES_MAX;
        let may_read = has_room && tasks < TASKS_MAX && !has_ended;
        // What is ready goes out first: somebody waits for it.
        tokio::select! {
            biased;
            // It connects again, and is told why, or finds the timeline loaded again.
            () = reader.stopped() => return Ok(()),
            sent = send_some(sending, outgoing.unwritten()), if has_to_send => sent?,
            answer = answered.recv(), if has_room && tasks > 0 => {
                let Some((answer, is_last)) = answer else { return Ok(()) };
                outgoing.push(answer)?;
                tasks -= usize::from(is_last);
            }
            read = receiving.read_buf(incoming.unread()), if may_read => {
                has_ended = read? == 0;
                if has_ended && incoming.has_part() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                // One that waits no longer for an answer takes the connection for dead, and comes
                // back by another.
                if has_ended && tasks == 0 && !has_to_send {
                    reader.note_goodbye();
                }
            }
        }
    }
}

/// Writes some of it, or sends on what was written and waits to be encrypted.
async fn send_some(sending: &mut WriteHalf, unwritten: &mut Buffers) -> io::Result<()> {
    match unwritten.has_remaining() {
        true => sending.write_buf(unwritten).await.map(drop),
        false => sending.flush().await,
    }
}

/// Where a task leaves its answers, each with whether it is the last.
pub(super) type Answers = mpsc::Sender<(Answer, bool)>;

/// The answer, where it needs nothing but memory; otherwise a task brings it.
async fn begin(reader: &Arc<Reader>, frame: RequestFrame, answers: &Answers) -> Option<Answer> {
    let RequestFrame { id, request } = frame;
    if let Request::Renew { token } = &request {
        return Some(reader.renew(id, token));
    }
    let (reader, answers) = (reader.clone(), answers.clone());
    if let Request::BaseBackup { lsn } = request {
        tokio::spawn(async move { reader.base_backup(id, lsn, &answers).await });
        return None;
    }
    let is_small = request.pages().is_some_and(|pages| pages <= PAGES_AT_ONCE_MAX);
    let mut answering = {
        let reader = reader.clone();
        Box::pin(async move { reader.answer(id, request).await })
    };
    if is_small && let std::task::Poll::Ready(answer) = futures::poll!(answering.as_mut()) {
        return Some(answer);
    }
    tokio::spawn(async move {
        // Where no one takes the answer, the connection is gone.
        let _ = answers.send((answering.await, true)).await;
    });
    None
}

async fn greet(service: &PageService, hello: Hello) -> Result<(Reader, Welcome), PageError> {
    if hello.version != PROTOCOL_VERSION {
        return Err(PageError::Invalid(format!(
            "version {} of the page service was asked for; this is version {PROTOCOL_VERSION}",
            hello.version
        )));
    }
    let visitor = Visitor::admit(&service.guard, &hello)?;
    let timeline = service.tenants.timeline(hello.timeline).await?;
    let receiving = service.receivers.receive(&timeline);
    let reader = Reader::new(Arc::clone(&service.tenants), receiving, visitor, hello.term);
    reader.keep_term().await?;
    info!(timeline = %hello.timeline, term = ?hello.term, "a reader connected");
    let welcome =
        Welcome { origin: timeline.origin(), last_record_lsn: timeline.last_record_lsn() };
    Ok((reader, welcome))
}
