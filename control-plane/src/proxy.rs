//! The proxy: one address for every endpoint, whose compute is woken where it sleeps.
//!
//! A client says which endpoint it means, and proves that it knows its role's password; the proxy
//! logs in to the compute with what it learned from the proof. From there on it passes bytes, or has the
//! backend talk to the client itself, and waits for the session's end.
//! `docs/formats/proxy.md` is its specification. It knows endpoints and roles through [`Directory`]
//! and [`Roles`] alone.

mod authentication;
mod backend;
mod by_record;
mod cancel;
mod connection;
mod counted;
mod directory;
mod greeting;
mod handover;
mod message;
mod name;
mod pg_authid;
mod refusal;
mod scram;
mod sent;
mod session_keys;
mod startup;
mod stream;
mod tls;
mod way;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::pg_authid::{APPLICATION, answer, connect_as_superuser};
use self::{cancel::Cancels, connection::Ended, refusal::Refusal, tls::Tls};
pub use self::{
    directory::{Awake, Directory, EndpointRef, Roles},
    pg_authid::PgAuthid,
    scram::{NotScram, Verifier},
    sent::Sent,
    tls::CertificateFiles,
    way::Way,
};
use crate::{Error, metrics::METRICS};

/// The most connections at a time.
const CONNECTIONS_MAX: usize = 10_000;

/// After so long without a word, a client is asked whether it is still there, and given up if it does
/// not answer: one that is gone without a word would keep its compute awake for ever.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TRIES: u32 = 6;

/// How long is waited after a connection could not be accepted: files may be short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a proxy needs to know.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Endpoints are called `NAME.domain` where TLS names them.
    pub domain: String,
    /// The certificate; one that it makes for itself where none is given.
    pub certificate: Option<CertificateFiles>,
    /// The folder that keeps the certificate that it makes.
    pub folder: PathBuf,
    /// Whether clients may do without TLS.
    pub plain_allowed: bool,
}

/// A running proxy.
pub struct Proxy {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    connections: TaskTracker,
    acceptor: JoinHandle<()>,
}

/// What all connections share.
struct Shared {
    domain: String,
    plain_allowed: bool,
    tls: Tls,
    directory: Arc<dyn Directory>,
    roles: Arc<dyn Roles>,
    cancels: Cancels,
    /// No session begins any more.
    stop: CancellationToken,
    /// Sessions end.
    end: CancellationToken,
}

impl Proxy {
    /// Listens and serves until [`Proxy::shutdown`].
    pub async fn start(
        config: ProxyConfig,
        directory: Arc<dyn Directory>,
        roles: Arc<dyn Roles>,
    ) -> Result<Proxy, Error> {
        let files = match config.certificate {
            Some(files) => files,
            None => tls::self_made(&config.folder, &config.domain)?,
        };
        let tls = Tls::load(&files)?;
        let failed = |reason| Error::Listen { address: config.listen, reason };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            domain: config.domain.to_ascii_lowercase(),
            plain_allowed: config.plain_allowed,
            tls,
            directory,
            roles,
            cancels: Cancels::default(),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
        });
        let connections = TaskTracker::new();
        let acceptor = tokio::spawn(accept(listener, shared.clone(), connections.clone()));
        Ok(Proxy { local_addr, shared, connections, acceptor })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Lets nobody in any more; sessions go on.
    pub fn close(&self) {
        self.shared.stop.cancel();
        self.acceptor.abort();
    }

    /// Ends every session, and waits until they have ended. Sessions of computes that were stopped
    /// before have heard it from Postgres.
    pub async fn shutdown(self) {
        self.close();
        self.shared.end.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, connections: TaskTracker) {
    loop {
        let (socket, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = prepare(&socket) {
            tracing::debug!(%error, %from, "a client went at once");
            continue;
        }
        let is_full = connections.len() >= CONNECTIONS_MAX;
        let shared = shared.clone();
        connections.spawn(async move {
            METRICS.proxy_connections.inc();
            let served = async {
                match is_full {
                    true => {
                        connection::refuse(socket, &Refusal::TooMany { max: CONNECTIONS_MAX }).await
                    }
                    false => connection::serve(&shared, socket).await,
                }
            };
            tokio::select! {
                () = served => {}
                () = shared.end.cancelled() => {}
            }
            METRICS.proxy_connections.dec();
        });
    }
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}
