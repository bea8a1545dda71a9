//! A port, and those who come to it.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{Certificate, Connection, SPEAKS_TLS};

/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How many handshakes of an HTTP port may be under way; further ones wait to be taken.
const HANDSHAKES_MAX: usize = 256;
/// The first bytes of TLS: a record of a handshake (RFC 8446, section 5.1). A frame that begins so
/// would have a header of 790 bytes, which none has that comes first.
const HANDSHAKE_RECORD: [u8; 2] = [0x16, 0x03];
/// Pause after a failed accept: the system has no file descriptor left, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What is read, and for how long, of somebody who is refused: an answer is lost where the socket is
/// closed with something unread.
const LEFT_OVER_BYTES_MAX: u64 = 64 << 10;
const LEFT_OVER_TIME_MAX: Duration = Duration::from_secs(2);

/// A port that others connect to: by TLS alone where it has a certificate, otherwise plainly.
pub struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// Somebody who has come, and has not said anything yet.
pub struct Arrival {
    socket: TcpStream,
    tls: Option<TlsAcceptor>,
}

/// How an arrival speaks.
pub enum Speaks {
    /// It speaks as this port does.
    Alike(Connection),
    /// It speaks plainly to a port that speaks TLS: it is to be told [`SPEAKS_TLS`], and nothing else.
    Plainly(Connection),
}

impl Listener {
    /// Listens there.
    pub async fn bind(
        address: SocketAddr,
        certificate: Option<&Certificate>,
    ) -> io::Result<Listener> {
        let socket = TcpListener::bind(address).await?;
        let tls = certificate.map(|certificate| TlsAcceptor::from(certificate.config()));
        Ok(Listener { socket, tls })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next one to come. Opening takes as long as the other side likes, up to a bound: it is for
    /// the connection's own task.
    pub async fn accept(&self) -> io::Result<(Arrival, SocketAddr)> {
        let (socket, peer) = self.socket.accept().await?;
        Ok((Arrival { socket, tls: self.tls.clone() }, peer))
    }

    /// The same port for HTTP.
    pub fn http(self) -> HttpListener {
        HttpListener { port: self, opening: JoinSet::new() }
    }
}

impl Arrival {
    /// Shakes hands. Small frames are sent at once from here on.
    pub async fn open(self) -> io::Result<Speaks> {
        self.socket.set_nodelay(true)?;
        let Some(tls) = self.tls else { return Ok(Speaks::Alike(Connection::plain(self.socket))) };
        let shaken = timeout(HANDSHAKE_TIME_MAX, shake_hands(tls, self.socket)).await;
        shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn shake_hands(tls: TlsAcceptor, socket: TcpStream) -> io::Result<Speaks> {
    let mut first = HANDSHAKE_RECORD;
    match socket.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if first != HANDSHAKE_RECORD => Ok(Speaks::Plainly(Connection::plain(socket))),
        _ => Ok(Speaks::Alike(Connection::encrypted(tls.accept(socket).await?.into()))),
    }
}

/// A port for HTTP, as `axum::serve` takes it.
pub struct HttpListener {
    port: Listener,
    /// Handshakes that are under way: a slow one holds up no other.
    opening: JoinSet<Option<(Connection, SocketAddr)>>,
}

impl axum::serve::Listener for HttpListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let has_room = self.opening.len() < HANDSHAKES_MAX;
            tokio::select! {
                arrived = self.port.accept(), if has_room => match arrived {
                    Ok((arrival, peer)) => drop(self.opening.spawn(open_http(arrival, peer))),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(opened) = self.opening.join_next() => {
                    if let Ok(Some(ready)) = opened {
                        return ready;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }
}

async fn open_http(arrival: Arrival, peer: SocketAddr) -> Option<(Connection, SocketAddr)> {
    match arrival.open().await {
        Ok(Speaks::Alike(connection)) => Some((connection, peer)),
        Ok(Speaks::Plainly(connection)) => {
            tracing::warn!(%peer, "somebody spoke plainly to a port that speaks TLS");
            // Who does not wait for the answer needs none.
            let _ = timeout(LEFT_OVER_TIME_MAX, refuse_http(connection)).await;
            None
        }
        Err(error) => {
            tracing::warn!(%peer, %error, "a handshake of TLS failed");
            None
        }
    }
}

async fn refuse_http(mut connection: Connection) -> io::Result<()> {
    let body = format!("{{\"code\":\"speaks_tls\",\"message\":\"{SPEAKS_TLS}\"}}");
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(answer.as_bytes()).await?;
    connection.shutdown().await?;
    let mut left_over = connection.take(LEFT_OVER_BYTES_MAX);
    tokio::io::copy(&mut left_over, &mut tokio::io::sink()).await?;
    Ok(())
}
