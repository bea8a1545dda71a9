//! WAL for a standby: what Postgres' own walreceiver asks of a primary, answered from the safekeepers.
//!
//! It is a physical walsender in all that a walreceiver sees, on a Unix socket that only this
//! compute's Postgres can reach. Nothing of it is kept: the WAL passes through.
//!
//! Invariants:
//! - Only what a quorum has is sent, in its order: a standby is never ahead of what was committed.
//! - `replayed` never falls, and is never beyond what Postgres has replayed.

mod messages;
mod session;
mod source;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use access::Bearer;
use bytes::Bytes;
use protocol::{TenantTimeline, TimelineOrigin};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use wal_format::{Lsn, RawRecord, Version, WalError, WalReader};

use crate::{ShimError, folder::own, fuse::Owner};

/// What stands for a port in the socket's name; no compute listens there.
const PORT: u16 = 1;

/// Whose WAL it is, and who has it.
pub(crate) struct FeedConfig {
    /// The timeline.
    pub timeline: TenantTimeline,
    /// Where it begins: before that there is nothing but page headers.
    pub origin: TimelineOrigin,
    /// The version of its WAL.
    pub version: Version,
    /// All safekeepers.
    pub safekeepers: Vec<std::net::SocketAddr>,
    /// What they are shown.
    pub bearer: Bearer,
}

/// How far a standby has replayed, by its own word.
#[derive(Clone)]
pub(crate) struct Replayed(Arc<AtomicU64>);

impl Replayed {
    /// What it starts with has replayed so far already.
    pub(crate) fn from(lsn: Lsn) -> Replayed {
        Replayed(Arc::new(AtomicU64::new(lsn.0)))
    }

    /// The LSN.
    pub(crate) fn lsn(&self) -> Lsn {
        Lsn(self.0.load(Ordering::Acquire))
    }

    fn reach(&self, lsn: Lsn) {
        self.0.fetch_max(lsn.0, Ordering::AcqRel);
    }
}

/// What all connections share.
struct Shared {
    config: FeedConfig,
    replayed: Replayed,
    /// Why no safekeeper has the WAL any more that is wanted next.
    gone: watch::Sender<Option<String>>,
}

/// The walreceiver's other side. It ends when it is dropped.
pub(crate) struct WalFeed {
    shared: Arc<Shared>,
    folder: PathBuf,
    task: AbortHandle,
}

impl WalFeed {
    /// Listens in this folder, which is Postgres' user's alone.
    pub(crate) fn listen(
        folder: &Path,
        owner: Owner,
        config: FeedConfig,
        replayed: Replayed,
    ) -> Result<WalFeed, ShimError> {
        let socket = folder.join(format!(".s.PGSQL.{PORT}"));
        let listener = UnixListener::bind(&socket)
            .map_err(ShimError::io(format!("listening on {}", socket.display())))?;
        own(&socket, owner)?;
        let shared = Arc::new(Shared { config, replayed, gone: watch::Sender::new(None) });
        let task = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(WalFeed { shared, folder: folder.to_owned(), task })
    }

    /// Postgres' `primary_conninfo`.
    pub(crate) fn connection(&self) -> String {
        let folder = self.folder.display().to_string().replace('\\', r"\\").replace('\'', r"\'");
        format!("host='{folder}' port={PORT} user=standby")
    }

    /// Resolves when the WAL that is wanted next is not kept any more.
    pub(crate) async fn gone(&self) -> String {
        let mut gone = self.shared.gone.subscribe();
        match gone.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for WalFeed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves whoever connects; all of it ends with this task.
async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    sessions.spawn(async move {
                        if let Err(error) = session::serve(stream, &shared).await {
                            tracing::info!(%error, "a walreceiver's connection ended");
                        }
                    });
                }
                Err(error) => {
                    // Postgres connects again.
                    tracing::warn!(%error, "a walreceiver could not be let in");
                    tokio::time::sleep(source::PAUSE_MAX).await;
                }
            },
            Some(_) = sessions.join_next() => {}
        }
    }
}

/// The record that begins at `start`, once it is committed.
pub(crate) async fn record_at(config: &FeedConfig, start: Lsn) -> Result<RawRecord, ShimError> {
    let corrupt = |error: WalError| ShimError::Corrupt(format!("WAL from {start} on: {error}"));
    let mut reader = WalReader::new(config.version, config.origin.segment_bytes, start, None);
    let (pieces, mut received) = mpsc::channel::<Bytes>(1);
    let found = async {
        let mut at = start;
        while let Some(piece) = received.recv().await {
            reader.feed(at, &piece).map_err(corrupt)?;
            at += piece.len() as u64;
            if let Some(record) = reader.next_record().map_err(corrupt)? {
                return Ok(record);
            }
        }
        Err(ShimError::Stopped)
    };
    tokio::select! {
        found = found => found,
        why = source::read(config, start, pieces) => Err(ShimError::Unavailable(why)),
    }
}

#[cfg(test)]
mod tests;
