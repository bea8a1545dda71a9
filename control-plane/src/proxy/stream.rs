//! A client's connection, encrypted or not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A stream that ends in both directions as soon as this side has ended it: a client whose backend
/// is gone is not waited for, as Postgres does not wait for it.
pub(crate) struct ClientStream {
    bytes: Bytes,
    is_ended: bool,
    reader: Option<Waker>,
}

enum Bytes {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientStream {
    /// A connection without TLS.
    pub(crate) fn plain(stream: TcpStream) -> ClientStream {
        ClientStream { bytes: Bytes::Plain(stream), is_ended: false, reader: None }
    }

    /// A connection after TLS' handshake.
    pub(crate) fn encrypted(stream: TlsStream<TcpStream>) -> ClientStream {
        ClientStream { bytes: Bytes::Tls(Box::new(stream)), is_ended: false, reader: None }
    }

    /// Whether it is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.bytes, Bytes::Tls(_))
    }

    /// The socket, where nothing but the client's own bytes are spoken on it.
    pub(crate) fn as_plain(&self) -> Option<&TcpStream> {
        match &self.bytes {
            Bytes::Plain(stream) => Some(stream),
            Bytes::Tls(_) => None,
        }
    }

    /// The server name of TLS.
    pub(crate) fn server_name(&self) -> Option<&str> {
        match &self.bytes {
            Bytes::Plain(_) => None,
            Bytes::Tls(stream) => stream.get_ref().1.server_name(),
        }
    }

    /// The socket, whatever was spoken on it.
    pub(crate) fn into_socket(self) -> TcpStream {
        match self.bytes {
            Bytes::Plain(stream) => stream,
            Bytes::Tls(stream) => stream.into_inner().0,
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_ended {
            return Poll::Ready(Ok(()));
        }
        let polled = match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Bytes::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if polled.is_pending() {
            self.reader = Some(context.waker().clone());
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Bytes::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_flush(context),
            Bytes::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Bytes::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        };
        if polled.is_ready() {
            self.is_ended = true;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        polled
    }
}
