//! Frames on a connection.

use access::tls::{Connection, ReadHalf, WriteHalf};
use bytes::{Buf, Bytes, BytesMut};
use protocol::wire::{self, FrameBounds, PREFIX_BYTES, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Error;

/// What is asked for at once: several appends of a busy proposer come with one system call.
const READ_BYTES: usize = 256 << 10;

/// Reads frames.
pub struct FrameReader {
    socket: ReadHalf,
    buffer: BytesMut,
}

/// Writes frames.
pub struct FrameWriter {
    socket: WriteHalf,
}

/// The two directions of a connection.
pub fn frames(connection: Connection) -> (FrameReader, FrameWriter) {
    let (reader, writer) = connection.into_split();
    (FrameReader { socket: reader, buffer: BytesMut::new() }, FrameWriter { socket: writer })
}

impl FrameReader {
    /// The next frame; `None` where the other side closed between two frames. The payload is not copied.
    pub async fn next<H: DeserializeOwned>(&mut self) -> Result<Option<(H, Bytes)>, Error> {
        self.within(FrameBounds::ANY, wire::decode_header).await
    }

    /// The first frame of a connection, of somebody who is not known yet.
    pub async fn hello<H: DeserializeOwned>(&mut self) -> Result<Option<H>, Error> {
        let first = self.within(FrameBounds::HELLO, wire::decode_hello).await?;
        Ok(first.map(|(hello, _)| hello))
    }

    async fn within<H>(
        &mut self,
        bounds: FrameBounds,
        decode: fn(&[u8]) -> Result<H, WireError>,
    ) -> Result<Option<(H, Bytes)>, Error> {
        loop {
            let frame_bytes = match self.buffer.first_chunk::<PREFIX_BYTES>() {
                None => None,
                Some(prefix) => {
                    let (header, payload) = bounds.lengths(*prefix).map_err(invalid)?;
                    Some(PREFIX_BYTES + header + payload)
                }
            };
            if let Some(whole) = frame_bytes.filter(|&bytes| bytes <= self.buffer.len()) {
                return self.take(whole, decode).map(Some);
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

    fn take<H>(
        &mut self,
        frame_bytes: usize,
        decode: fn(&[u8]) -> Result<H, WireError>,
    ) -> Result<(H, Bytes), Error> {
        let mut frame = self.buffer.split_to(frame_bytes).freeze();
        let header_bytes = frame.get_u32_le() as usize;
        frame.advance(4);
        let header = decode(&frame[..header_bytes]).map_err(invalid)?;
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
        // Nothing where the connection is not encrypted.
        Ok(self.socket.flush().await?)
    }

    /// Says that nothing follows.
    pub async fn finish(&mut self) {
        // A connection that broke needs no farewell.
        let _ = self.socket.shutdown().await;
    }
}

fn invalid(error: WireError) -> Error {
    protocol::quorum::Refusal::Invalid(error.to_string()).into()
}
