//! Frames of `protocol::wire` over TCP.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::{Buf, Bytes, BytesMut};
use protocol::wire::{self, FrameBounds, PREFIX_BYTES};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Room for each read: many requests at once.
const READ_BYTES_MIN: usize = 8 << 10;

/// A connection's first frame; `None` at an end before it. Not cancel-safe.
pub(crate) async fn read_hello<H: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<H>> {
    let Some((header, _)) = read_bounded(stream, FrameBounds::HELLO).await? else {
        return Ok(None);
    };
    wire::decode_hello(&header).map(Some).map_err(bad_frame)
}

/// The next frame's header, and how many bytes of payload follow it, which are not read yet; `None`
/// at an end between frames. Not cancel-safe.
pub(crate) async fn read_head<H: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    bounds: FrameBounds,
) -> io::Result<Option<(H, usize)>> {
    let Some((header, payload_bytes)) = read_bounded(stream, bounds).await? else {
        return Ok(None);
    };
    Ok(Some((wire::decode_header(&header).map_err(bad_frame)?, payload_bytes)))
}

async fn read_bounded(
    stream: &mut (impl AsyncRead + Unpin),
    bounds: FrameBounds,
) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut prefix = [0; PREFIX_BYTES];
    let read = stream.read(&mut prefix).await?;
    if read == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut prefix[read..]).await?;
    let (header_bytes, payload_bytes) = bounds.lengths(prefix).map_err(bad_frame)?;
    let mut header = vec![0; header_bytes];
    stream.read_exact(&mut header).await?;
    Ok(Some((header, payload_bytes)))
}

/// Bytes that came in, and the frames in them: many may come with one read.
#[derive(Debug)]
pub(crate) struct Incoming {
    bytes: BytesMut,
    bounds: FrameBounds,
}

impl Incoming {
    /// Nothing yet.
    pub fn new(bounds: FrameBounds) -> Incoming {
        Incoming { bytes: BytesMut::new(), bounds }
    }

    /// Where the next bytes go.
    pub fn unread(&mut self) -> &mut BytesMut {
        self.bytes.reserve(READ_BYTES_MIN);
        &mut self.bytes
    }

    /// Takes the next frame's header where all of the frame is there; its payload is dropped.
    pub fn next<H: DeserializeOwned>(&mut self) -> io::Result<Option<H>> {
        let Some(prefix) = self.bytes.first_chunk() else { return Ok(None) };
        let (header_bytes, payload_bytes) = self.bounds.lengths(*prefix).map_err(bad_frame)?;
        let end = PREFIX_BYTES + header_bytes;
        if self.bytes.len() < end + payload_bytes {
            return Ok(None);
        }
        let header = wire::decode_header(&self.bytes[PREFIX_BYTES..end]).map_err(bad_frame)?;
        self.bytes.advance(end + payload_bytes);
        Ok(Some(header))
    }

    /// Whether there are bytes of a frame that is not complete.
    pub fn has_part(&self) -> bool {
        !self.bytes.is_empty()
    }
}

fn bad_frame(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Buffers that are written one after the other without being joined first.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl Buffers {
    /// Adds a buffer behind the others.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }
}

impl Buf for Buffers {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.parts);
        filled.map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "no more is written than there is");
        self.bytes -= count;
        while count > 0 {
            let Some(first) = self.parts.front_mut() else { return };
            if first.len() > count {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_written_in_their_order_whatever_the_steps() {
        for step in 1..8 {
            let mut buffers = Buffers::default();
            for part in ["", "ab", "c", "defg"] {
                buffers.push(Bytes::from_static(part.as_bytes()));
            }
            let mut written = Vec::new();
            while buffers.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 2];
                assert!(buffers.chunks_vectored(&mut slices) > 0);
                let count = step.min(buffers.chunk().len());
                written.extend_from_slice(&buffers.chunk()[..count]);
                buffers.advance(count);
            }
            assert_eq!(written, b"abcdefg");
        }
    }

    #[test]
    fn frames_are_taken_from_what_came_in_whatever_the_pieces() {
        let frames: Vec<Bytes> =
            (0..5_u32).map(|number| wire::encode(&number, b"ab").expect("it is small")).collect();
        let bytes = frames.concat();
        for piece in 1..bytes.len() {
            let bounds = FrameBounds { header_bytes_max: 10, payload_bytes_max: 2 };
            let mut incoming = Incoming::new(bounds);
            let mut taken: Vec<u32> = Vec::new();
            for piece in bytes.chunks(piece) {
                incoming.unread().extend_from_slice(piece);
                while let Some(number) = incoming.next().expect("they are ours") {
                    taken.push(number);
                }
            }
            assert_eq!(taken, [0, 1, 2, 3, 4], "pieces of {piece}");
            assert!(!incoming.has_part());
        }
        let mut incoming =
            Incoming::new(FrameBounds { header_bytes_max: 10, payload_bytes_max: 1 });
        incoming.unread().extend_from_slice(&bytes);
        assert!(incoming.next::<u32>().is_err(), "the payload is above the bound");
    }

    #[tokio::test]
    async fn a_frame_above_the_bounds_is_refused_before_it_is_read() {
        let frame = wire::encode(&7u32, &[0; 100]).expect("a small frame encodes");
        let bounds = FrameBounds { header_bytes_max: 10, payload_bytes_max: 99 };
        let refused = read_head::<u32>(&mut &frame[..], bounds).await;
        assert_eq!(refused.expect_err("it is too long").kind(), io::ErrorKind::InvalidData);
        let bounds = FrameBounds { payload_bytes_max: 100, ..bounds };
        let head = read_head::<u32>(&mut &frame[..], bounds).await.expect("it fits");
        assert_eq!(head, Some((7, 100)));
        assert!(read_head::<u32>(&mut &[][..], bounds).await.expect("an end").is_none());
        let refused = read_hello::<u32>(&mut &frame[..]).await;
        assert_eq!(refused.expect_err("it has a payload").kind(), io::ErrorKind::InvalidData);
    }
}
