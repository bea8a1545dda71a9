//! A client's connection, encrypted or not.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{
    by_record::ByRecord,
    session_keys::{self, Secrets, SessionKeys},
};

/// A stream that ends in both directions as soon as this side has ended it: a client whose backend
/// is gone is not waited for, as Postgres does not wait for it.
pub(crate) struct ClientStream {
    bytes: Bytes,
    is_ended: bool,
    reader: Option<Waker>,
}

enum Bytes {
    Plain(TcpStream),
    Tls(Box<TlsStream<ByRecord>>, Arc<Secrets>),
}

impl ClientStream {
    /// A connection without TLS.
    pub(crate) fn plain(stream: TcpStream) -> ClientStream {
        ClientStream { bytes: Bytes::Plain(stream), is_ended: false, reader: None }
    }

    /// A connection after TLS' handshake, and its secrets.
    pub(crate) fn encrypted(stream: TlsStream<ByRecord>, secrets: Arc<Secrets>) -> ClientStream {
        ClientStream { bytes: Bytes::Tls(Box::new(stream), secrets), is_ended: false, reader: None }
    }

    /// Whether it is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.bytes, Bytes::Tls(..))
    }

    /// The socket, where whoever gets it now misses nothing of what the client said: a backend that knows
    /// the keys, if there are any.
    pub(crate) fn socket_to_give(&mut self) -> Option<&TcpStream> {
        let (socket, tls) = match &mut self.bytes {
            Bytes::Plain(socket) => return Some(socket),
            Bytes::Tls(stream, _) => stream.get_mut(),
        };
        session_keys::suite(tls)?;
        let state = tls.process_new_packets().ok()?;
        let is_quiet = state.plaintext_bytes_to_read() == 0 && state.tls_bytes_to_write() == 0;
        is_quiet.then(|| socket.socket())
    }

    /// The socket, and the keys of what is spoken on it.
    pub(crate) fn into_parts(self) -> io::Result<(TcpStream, Option<SessionKeys>)> {
        match self.bytes {
            Bytes::Plain(socket) => Ok((socket, None)),
            Bytes::Tls(stream, secrets) => {
                let (socket, tls) = stream.into_inner();
                Ok((socket.into_socket(), Some(SessionKeys::take(tls, &secrets)?)))
            }
        }
    }

    /// The client's bytes are for nobody but this: as many are read at once as there are.
    pub(crate) fn keep(&mut self) {
        if let Bytes::Tls(stream, _) = &mut self.bytes {
            stream.get_mut().0.let_go();
        }
    }

    /// The server name of TLS.
    pub(crate) fn server_name(&self) -> Option<&str> {
        match &self.bytes {
            Bytes::Plain(_) => None,
            Bytes::Tls(stream, _) => stream.get_ref().1.server_name(),
        }
    }

    /// The socket, whatever was spoken on it.
    pub(crate) fn into_socket(self) -> TcpStream {
        match self.bytes {
            Bytes::Plain(stream) => stream,
            Bytes::Tls(stream, _) => stream.into_inner().0.into_socket(),
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
            Bytes::Tls(stream, _) => Pin::new(stream).poll_read(context, buffer),
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
            Bytes::Tls(stream, _) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_flush(context),
            Bytes::Tls(stream, _) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Bytes::Tls(stream, _) => Pin::new(stream).poll_shutdown(context),
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
