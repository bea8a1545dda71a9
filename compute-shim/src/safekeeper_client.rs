//! Connections to safekeepers: frames, one-off questions, streams of WAL.
//!
//! What the frames mean stands in `docs/formats/quorum-protocol.md`.

use std::{net::SocketAddr, time::Duration};

use access::{
    Bearer,
    tls::{ReadHalf, WriteHalf},
};
use bytes::{Bytes, BytesMut};
use protocol::{
    TenantTimeline,
    quorum::{Hello, PROTOCOL_VERSION, Purpose, ReadLimit, ReaderMessage, TimelineStatus},
    wire,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};
use wal_format::Lsn;

use crate::ShimError;

/// How long a connection may take to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a safekeeper may be silent: it says something each second, and answers heartbeats.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Answers are small; WAL comes in frames that are read past the buffer.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// The half of a connection that frames come from.
pub(crate) struct FrameReader {
    address: SocketAddr,
    socket: BufReader<ReadHalf>,
}

/// The half of a connection that frames go to.
pub(crate) struct FrameWriter {
    address: SocketAddr,
    socket: WriteHalf,
}

/// Connects to a safekeeper and says what for.
pub(crate) async fn connect(
    address: SocketAddr,
    timeline: TenantTimeline,
    bearer: &Bearer,
    purpose: Purpose,
) -> Result<(FrameReader, FrameWriter), ShimError> {
    let connection = timeout(CONNECT_TIMEOUT, bearer.trust().connect(address))
        .await
        .map_err(|_| silent(address, CONNECT_TIMEOUT))?
        .map_err(|error| unavailable(address, &error))?;
    let (read, write) = connection.into_split();
    let socket = BufReader::with_capacity(READ_BUFFER_BYTES, read);
    let reader = FrameReader { address, socket };
    let mut writer = FrameWriter { address, socket: write };
    let hello = Hello { version: PROTOCOL_VERSION, timeline, purpose, token: bearer.token() };
    writer.send(&hello, &[]).await?;
    Ok((reader, writer))
}

impl FrameReader {
    /// The next frame; none where the safekeeper has closed the connection between two frames.
    pub(crate) async fn next<H: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<(H, Bytes)>, ShimError> {
        let address = self.address;
        match timeout(SILENCE_MAX, self.read_frame()).await {
            Ok(frame) => frame,
            Err(_) => Err(silent(address, SILENCE_MAX)),
        }
    }

    async fn read_frame<H: DeserializeOwned>(&mut self) -> Result<Option<(H, Bytes)>, ShimError> {
        let address = self.address;
        let mut prefix = [0; wire::PREFIX_BYTES];
        let first = self.socket.read(&mut prefix).await.map_err(|e| unavailable(address, &e))?;
        if first == 0 {
            return Ok(None);
        }
        if let Some(rest) = prefix.get_mut(first..) {
            self.socket.read_exact(rest).await.map_err(|e| unavailable(address, &e))?;
        }
        let (header, payload) = wire::decode_prefix(prefix).map_err(|e| foreign(address, &e))?;
        let mut body = BytesMut::zeroed(header + payload);
        self.socket.read_exact(&mut body).await.map_err(|e| unavailable(address, &e))?;
        let mut body = body.freeze();
        let header = body.split_to(header);
        let header = wire::decode_header(&header).map_err(|e| foreign(address, &e))?;
        Ok(Some((header, body)))
    }
}

impl FrameWriter {
    /// Sends a frame; the payload is not copied.
    pub(crate) async fn send<H: Serialize>(
        &mut self,
        header: &H,
        payload: &[u8],
    ) -> Result<(), ShimError> {
        let address = self.address;
        let head = wire::encode_head(header, payload.len()).map_err(|e| foreign(address, &e))?;
        let sent = async {
            let mut frame = bytes::Buf::chain(&head[..], payload);
            self.socket.write_all_buf(&mut frame).await?;
            // Nothing where the connection is not encrypted.
            self.socket.flush().await
        };
        match timeout(SILENCE_MAX, sent).await {
            Ok(sent) => sent.map_err(|error| unavailable(address, &error)),
            Err(_) => Err(silent(address, SILENCE_MAX)),
        }
    }
}

/// What a safekeeper knows of a timeline.
pub(crate) async fn status(
    address: SocketAddr,
    timeline: TenantTimeline,
    bearer: &Bearer,
) -> Result<TimelineStatus, ShimError> {
    let (mut reader, _writer) = connect(address, timeline, bearer, Purpose::Status).await?;
    match reader.next::<ReaderMessage>().await? {
        Some((ReaderMessage::Status(status), _)) => Ok(status),
        Some((ReaderMessage::Refused(refusal), _)) => Err(refusal.into()),
        Some((ReaderMessage::Wal { .. }, _)) => Err(foreign(address, &"WAL instead of a status")),
        None => Err(closed(address)),
    }
}

/// WAL as it comes from one safekeeper.
pub(crate) struct WalStream {
    address: SocketAddr,
    reader: FrameReader,
    _writer: FrameWriter,
    next: Lsn,
}

impl WalStream {
    /// Asks for the WAL from `from` on.
    pub(crate) async fn open(
        address: SocketAddr,
        (timeline, bearer): (TenantTimeline, &Bearer),
        from: Lsn,
        limit: ReadLimit,
    ) -> Result<WalStream, ShimError> {
        let purpose = Purpose::Read { from, limit };
        let (reader, writer) = connect(address, timeline, bearer, purpose).await?;
        Ok(WalStream { address, reader, _writer: writer, next: from })
    }

    /// The next bytes, with their position; none at the stream's end. They may be empty.
    pub(crate) async fn next(&mut self) -> Result<Option<(Lsn, Bytes)>, ShimError> {
        match self.reader.next::<ReaderMessage>().await? {
            Some((ReaderMessage::Wal { begin, .. }, bytes)) => {
                if begin != self.next && !bytes.is_empty() {
                    let why = format!("WAL at {begin} where {} was next", self.next);
                    return Err(foreign(self.address, &why));
                }
                let at = self.next;
                self.next += bytes.len() as u64;
                Ok(Some((at, bytes)))
            }
            Some((ReaderMessage::Refused(refusal), _)) => Err(refusal.into()),
            Some((ReaderMessage::Status(_), _)) => Err(foreign(self.address, &"a status")),
            None => Ok(None),
        }
    }
}

fn unavailable(address: SocketAddr, why: &dyn std::fmt::Display) -> ShimError {
    ShimError::Unavailable(format!("safekeeper {address}: {why}"))
}

fn silent(address: SocketAddr, wait: Duration) -> ShimError {
    ShimError::Unavailable(format!("safekeeper {address}: silent for {} s", wait.as_secs()))
}

/// The safekeeper closed the connection where an answer was due.
pub(crate) fn closed(address: SocketAddr) -> ShimError {
    ShimError::Unavailable(format!("safekeeper {address}: closed the connection"))
}

/// The safekeeper broke the protocol.
pub(crate) fn foreign(address: SocketAddr, why: &dyn std::fmt::Display) -> ShimError {
    ShimError::Corrupt(format!("safekeeper {address} sent {why}"))
}
