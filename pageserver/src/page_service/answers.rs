//! Answers on their way to a compute, in the order in which they are ready.

use std::io;

use bytes::Bytes;
use protocol::{
    page_service::{Response, ResponseFrame},
    wire,
};

use crate::connection::Buffers;

/// An answer and its payload, in pieces that are written as they are.
#[derive(Debug)]
pub(super) struct Answer {
    pub frame: ResponseFrame,
    pub payload: Vec<Bytes>,
}

impl Answer {
    /// One without a payload.
    pub fn head(id: u64, response: Response) -> Answer {
        Answer { frame: ResponseFrame { id, response }, payload: Vec::new() }
    }
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Outgoing {
    buffers: Buffers,
}

impl Outgoing {
    /// Adds an answer behind the others.
    pub fn push(&mut self, answer: Answer) -> io::Result<()> {
        let payload_bytes = answer.payload.iter().map(Bytes::len).sum();
        let head = wire::encode_head(&answer.frame, payload_bytes).map_err(io::Error::other)?;
        self.buffers.push(head);
        answer.payload.into_iter().for_each(|part| self.buffers.push(part));
        Ok(())
    }

    /// How much it is.
    pub fn bytes(&self) -> usize {
        bytes::Buf::remaining(&self.buffers)
    }

    /// The bytes; whoever writes some takes them off.
    pub fn unwritten(&mut self) -> &mut Buffers {
        &mut self.buffers
    }
}
