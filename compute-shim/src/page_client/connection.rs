//! Keeps a connection to the pageserver: connects, sends, hands answers out, connects again.

use std::{io, sync::Arc, time::Duration};

use access::{
    Bearer,
    tls::{ReadHalf, WriteHalf},
};
use bytes::{Bytes, BytesMut};
use protocol::{
    page_service::{
        Hello, PROTOCOL_VERSION, PageError, Request, RequestFrame, Response, ResponseFrame, Welcome,
    },
    wire,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{Shared, is_passing, says_nothing_is_there};

/// The longest a connection may take to be made and greeted.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The pause before the first new attempt; it doubles up to [`RECONNECT_PAUSE_MAX`].
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection that owes answers and says nothing for so long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The number of a request to be let in for longer: nobody waits for its answer.
const RENEWAL: u64 = 0;
/// Bytes read from the socket at once, where frames are small.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Serves the client until it is dropped, or fenced.
pub(super) async fn keep(shared: Arc<Shared>, mut to_send: mpsc::UnboundedReceiver<u64>) {
    let mut pause = RECONNECT_PAUSE_MIN;
    let mut bearer = shared.bearer.clone();
    loop {
        bearer.mark_seen();
        match timeout(CONNECT_TIME_MAX, greet(&shared, &bearer)).await {
            Ok(Ok(Ok((reader, writer, welcome)))) => {
                pause = RECONNECT_PAUSE_MIN;
                shared.route.lock().reached();
                let lsn = welcome.last_record_lsn;
                tracing::debug!(timeline = %shared.timeline, %lsn, "connected to the pageserver");
                shared.welcome.send_replace(Some(Ok(welcome)));
                let error = serve(&shared, &mut bearer, (reader, writer), &mut to_send).await;
                tracing::warn!(timeline = %shared.timeline, %error, "connection to the pageserver lost");
                drop_begun(&shared);
            }
            Ok(Ok(Err(PageError::Moved { to, pages }))) => {
                let at_once = shared.route.lock().moved(pages);
                let address = shared.address();
                tracing::info!(timeline = %shared.timeline, to, %address, "the tenant has moved");
                if at_once {
                    continue;
                }
            }
            Ok(Ok(Err(refusal))) if !is_passing(&refusal) && !lacks_token(&shared, &refusal) => {
                if let PageError::Fenced { .. } = &refusal {
                    shared.fence(refusal.clone());
                }
                fail_all(&shared, &refusal);
                let first = shared.welcome.borrow().is_none();
                if first || matches!(refusal, PageError::Fenced { .. }) {
                    shared.welcome.send_replace(Some(Err(refusal)));
                    return;
                }
            }
            Ok(Ok(Err(refusal))) => {
                tracing::debug!(timeline = %shared.timeline, reason = %refusal, "the pageserver is not ready");
            }
            Ok(Err(error)) => {
                tracing::debug!(timeline = %shared.timeline, %error, "the pageserver cannot be reached");
                *shared.unreachable.lock() = Some(error.to_string());
                shared.route.lock().failed();
            }
            Err(_) => {
                tracing::debug!(timeline = %shared.timeline, "the pageserver does not answer");
                shared.route.lock().failed();
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
    }
}

/// Whether a timeline that was there is refused because the token has ended.
fn lacks_token(shared: &Shared, refusal: &PageError) -> bool {
    let was_there = matches!(&*shared.welcome.borrow(), Some(Ok(_)));
    was_there && says_nothing_is_there(refusal) && shared.shown.is_over()
}

type Greeted = (BufReader<ReadHalf>, BufWriter<WriteHalf>, Welcome);

async fn greet(shared: &Shared, bearer: &Bearer) -> io::Result<Result<Greeted, PageError>> {
    let connection = bearer.trust().connect(shared.address()).await?;
    let (reader, writer) = connection.into_split();
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
    let mut writer = BufWriter::new(writer);
    let hello = Hello {
        version: PROTOCOL_VERSION,
        timeline: shared.timeline,
        term: shared.term,
        token: bearer.token(),
    };
    shared.shown.show(hello.token.as_ref());
    write_frame(&mut writer, &hello).await?;
    writer.flush().await?;
    let (frame, _) = read_frame::<ResponseFrame>(&mut reader).await?;
    match frame.response {
        Response::Welcome(welcome) => Ok(Ok((reader, writer, welcome))),
        Response::Failed(refusal) => Ok(Err(refusal)),
        other => Err(io::Error::other(format!("a greeting was expected, not {other:?}"))),
    }
}

/// Sends requests and hands out answers, until the connection is lost: returns why.
async fn serve(
    shared: &Shared,
    bearer: &mut Bearer,
    (reader, mut writer): (BufReader<ReadHalf>, BufWriter<WriteHalf>),
    to_send: &mut mpsc::UnboundedReceiver<u64>,
) -> io::Error {
    let receive = receive(shared, reader);
    let send = async {
        // What an earlier connection was asked and did not answer.
        let mut ids = Vec::new();
        for (id, pending) in &mut *shared.pending.lock() {
            pending.sent = false;
            ids.push(*id);
        }
        ids.sort_unstable();
        for id in ids {
            send_request(shared, &mut writer, id).await?;
        }
        writer.flush().await?;
        loop {
            let next = tokio::select! {
                next = to_send.recv() => next,
                token = bearer.renewed() => {
                    shared.shown.show(Some(&token));
                    let request = Request::Renew { token };
                    write_frame(&mut writer, &RequestFrame { id: RENEWAL, request }).await?;
                    writer.flush().await?;
                    continue;
                }
            };
            let Some(id) = next else { break };
            send_request(shared, &mut writer, id).await?;
            while let Ok(id) = to_send.try_recv() {
                send_request(shared, &mut writer, id).await?;
            }
            writer.flush().await?;
        }
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        error = receive => error,
        sent = send => match sent {
            Ok(()) => io::Error::other("the client was dropped"),
            Err(error) => error,
        },
    }
}

async fn send_request(
    shared: &Shared,
    writer: &mut BufWriter<WriteHalf>,
    id: u64,
) -> io::Result<()> {
    let request: Option<Request> = shared.pending.lock().get_mut(&id).and_then(|pending| {
        let unsent = !std::mem::replace(&mut pending.sent, true);
        unsent.then(|| pending.request.clone())
    });
    match request {
        Some(request) => write_frame(writer, &RequestFrame { id, request }).await,
        None => Ok(()),
    }
}

async fn receive(shared: &Shared, mut reader: BufReader<ReadHalf>) -> io::Error {
    loop {
        // The wait is for a frame's first byte, which is not consumed: a timeout loses nothing.
        match timeout(SILENCE_MAX, reader.fill_buf()).await {
            Ok(Ok([])) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) if shared.pending.lock().is_empty() => continue,
            Err(_) => return io::ErrorKind::TimedOut.into(),
        }
        let frame = timeout(SILENCE_MAX, read_frame::<ResponseFrame>(&mut reader)).await;
        let (ResponseFrame { id, response }, payload) = match frame {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => return error,
            Err(_) => return io::ErrorKind::TimedOut.into(),
        };
        let ends = !matches!(response, Response::BackupHead(_) | Response::BackupFile { .. });
        let answers = {
            let mut pending = shared.pending.lock();
            match pending.get_mut(&id) {
                Some(waiting) => {
                    waiting.begun = true;
                    let answers = waiting.answers.clone();
                    if ends {
                        pending.remove(&id);
                    }
                    answers
                }
                None => continue,
            }
        };
        // An answer that nobody waits for any more is dropped.
        let _ = answers.send((response, payload)).await;
    }
}

/// Ends the streams that were cut midway; their callers begin again.
fn drop_begun(shared: &Shared) {
    shared.pending.lock().retain(|_, pending| !pending.begun);
}

fn fail_all(shared: &Shared, refusal: &PageError) {
    for (_, pending) in shared.pending.lock().drain() {
        // A new channel holds nothing yet, so there is room; a caller that left needs no answer.
        let _ = pending.answers.try_send((Response::Failed(refusal.clone()), Bytes::new()));
    }
}

async fn write_frame<H: Serialize>(
    writer: &mut BufWriter<WriteHalf>,
    header: &H,
) -> io::Result<()> {
    let head = wire::encode_head(header, 0).map_err(io::Error::other)?;
    writer.write_all(&head).await
}

async fn read_frame<H: DeserializeOwned>(
    reader: &mut BufReader<ReadHalf>,
) -> io::Result<(H, Bytes)> {
    let mut prefix = [0; wire::PREFIX_BYTES];
    reader.read_exact(&mut prefix).await?;
    let (header_bytes, payload_bytes) = wire::decode_prefix(prefix).map_err(io::Error::other)?;
    let mut header = vec![0; header_bytes];
    reader.read_exact(&mut header).await?;
    let header = wire::decode_header(&header).map_err(io::Error::other)?;
    let mut payload = BytesMut::zeroed(payload_bytes);
    reader.read_exact(&mut payload).await?;
    Ok((header, payload.freeze()))
}
