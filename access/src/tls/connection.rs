//! A connection, encrypted or not.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_rustls::TlsStream;

/// A connection; one that is not encrypted costs nothing but the look which of the two it is.
///
/// What is written may wait here until it is flushed. The end of an encrypted connection that was
/// cut off looks like any other: everything that goes over it says its own length.
pub type Connection = Stream<TcpStream, Encrypted>;

/// The half that is read from.
pub type ReadHalf = Stream<OwnedReadHalf, tokio::io::ReadHalf<Encrypted>>;

/// The half that is written to; it ends with the last of both.
pub struct WriteHalf {
    stream: Stream<OwnedWriteHalf, tokio::io::WriteHalf<Encrypted>>,
    /// Whether what was written may wait in memory to be encrypted and sent.
    unsent: bool,
}

/// A connection or a half of it, plain or encrypted.
pub struct Stream<P, E>(Kind<P, E>);

enum Kind<P, E> {
    Plain(P),
    Encrypted(E),
}

type Encrypted = Box<TlsStream<TcpStream>>;

impl Connection {
    pub(super) fn plain(socket: TcpStream) -> Connection {
        Stream(Kind::Plain(socket))
    }

    pub(super) fn encrypted(stream: TlsStream<TcpStream>) -> Connection {
        Stream(Kind::Encrypted(Box::new(stream)))
    }

    /// Both directions, each for a task of its own.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        let (reader, writer) = match self.0 {
            Kind::Plain(socket) => {
                let (reader, writer) = socket.into_split();
                (Kind::Plain(reader), Kind::Plain(writer))
            }
            Kind::Encrypted(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                (Kind::Encrypted(reader), Kind::Encrypted(writer))
            }
        };
        (Stream(reader), WriteHalf { stream: Stream(writer), unsent: false })
    }
}

impl WriteHalf {
    /// Whether something waits to be flushed; never where nothing is encrypted.
    pub fn has_unsent(&self) -> bool {
        self.unsent
    }

    fn note_written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.unsent = matches!(self.stream.0, Kind::Encrypted(_));
        written
    }
}

/// What was read; the end, also where it was not announced.
fn or_end(read: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
    match read {
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Poll::Ready(Ok(()))
        }
        read => read,
    }
}

impl<P: AsyncRead + Unpin, E: AsyncRead + Unpin> AsyncRead for Stream<P, E> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_read(context, into),
            Kind::Encrypted(stream) => or_end(Pin::new(stream).poll_read(context, into)),
        }
    }
}

impl<P: AsyncWrite + Unpin, E: AsyncWrite + Unpin> AsyncWrite for Stream<P, E> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Kind::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_write_vectored(context, parts),
            Kind::Encrypted(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) => socket.is_write_vectored(),
            Kind::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_flush(context),
            Kind::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Kind::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.note_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.unsent = false;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
