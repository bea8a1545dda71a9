//! Starts and stops a safekeeper, and takes its connections.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use access::tls::{Arrival, Certificate, Listener, SPEAKS_TLS, Speaks};
use bytes::Bytes;
use protocol::quorum::{
    AcceptorMessage, Configuration, Hello, Member, Purpose, ReaderMessage, Refusal, TermHistory,
    TimelineStatus,
};
use protocol::{Identity, NodeId, TenantTimeline, Term};
use tokio::time::timeout;
use wal_format::Lsn;

use crate::acceptor::Event;
use crate::frames::{FrameReader, FrameWriter, frames};
use crate::journal::{Journal, Opened, Options, SEGMENT_BYTES};
use crate::keeper::Keeper;
use crate::peer::Peer;
use crate::timeline::Timeline;
use crate::visitor::Visitor;
use crate::{Config, Error, http, membership, metrics, offload, propose, recovery, wal_service};

/// A connection says what it is for within this time.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// A store that cannot be reached is tried again after this long.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// A running safekeeper.
pub struct Safekeeper {
    keeper: Arc<Keeper>,
    local_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
}

impl Safekeeper {
    /// Opens the disk and begins to serve.
    pub async fn start(config: Config) -> Result<Safekeeper, Error> {
        let certificate = config.certificate.as_ref();
        let listener = listen(config.listen, certificate).await?;
        let http = match config.http {
            Some(address) => Some(listen(address, certificate).await?),
            None => None,
        };
        let local_addr = listener.local_addr()?;
        let http_addr = http.as_ref().map(Listener::local_addr).transpose()?;
        let (keeper, is_new) = open(config).await?;
        let tasks = &keeper.tasks;
        run(&keeper, accept(Arc::clone(&keeper), listener));
        run(&keeper, offload::run(Arc::clone(&keeper)));
        run(&keeper, settle_in(Arc::clone(&keeper), is_new));
        if let Some(listener) = http {
            let shutdown = keeper.shutdown.clone();
            let server = axum::serve(listener.http(), http::router(Arc::clone(&keeper)));
            tasks.spawn(async move {
                let stopped = shutdown.cancelled_owned();
                if let Err(error) = server.with_graceful_shutdown(stopped).await {
                    tracing::warn!(%error, "the status is no longer served over HTTP");
                }
            });
        }
        tracing::info!(node = %keeper.me.node, identity = %keeper.me.identity, address = %local_addr, "safekeeper serves");
        Ok(Safekeeper { keeper, local_addr, http_addr })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where its status is served over HTTP.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// The identity of its disk.
    pub fn identity(&self) -> Identity {
        self.keeper.me.identity
    }

    /// Ends all connections and closes the journal. All that was acknowledged is on disk in any case.
    pub async fn shutdown(self) {
        self.keeper.shutdown.cancel();
        self.keeper.tasks.close();
        self.keeper.tasks.wait().await;
        let journal = Arc::clone(&self.keeper.journal);
        // It aborts the process where the disk fails; it does not panic.
        let _ = tokio::task::spawn_blocking(move || journal.close()).await;
    }
}

async fn listen(address: SocketAddr, certificate: Option<&Certificate>) -> Result<Listener, Error> {
    let listening = Listener::bind(address, certificate).await;
    listening.map_err(|source| Error::Listen { address, source })
}

/// Opens the journal, and a new one with a new identity where it is damaged.
async fn open(config: Config) -> Result<(Arc<Keeper>, bool), Error> {
    let options = Options {
        node: config.node,
        identity: Identity::from_bits(rand::random()),
        segment_bytes: SEGMENT_BYTES,
        sync: File::sync_data,
    };
    let folder = config.folder.clone();
    let opened = tokio::task::spawn_blocking(move || open_journal(&folder, options));
    let Opened { journal, is_new, timelines } = opened.await.map_err(|_| Error::ShuttingDown)??;
    let (me, journal) =
        (Member { node: config.node, identity: journal.identity() }, Arc::new(journal));
    let timelines: Result<HashMap<_, _>, Error> = timelines
        .into_iter()
        .map(|(id, recovered)| {
            let state_segment = Some(recovered.state_segment);
            let timeline = Timeline::new(id, Arc::clone(&journal), me, recovered, state_segment)?;
            Ok((id, timeline))
        })
        .collect();
    let bearer = config.bearer;
    let peers = config.peers.iter();
    let peers =
        peers.map(|&(node, address)| Peer { node, address, bearer: bearer.clone() }).collect();
    let terms = (config.guard.noting(metrics::note_refused), config.bounds);
    let keeper = Keeper::new(me, journal, config.store, peers, terms, timelines?);
    Ok((keeper, is_new))
}

fn open_journal(folder: &Path, options: Options) -> Result<Opened, Error> {
    match Journal::open(folder, options) {
        Err(damage @ Error::Journal { .. }) => {
            let kept = Journal::give_up(folder)?;
            tracing::error!(
                %damage, kept = %kept.display(),
                "the journal is damaged: this disk gives up its identity and recovers from the other safekeepers"
            );
            Journal::open(folder, options)
        }
        opened => opened,
    }
}

/// Runs a task until the safekeeper is stopped.
fn run(keeper: &Arc<Keeper>, task: impl Future<Output = ()> + Send + 'static) {
    let shutdown = keeper.shutdown.clone();
    keeper.tasks.spawn(async move {
        tokio::select! {
            () = task => {}
            () = shutdown.cancelled() => {}
        }
    });
}

/// Enters the disk in the register, and recovers where it is new or has not finished recovering.
async fn settle_in(keeper: Arc<Keeper>, is_new: bool) {
    loop {
        match membership::register(&*keeper.store, keeper.me).await {
            Ok(true) => break,
            Ok(false) => {
                keeper.is_replaced.store(true, Ordering::Relaxed);
                tracing::error!(identity = %keeper.me.identity, "this disk was replaced by another one of the same node");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "this disk is not in the register yet");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }
    let is_unfinished = keeper.timelines().iter().any(|timeline| !timeline.membership().1);
    if is_new || is_unfinished {
        recovery::recover_all(keeper).await;
    }
}

async fn accept(keeper: Arc<Keeper>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok((arrival, peer)) => {
                keeper.tasks.spawn(connection(Arc::clone(&keeper), arrival, peer));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(keeper: Arc<Keeper>, arrival: Arrival, peer: SocketAddr) {
    let opened = match keeper.until_shutdown(arrival.open()).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return tracing::warn!(%peer, %error, "a handshake of TLS failed"),
        Err(_) => return,
    };
    if let Err(error) = serve(&keeper, opened).await {
        tracing::debug!(%peer, %error, "a connection ends");
    }
}

async fn serve(keeper: &Arc<Keeper>, opened: Speaks) -> Result<(), Error> {
    let (connection, is_refused) = match opened {
        Speaks::Alike(connection) => (connection, false),
        Speaks::Plainly(connection) => (connection, true),
    };
    let (mut reader, mut writer) = frames(connection);
    let hello = timeout(HELLO_TIME_MAX, reader.hello::<Hello>());
    let hello = keeper.until_shutdown(hello).await?;
    let silence = std::io::Error::from(std::io::ErrorKind::TimedOut);
    let Some(hello) = hello.map_err(|_| Error::from(silence))?? else {
        return Ok(());
    };
    let admitted = match is_refused {
        true => Err(Refusal::Invalid(SPEAKS_TLS.to_owned())),
        false => Visitor::admit(keeper, &hello),
    };
    let visitor = match admitted {
        Ok(visitor) => visitor,
        Err(refusal) => {
            match hello.purpose {
                Purpose::Propose { .. } => {
                    writer.send(&AcceptorMessage::Refused(refusal), Bytes::new()).await?;
                }
                _ => writer.send(&ReaderMessage::Refused(refusal), Bytes::new()).await?,
            }
            writer.finish().await;
            return Ok(());
        }
    };
    if let Purpose::Propose { origin, proposer } = hello.purpose {
        return propose::serve(keeper, visitor, (origin, proposer), reader, writer).await;
    }
    let answered =
        keeper.until_shutdown(answer(keeper, hello, visitor, reader, &mut writer)).await?;
    if let Err(error) = answered {
        // A damaged object or journal is for a person to see; a reader's mistakes are its own.
        if matches!(error, Error::Object { .. } | Error::Journal { .. }) {
            tracing::error!(%error, "WAL cannot be served");
        }
        writer.send(&ReaderMessage::Refused(error.refusal()), Bytes::new()).await?;
    }
    writer.finish().await;
    Ok(())
}

async fn answer(
    keeper: &Arc<Keeper>,
    hello: Hello,
    visitor: Visitor,
    reader: FrameReader,
    writer: &mut FrameWriter,
) -> Result<(), Error> {
    // Nothing more is expected from a reader.
    drop(reader);
    let id = hello.timeline;
    match hello.purpose {
        Purpose::Propose { .. } => return Err(Refusal::Invalid("a proposer".to_owned()).into()),
        Purpose::Read { from, limit } => {
            return wal_service::serve(keeper, &visitor, from, limit, writer).await;
        }
        Purpose::Status => {}
        Purpose::Consumed { remote_consistent_lsn } => {
            let timeline = keeper.timeline(id).ok_or(Refusal::UnknownTimeline(id))?;
            timeline.consumed(remote_consistent_lsn);
        }
        Purpose::Configure { configuration } => configure(keeper, id, configuration).await?,
    }
    let status = status(keeper, id).await?;
    writer.send(&ReaderMessage::Status(status), Bytes::new()).await
}

async fn configure(
    keeper: &Arc<Keeper>,
    id: TenantTimeline,
    configuration: Configuration,
) -> Result<(), Error> {
    // A timeline that is being made known here with the older configuration is waited for.
    let _guard = keeper.first_contact(id).await;
    let Some(timeline) = keeper.timeline(id) else {
        return Ok(());
    };
    let (asked, known) = (configuration.generation, timeline.generation());
    if asked < known {
        return Err(Refusal::OldConfiguration { asked, known }.into());
    }
    timeline.step(Event::Configure(configuration));
    Ok(())
}

async fn status(keeper: &Keeper, id: TenantTimeline) -> Result<TimelineStatus, Error> {
    match keeper.timeline(id) {
        Some(timeline) => timeline.status().await,
        None => Ok(unknown(keeper.me.node, keeper.me.identity)),
    }
}

/// What is said of a timeline that is not known here.
fn unknown(node: NodeId, identity: Identity) -> TimelineStatus {
    TimelineStatus {
        node,
        identity,
        configuration: None,
        origin: None,
        term: Term(0),
        history: TermHistory::default(),
        flush_lsn: Lsn::INVALID,
        commit_lsn: Lsn::INVALID,
        offloaded_lsn: Lsn::INVALID,
        remote_consistent_lsn: Lsn::INVALID,
        local_start_lsn: Lsn::INVALID,
        proposer_connected: false,
    }
}
