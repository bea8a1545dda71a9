//! One connection to one safekeeper, and the ingest of what it sends.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use access::{Bearer, tls::Connection};
use bytes::Bytes;
use protocol::{
    quorum::{
        APPEND_BYTES_MAX, Hello, PROTOCOL_VERSION, Purpose, ReadLimit, ReaderMessage, Refusal,
    },
    wire::{self, FrameBounds},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::{Instant, timeout},
};
use wal_format::{LentRecord, Lsn, Records, RelationFork, Version, WalReader};

use super::ReceiverStatus;
use crate::{
    change::Changes,
    connection::read_head,
    control::Control,
    error::Error,
    ingest::{self, Copies, DatabaseFolder, Ingest, IngestError, fork_blocks},
    key::{Key, KeyKind},
    replication_origin::OriginProgress,
    timeline::Timeline,
};

/// How long a safekeeper may take to accept a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a safekeeper may be silent; it sends a heartbeat each second.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long a safekeeper may know less of what is committed than somebody waits for. A living
/// compute tells all of them within milliseconds.
const LAG_MAX: Duration = Duration::from_secs(1);
/// What is taken from a safekeeper: a status, or a piece of WAL.
pub(super) const BOUNDS: FrameBounds =
    FrameBounds { header_bytes_max: 1 << 20, payload_bytes_max: APPEND_BYTES_MAX };
/// WAL is taken from the socket in pieces of at most this many bytes: small enough to be in the
/// processor's cache when it is ingested.
const PIECE_BYTES: usize = 64 << 10;
/// Changes are applied when they have so many bytes: one record's more at most.
const CHANGES_BYTES_MAX: usize = 32 << 10;
/// Records that are found before they are ingested.
const RECORDS_AT_ONCE: usize = 512;
/// How long records are ingested before other tasks of the same thread get their turn. To give it wakes another
/// thread, which costs what dozens of records do.
const TURN: Duration = Duration::from_millis(1);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// The safekeeper cannot serve, or the object store cannot be read: try another, or later.
    Lost(String),
    /// The safekeeper's WAL is damaged, as it arrived or where it is stored: another may have it
    /// whole.
    Damaged(IngestError),
    /// Ingest can never go on.
    Stopped(IngestError),
    /// Nothing is left to receive, and no one uses the timeline.
    Idle,
    /// The safekeeper has never heard of the timeline: no compute has written on it, as far as it
    /// knows.
    Unknown,
}

/// What the timeline's users need, as of the moment of asking.
pub(super) struct Needs<Idle, Wanted> {
    /// Whether there are none.
    pub is_idle: Idle,
    /// The highest LSN that one of them waits for.
    pub wanted: Wanted,
}

/// A timeline's ingest, over many connections.
pub(super) struct Session {
    timeline: Arc<Timeline>,
    bearer: Bearer,
    ingest: Option<Ingest>,
    /// What was ingested and not applied yet; its room serves again.
    changes: Changes,
    turn_began: Instant,
}

impl Session {
    pub fn new(timeline: Arc<Timeline>, bearer: Bearer) -> Session {
        let turn_began = Instant::now();
        Session { timeline, bearer, ingest: None, changes: Changes::default(), turn_began }
    }

    /// Receives from this safekeeper for as long as it serves.
    pub async fn stream(
        &mut self,
        safekeeper: SocketAddr,
        status: &watch::Sender<ReceiverStatus>,
        needs: Needs<impl Fn() -> bool, impl Fn() -> Option<Lsn>>,
    ) -> SessionEnd {
        match self.try_stream(safekeeper, status, needs).await {
            Ok(()) => SessionEnd::Idle,
            Err(SessionEnd::Lost(reason)) => SessionEnd::Lost(format!("{safekeeper}: {reason}")),
            Err(end) => end,
        }
    }

    async fn try_stream(
        &mut self,
        safekeeper: SocketAddr,
        status: &watch::Sender<ReceiverStatus>,
        needs: Needs<impl Fn() -> bool, impl Fn() -> Option<Lsn>>,
    ) -> Result<(), SessionEnd> {
        let from = self.timeline.last_record();
        let origin = self.timeline.origin();
        let version = version_of(&self.timeline)?;
        let mut reader =
            WalReader::new(version, origin.segment_bytes, from.lsn, Some(from.last_record))
                .with_system_id(origin.system_id);
        let purpose = Purpose::Read { from: from.lsn, limit: ReadLimit::Commit };
        let connected = connect(safekeeper, &self.bearer, &self.timeline, purpose).await;
        let mut stream = connected.map_err(lost)?;
        let mut lags_since = None;
        loop {
            let (message, wal_bytes) = receive_head(&mut stream).await.map_err(lost)?;
            let (begin, commit_lsn) = match message {
                ReaderMessage::Wal { begin, commit_lsn, term } => {
                    self.timeline.learn_term(term);
                    (begin, commit_lsn)
                }
                ReaderMessage::Refused(Refusal::UnknownTimeline(_)) => {
                    return Err(SessionEnd::Unknown);
                }
                ReaderMessage::Refused(Refusal::Damaged(reason)) => {
                    let at = reader.fed_to();
                    return Err(SessionEnd::Damaged(IngestError::Stored { at, reason }));
                }
                ReaderMessage::Refused(refusal) => return Err(lost(refusal)),
                ReaderMessage::Status(_) => return Err(lost("a status where WAL was expected")),
            };
            status.send_if_modified(|status| {
                let streaming = ReceiverStatus::Streaming { safekeeper, commit_lsn };
                let changed = *status != streaming;
                *status = streaming;
                changed
            });
            if wal_bytes == 0 {
                if commit_lsn <= self.timeline.last_record_lsn() && (needs.is_idle)() {
                    return Ok(());
                }
                let wanted = (needs.wanted)().filter(|wanted| *wanted > commit_lsn);
                lags_since = wanted.and(lags_since.or_else(|| Some(Instant::now())));
                if let (Some(wanted), Some(since)) = (wanted, lags_since)
                    && since.elapsed() >= LAG_MAX
                {
                    let known = format!("it knows of commits up to {commit_lsn} only");
                    return Err(lost(format!("{known}; {wanted} is waited for")));
                }
                continue;
            }
            lags_since = None;
            if begin != reader.fed_to() {
                let expected = reader.fed_to();
                return Err(lost(format!("WAL from {begin} came where {expected} was expected")));
            }
            let mut left = wal_bytes;
            while left > 0 {
                let room = reader.room(PIECE_BYTES.min(left));
                let count = receive_some(&mut stream, room).await.map_err(lost)?;
                left -= count;
                reader.feed_room(count);
                self.ingest_all(&mut reader).await?;
            }
        }
    }

    async fn ingest_all(&mut self, reader: &mut WalReader) -> Result<(), SessionEnd> {
        self.timeline.ready_for_more().await.map_err(lost)?;
        loop {
            let records = reader.next_records(RECORDS_AT_ONCE);
            let damaged = match records {
                Ok(records) if records.len() == 0 => return Ok(()),
                Ok(records) => {
                    self.ingest(records).await?;
                    None
                }
                Err(reason) => Some(reason),
            };
            if let Some(reason) = damaged {
                let at = reader.record_end();
                return Err(SessionEnd::Damaged(IngestError::Damaged { at, reason }));
            }
            if self.turn_began.elapsed() >= TURN {
                tokio::task::yield_now().await;
                self.turn_began = Instant::now();
            }
        }
    }

    /// What was understood before a failure is applied.
    async fn ingest(&mut self, records: Records<'_>) -> Result<(), SessionEnd> {
        let Session { timeline, ingest, changes, .. } = self;
        let ingest = match ingest {
            Some(ingest) => ingest,
            none => none.insert(begin_ingest(timeline).await?),
        };
        for record in records {
            if changes.bytes() >= CHANGES_BYTES_MAX {
                timeline.apply_all(changes);
            }
            // Many timelines share one memory: each may exceed it by what is applied at once.
            if changes.is_empty() && timeline.must_wait() {
                timeline.ready_for_more().await.map_err(lost)?;
            }
            // Most need nothing, and no task that could wait.
            let taken = match ingest.take(record, changes) {
                Ok(None) => Ok(()),
                Ok(Some(needs)) => learn_and_take(timeline, ingest, record, needs, changes).await,
                Err(reason) => Err(SessionEnd::Stopped(reason)),
            };
            if let Err(end) = taken {
                timeline.apply_all(changes);
                // Nothing is left of the record that failed.
                *changes = Changes::default();
                return Err(end);
            }
        }
        timeline.apply_all(changes);
        Ok(())
    }
}

/// Takes a record that needs this.
async fn learn_and_take(
    timeline: &Timeline,
    ingest: &mut Ingest,
    record: LentRecord<'_>,
    needs: ingest::Needs,
    changes: &mut Changes,
) -> Result<(), SessionEnd> {
    // What is read must have all that was before this record.
    timeline.apply_all(changes);
    let (start, before) = (record.start, timeline.last_record_lsn());
    for fork in needs.unknown_sizes {
        ingest.learn_size(fork, read_size(timeline, fork, before, start).await?);
    }
    let mut copies = Copies::with_capacity(needs.copied_databases.len());
    for folder in needs.copied_databases {
        copies.push(read_database(timeline, folder, before, start).await?);
    }
    ingest.take_with(record, copies, changes).map_err(SessionEnd::Stopped)?;
    Ok(())
}

async fn begin_ingest(timeline: &Timeline) -> Result<Ingest, SessionEnd> {
    let at = timeline.last_record_lsn();
    let control = read_control(timeline, at).await?;
    let origins = read_origins(timeline, at).await?;
    Ok(Ingest::new(version_of(timeline)?, control, origins))
}

fn version_of(timeline: &Timeline) -> Result<Version, SessionEnd> {
    let major = timeline.origin().major;
    Version::from_major(major).ok_or_else(|| lost(format!("Postgres {major} is not served")))
}

async fn read_database(
    timeline: &Timeline,
    (tablespace, database): DatabaseFolder,
    at: Lsn,
    start: Lsn,
) -> Result<Vec<(Key, Bytes)>, SessionEnd> {
    let mut found = Vec::new();
    let contents = [
        Key::database_pages(tablespace, database),
        Key::database_sizes(tablespace, database),
        Key::relation_map(tablespace, database).only(),
    ];
    for range in contents {
        let values = timeline.scan(range, at).await;
        found.extend(values.map_err(|error| read_failed(error, start))?);
    }
    Ok(found)
}

async fn read_control(timeline: &Timeline, at: Lsn) -> Result<Control, SessionEnd> {
    let control = Control::read(timeline, at).await.map_err(|error| read_failed(error, at))?;
    control.ok_or_else(|| {
        SessionEnd::Stopped(IngestError::Stored { at, reason: "no control value".to_owned() })
    })
}

async fn read_origins(
    timeline: &Timeline,
    at: Lsn,
) -> Result<Vec<(u16, OriginProgress)>, SessionEnd> {
    let origins = timeline.scan(KeyKind::ReplicationOrigin.all(), at).await;
    let origins = origins.map_err(|error| read_failed(error, at))?.into_iter();
    let decoded = origins.map(|(key, value)| {
        let progress = OriginProgress::decode(&value)?;
        Some((u16::try_from(key.number()).ok()?, progress))
    });
    decoded.collect::<Option<_>>().ok_or_else(|| {
        let reason = "the progress of a replication origin is not an LSN".to_owned();
        SessionEnd::Stopped(IngestError::Stored { at, reason })
    })
}

async fn read_size(
    timeline: &Timeline,
    fork: RelationFork,
    at: Lsn,
    start: Lsn,
) -> Result<Option<u32>, SessionEnd> {
    let value = timeline.get(Key::fork_size(fork), at).await;
    let Some(value) = value.map_err(|error| read_failed(error, start))? else { return Ok(None) };
    fork_blocks(&value).map(Some).ok_or_else(|| {
        let reason = format!("the size of {fork} is not a number");
        SessionEnd::Stopped(IngestError::Stored { at: start, reason })
    })
}

/// A stored byte that is damaged stops ingest; a store that cannot be reached makes it wait.
fn read_failed(error: Error, at: Lsn) -> SessionEnd {
    match error {
        Error::Corrupt { .. } | Error::Missing { .. } | Error::Redo { .. } => {
            SessionEnd::Stopped(IngestError::Stored { at, reason: error.to_string() })
        }
        other => lost(other),
    }
}

fn lost(reason: impl ToString) -> SessionEnd {
    SessionEnd::Lost(reason.to_string())
}

/// Connects and says what for.
pub(super) async fn connect(
    safekeeper: SocketAddr,
    bearer: &Bearer,
    timeline: &Timeline,
    purpose: Purpose,
) -> Result<Connection, String> {
    let connecting = timeout(CONNECT_TIMEOUT, bearer.trust().connect(safekeeper)).await;
    let mut stream = connecting
        .map_err(|_| "it does not accept connections".to_owned())?
        .map_err(|error| error.to_string())?;
    let (token, timeline) = (bearer.token(), timeline.id());
    let hello = Hello { version: PROTOCOL_VERSION, timeline, purpose, token };
    let hello = wire::encode(&hello, &[]).map_err(|error| error.to_string())?;
    stream.write_all(&hello).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    Ok(stream)
}

/// The next message, which brings no WAL.
pub(super) async fn receive(stream: &mut Connection) -> Result<ReaderMessage, String> {
    match receive_head(stream).await? {
        (message, 0) => Ok(message),
        (_, bytes) => Err(format!("{bytes} bytes came that nobody asked for")),
    }
}

/// The next message, and how many bytes of WAL follow it.
async fn receive_head(stream: &mut Connection) -> Result<(ReaderMessage, usize), String> {
    let head = timeout(SILENCE_MAX, read_head(stream, BOUNDS)).await;
    let head = head.map_err(|_| "it is silent".to_owned())?.map_err(|error| error.to_string())?;
    head.ok_or_else(|| "it closed the connection".to_owned())
}

/// What there is of a payload, at least a byte.
async fn receive_some(stream: &mut Connection, into: &mut [u8]) -> Result<usize, String> {
    let count = timeout(SILENCE_MAX, stream.read(into)).await;
    match count.map_err(|_| "it is silent".to_owned())?.map_err(|error| error.to_string())? {
        0 => Err("it closed the connection".to_owned()),
        count => Ok(count),
    }
}
