//! What a safekeeper asks of another one.

use std::net::SocketAddr;
use std::time::Duration;

use access::Bearer;
use bytes::Bytes;
use protocol::quorum::{
    Configuration, Hello, PROTOCOL_VERSION, Purpose, ReadLimit, ReaderMessage, TimelineStatus,
};
use protocol::{NodeId, TenantTimeline};
use tokio::time::timeout;

use crate::Error;
use crate::frames::{FrameReader, frames};

/// A peer that says nothing for this long counts as gone.
const PATIENCE: Duration = Duration::from_secs(3);

/// Another safekeeper.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is shown.
    pub bearer: Bearer,
}

impl Peer {
    /// What it knows of a timeline, and which disk it has.
    pub async fn status(&self, timeline: TenantTimeline) -> Result<TimelineStatus, Error> {
        self.ask(timeline, Purpose::Status).await
    }

    /// Has it take over a configuration; what it knows of the timeline after that.
    pub async fn configure(
        &self,
        timeline: TenantTimeline,
        configuration: Configuration,
    ) -> Result<TimelineStatus, Error> {
        self.ask(timeline, Purpose::Configure { configuration }).await
    }

    /// Reads WAL of its log.
    pub async fn read(
        &self,
        timeline: TenantTimeline,
        from: wal_format::Lsn,
        limit: ReadLimit,
    ) -> Result<PeerWal, Error> {
        let frames = self.connect(timeline, Purpose::Read { from, limit }).await?;
        Ok(PeerWal { peer: self.clone(), frames })
    }

    async fn ask(
        &self,
        timeline: TenantTimeline,
        purpose: Purpose,
    ) -> Result<TimelineStatus, Error> {
        let mut frames = self.connect(timeline, purpose).await?;
        match self.next(&mut frames).await? {
            Some((ReaderMessage::Status(status), _)) if status.node == self.node => Ok(status),
            Some((ReaderMessage::Status(status), _)) => {
                Err(self.error(format!("safekeeper {} answers at its address", status.node)))
            }
            Some((ReaderMessage::Refused(refusal), _)) => Err(refusal.into()),
            Some((ReaderMessage::Wal { .. }, _)) => Err(self.error("WAL nobody asked for".into())),
            None => Err(self.error("it closed the connection".into())),
        }
    }

    async fn connect(
        &self,
        timeline: TenantTimeline,
        purpose: Purpose,
    ) -> Result<FrameReader, Error> {
        let connect = timeout(PATIENCE, self.bearer.trust().connect(self.address)).await;
        let connection = connect
            .map_err(|_| self.error("no connection in time".into()))?
            .map_err(|error| self.error(error.to_string()))?;
        let (reader, mut writer) = frames(connection);
        let hello =
            Hello { version: PROTOCOL_VERSION, timeline, purpose, token: self.bearer.token() };
        writer.send(&hello, Bytes::new()).await?;
        // The answer comes on the half that stays open; this half is closed when it is dropped, which says that
        // no more questions follow.
        Ok(reader)
    }

    async fn next(
        &self,
        frames: &mut FrameReader,
    ) -> Result<Option<(ReaderMessage, Bytes)>, Error> {
        let next = timeout(PATIENCE, frames.next()).await;
        next.map_err(|_| self.error("no answer in time".into()))?
    }

    fn error(&self, reason: String) -> Error {
        Error::Peer { node: self.node, reason }
    }
}

/// WAL that a peer sends.
pub struct PeerWal {
    peer: Peer,
    frames: FrameReader,
}

impl PeerWal {
    /// The next piece and where it begins; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(wal_format::Lsn, Bytes)>, Error> {
        match self.peer.next(&mut self.frames).await? {
            Some((ReaderMessage::Wal { begin, .. }, wal)) => Ok(Some((begin, wal))),
            Some((ReaderMessage::Refused(refusal), _)) => Err(refusal.into()),
            Some((ReaderMessage::Status(_), _)) => Err(self.peer.error("a status".into())),
            None => Ok(None),
        }
    }
}
