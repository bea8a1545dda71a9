//! Frames on a TCP connection.

use bytes::{Buf, Bytes, BytesMut};
use protocol::wire::{self, PREFIX_BYTES};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::Error;

/// What is asked for at once: several appends of a busy proposer come with one system call.
const READ_BYTES: usize = 256 << 10;

/// Reads frames.
pub struct FrameReader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
}

/// Writes frames.
pub struct FrameWriter {
    socket: OwnedWriteHalf,
}

/// The two directions of a connection.
pub fn frames(socket: TcpStream) -> Result<(FrameReader, FrameWriter), Error> {
    // A commit waits for one small frame each way: none may be held back for a fuller packet.
    socket.set_nodelay(true)?;
    let (reader, writer) = socket.into_split();
    Ok((FrameReader { socket: reader, buffer: BytesMut::new() }, FrameWriter { socket: writer }))
}

impl FrameReader {
    /// The next frame; `None` where the other side closed between two frames. The payload is not copied.
    pub async fn next<H: DeserializeOwned>(&mut self) -> Result<Option<(H, Bytes)>, Error> {
        loop {
            let frame_bytes = match self.buffer.first_chunk::<PREFIX_BYTES>() {
                None => None,
                Some(prefix) => {
                    let (header, payload) = wire::decode_prefix(*prefix).map_err(invalid)?;
                    Some(PREFIX_BYTES + header + payload)
                }
            };
            if let Some(whole) = frame_bytes.filter(|&bytes| bytes <= self.buffer.len()) {
                return self.take(whole).map(Some);
            }
            let missing = frame_bytes.unwrap_or(PREFIX_BYTES) - self.buffer.len();
            if self.buffer.capacity() - self.buffer.len() < missing {
                self.buffer.reserve(missing.max(READ_BYTES));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    fn take<H: DeserializeOwned>(&mut self, frame_bytes: usize) -> Result<(H, Bytes), Error> {
        let mut frame = self.buffer.split_to(frame_bytes).freeze();
        let header_bytes = frame.get_u32_le() as usize;
        frame.advance(4);
        let header = wire::decode_header(&frame[..header_bytes]).map_err(invalid)?;
        frame.advance(header_bytes);
        Ok((header, frame))
    }
}

impl FrameWriter {
    /// Writes a frame; the payload is not copied.
    pub async fn send<H: Serialize>(&mut self, header: &H, payload: Bytes) -> Result<(), Error> {
        let head = wire::encode_head(header, payload.len()).map_err(invalid)?;
        let mut frame = head.chain(payload);
        while frame.has_remaining() {
            self.socket.write_buf(&mut frame).await?;
        }
        Ok(())
    }

    /// Says that nothing follows.
    pub async fn finish(&mut self) {
        // A connection that broke needs no farewell.
        let _ = self.socket.shutdown().await;
    }
}

fn invalid(error: wire::WireError) -> Error {
    protocol::quorum::Refusal::Invalid(error.to_string()).into()
}
