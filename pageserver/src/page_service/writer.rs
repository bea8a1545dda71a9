//! One task writes all answers of a connection, in the order in which they are ready.

use std::io;

use bytes::{Buf, Bytes};
use protocol::{page_service::ResponseFrame, wire};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use crate::connection::Buffers;

/// Answers that are ready but not written yet; more wait where they were made.
pub(super) const ANSWERS_MAX: usize = 64;
/// Answers are joined to one write up to so many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// An answer and its payload, in pieces that are written as they are.
#[derive(Debug)]
pub(super) struct Answer {
    pub frame: ResponseFrame,
    pub payload: Vec<Bytes>,
}

/// Where the tasks of a connection's requests leave their answers.
pub(super) type Answers = mpsc::Sender<Answer>;

/// Writes answers until no one can send any more.
pub(super) async fn write_answers(
    mut stream: impl AsyncWrite + Unpin,
    mut answers: mpsc::Receiver<Answer>,
) -> io::Result<()> {
    let mut buffers = Buffers::default();
    while let Some(answer) = answers.recv().await {
        push(&mut buffers, answer)?;
        while buffers.remaining() < WRITE_BYTES
            && let Ok(answer) = answers.try_recv()
        {
            push(&mut buffers, answer)?;
        }
        stream.write_all_buf(&mut buffers).await?;
    }
    stream.shutdown().await
}

fn push(buffers: &mut Buffers, answer: Answer) -> io::Result<()> {
    let payload_bytes = answer.payload.iter().map(Bytes::len).sum();
    let head = wire::encode_head(&answer.frame, payload_bytes).map_err(io::Error::other)?;
    buffers.push(head);
    answer.payload.into_iter().for_each(|part| buffers.push(part));
    Ok(())
}
