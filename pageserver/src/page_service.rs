#![doc = include_str!("../../docs/formats/page-service.md")]

mod answers;
mod connection;
mod requests;
mod scans;
mod visitor;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use access::{Guard, tls::Listener};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info_span, warn};

use self::connection::Connection;
use crate::{tenants::Tenants, wal_receiver::Receivers};

/// Pause after a failed accept: the system has no file descriptor left, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most connections at once.
const CONNECTIONS_MAX: usize = 4096;

/// Serves pages and base backups to computes.
#[derive(Clone)]
pub(crate) struct PageService {
    pub tenants: Arc<Tenants>,
    pub receivers: Receivers,
    pub guard: Guard,
    pub stop: CancellationToken,
}

impl PageService {
    /// Accepts connections until it is stopped; ends when the last one has ended.
    pub async fn serve(self, listener: Listener) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((_, peer)) if connections.len() >= CONNECTIONS_MAX => {
                    warn!(%peer, "refused a connection: too many are open");
                }
                Ok((arrival, peer)) => {
                    let connection = Connection::new(self.clone(), arrival);
                    connections.spawn(run(connection, peer));
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
    }
}

async fn run(connection: Connection, peer: SocketAddr) {
    let span = info_span!("page_service", %peer);
    let ended = connection.run().instrument(span).await;
    if let Err(error) = ended {
        debug!(%peer, %error, "a connection broke off");
    }
}
