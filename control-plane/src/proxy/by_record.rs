//! A client's socket of which no more is read than the record of TLS that is being read: what comes behind
//! it stays in the socket, for whoever gets that.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes before a record's body; its length is the last two of them (RFC 8446, 5.1).
const HEADER_BYTES: usize = 5;

/// A socket that is read record by record, until it is [`ByRecord::let_go`].
pub(crate) struct ByRecord {
    socket: TcpStream,
    /// The header, as far as it has come.
    header: Vec<u8>,
    /// What is left of the body.
    body: usize,
    is_let_go: bool,
}

impl ByRecord {
    /// A socket of which nothing was read of TLS.
    pub(crate) fn new(socket: TcpStream) -> ByRecord {
        let header = Vec::with_capacity(HEADER_BYTES);
        ByRecord { socket, header, body: 0, is_let_go: false }
    }

    /// From here on as much is read as there is.
    pub(crate) fn let_go(&mut self) {
        self.is_let_go = true;
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The socket, of which whole records were read.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// How much may be read at once.
    fn next(&self) -> usize {
        match self.body {
            0 => HEADER_BYTES - self.header.len(),
            body => body,
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        if self.body > 0 {
            self.body -= bytes.len();
            return;
        }
        self.header.extend_from_slice(bytes);
        if let [_, _, _, high, low] = self.header[..] {
            self.body = usize::from(u16::from_be_bytes([high, low]));
            self.header.clear();
        }
    }
}

impl AsyncRead for ByRecord {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_let_go {
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        let length = self.next().min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(length));
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut part))?;
        self.note(part.filled());
        let read = part.filled().len();
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByRecord {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn what_stands_behind_a_record_is_left_in_the_socket() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let mut stream = ByRecord::new(listener.accept().await?.0);
        let records =
            [&[22, 3, 3, 0, 3, 1, 2, 3][..], &[23, 3, 3, 0, 0], &[23, 3, 3, 1, 0]].concat();
        client.write_all(&records).await?;
        let mut buffer = [0; 1024];
        let mut read = Vec::new();
        while read.len() < 13 {
            let count = stream.read(&mut buffer).await?;
            read.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(read, records[..13], "the second record is empty");
        assert_eq!(stream.read(&mut buffer).await?, 5, "the third has a body, which has not come");
        client.write_all(&[7; 300]).await?;
        let mut body = 0;
        while body < 256 {
            body += stream.read(&mut buffer).await?;
        }
        assert_eq!(body, 256);
        let mut socket = stream.into_socket();
        let mut rest = [0; 44];
        socket.read_exact(&mut rest).await?;
        assert_eq!(rest, [7; 44]);
        Ok(())
    }
}
