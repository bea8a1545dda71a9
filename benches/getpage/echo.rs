//! The yardstick: as many bytes there and back as a page takes, between two threads that do nothing
//! else.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

/// A connection to a thread that answers.
pub struct Echo {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Echo {
    /// Starts the thread, which ends with the connection.
    pub fn start(request_bytes: usize, answer_bytes: usize) -> anyhow::Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        let (mut served, _) = listener.accept()?;
        served.set_nodelay(true)?;
        let (mut request, answer) = (vec![0; request_bytes], vec![0; answer_bytes]);
        thread::spawn(move || {
            while served.read_exact(&mut request).is_ok() && served.write_all(&answer).is_ok() {}
        });
        Ok(Echo { stream, request: vec![0; request_bytes], answer: vec![0; answer_bytes] })
    }

    /// There and back once. The answer is read in two parts, as a frame is.
    pub fn ask(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.request)?;
        let (prefix, rest) = self.answer.split_at_mut(protocol::wire::PREFIX_BYTES);
        self.stream.read_exact(prefix)?;
        self.stream.read_exact(rest)?;
        Ok(())
    }
}
