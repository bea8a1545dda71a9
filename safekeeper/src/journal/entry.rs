//! An entry of the journal, as `docs/formats/journal.md` lays it out.

use bytes::{Buf, BufMut, Bytes};
use protocol::{Identity, NodeId, TenantId, TenantTimeline, TimelineId};
use wal_format::Lsn;

use super::state::TimelineState;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 72;
/// Bytes of a WAL entry before the WAL itself.
pub const WAL_HEADER_BYTES: usize = HEADER_BYTES + 24;
/// The longest payload: a state with a long history, or the largest append.
pub const PAYLOAD_BYTES_MAX: usize = 32 << 20;
/// The version of the format.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"OJE1");

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A segment begins.
    Segment {
        /// Whose journal it is.
        node: NodeId,
        /// Its disk.
        identity: Identity,
        /// The oldest segment that is needed.
        oldest: u64,
    },
    /// Nothing new; what came before is on disk.
    Mark {
        /// The oldest segment that is needed.
        oldest: u64,
    },
    /// All that must survive of a timeline, but its WAL.
    State(TenantTimeline, Box<TimelineState>),
    /// A timeline was deleted: nothing that earlier entries said of it is needed.
    Forget(TenantTimeline),
    /// WAL of a timeline.
    Wal(TenantTimeline, WalEntry),
}

/// WAL of a timeline, and where its log stands with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalEntry {
    /// The position of the first byte.
    pub begin: Lsn,
    /// The end of the last complete record.
    pub flush_lsn: Lsn,
    /// How far a quorum has flushed.
    pub commit_lsn: Lsn,
    /// The bytes.
    pub wal: Bytes,
}

/// Where an entry stands in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// The entry's number.
    pub sequence: u64,
    /// Entries below this number were on disk when it was written.
    pub synced: u64,
}

/// Why bytes are not an entry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EntryError {
    /// Not an entry, or not a whole one.
    #[error("no whole entry with a right checksum")]
    Absent,
    /// A right checksum over something that makes no sense.
    #[error("{0}")]
    Senseless(String),
}

/// The length that an entry takes, with the gap behind it.
pub fn padded(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(8)
}

impl Entry {
    /// The parts of the entry that go to the file one after the other: head, WAL, and the zeros of the gap are
    /// the writer's. The WAL is not copied.
    pub fn encode(&self, place: Place) -> (Vec<u8>, Bytes) {
        let mut head = Vec::with_capacity(WAL_HEADER_BYTES);
        let (kind, timeline) = match self {
            Entry::Segment { .. } => (1, None),
            Entry::Mark { .. } => (2, None),
            Entry::State(timeline, _) => (3, Some(timeline)),
            Entry::Wal(timeline, _) => (4, Some(timeline)),
            Entry::Forget(timeline) => (5, Some(timeline)),
        };
        head.put_u32_le(MAGIC);
        head.put_u64_le(0);
        head.put_u8(kind);
        head.put_bytes(0, 3);
        head.put_u64_le(place.segment);
        head.put_u64_le(place.sequence);
        head.put_u64_le(place.synced);
        head.put_u128(timeline.map_or(0, |id| id.tenant.bits()));
        head.put_u128(timeline.map_or(0, |id| id.timeline.bits()));
        let wal = self.encode_payload(&mut head);
        let payload_bytes = head.len() - HEADER_BYTES + wal.len();
        head[8..12].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[8..]);
        crc.update(&wal);
        head[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
        (head, wal)
    }

    fn encode_payload(&self, head: &mut Vec<u8>) -> Bytes {
        match self {
            Entry::Segment { node, identity, oldest } => {
                head.put_u32_le(FORMAT_VERSION);
                head.put_u32_le(node.0);
                head.put_u128(identity.bits());
                head.put_u64_le(*oldest);
            }
            Entry::Mark { oldest } => head.put_u64_le(*oldest),
            Entry::State(_, state) => state.encode(head),
            Entry::Forget(_) => {}
            Entry::Wal(_, entry) => {
                head.put_u64_le(entry.begin.0);
                head.put_u64_le(entry.flush_lsn.0);
                head.put_u64_le(entry.commit_lsn.0);
                return entry.wal.clone();
            }
        }
        Bytes::new()
    }

    /// The length of the payload, without encoding it.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Entry::Segment { .. } => 32,
            Entry::Mark { .. } => 8,
            Entry::State(_, state) => state.encoded_bytes(),
            Entry::Forget(_) => 0,
            Entry::Wal(_, entry) => WAL_HEADER_BYTES - HEADER_BYTES + entry.wal.len(),
        }
    }

    /// The entry at the start of `bytes`, its place, and the length that it takes.
    pub fn decode(bytes: &Bytes) -> Result<(Entry, Place, usize), EntryError> {
        let (place, end) = check(bytes)?;
        let senseless = |what: &str| EntryError::Senseless(what.to_owned());
        let timeline = TenantTimeline {
            tenant: TenantId::from_bits((&bytes[40..56]).get_u128()),
            timeline: TimelineId::from_bits((&bytes[56..72]).get_u128()),
        };
        let mut payload = bytes.slice(HEADER_BYTES..end);
        let short = || senseless("a payload is too short");
        let entry = match bytes[12] {
            1 => {
                let version = payload.try_get_u32_le().map_err(|_| short())?;
                if version != FORMAT_VERSION {
                    return Err(EntryError::Senseless(format!(
                        "format version {FORMAT_VERSION} was expected, {version} was found"
                    )));
                }
                Entry::Segment {
                    node: NodeId(payload.try_get_u32_le().map_err(|_| short())?),
                    identity: Identity::from_bits(payload.try_get_u128().map_err(|_| short())?),
                    oldest: payload.try_get_u64_le().map_err(|_| short())?,
                }
            }
            2 => Entry::Mark { oldest: payload.try_get_u64_le().map_err(|_| short())? },
            3 => Entry::State(timeline, Box::new(TimelineState::decode(payload)?)),
            4 => {
                let begin = Lsn(payload.try_get_u64_le().map_err(|_| short())?);
                let flush_lsn = Lsn(payload.try_get_u64_le().map_err(|_| short())?);
                let commit_lsn = Lsn(payload.try_get_u64_le().map_err(|_| short())?);
                Entry::Wal(timeline, WalEntry { begin, flush_lsn, commit_lsn, wal: payload })
            }
            5 => Entry::Forget(timeline),
            kind => return Err(EntryError::Senseless(format!("kind {kind} is unknown"))),
        };
        Ok((entry, place, padded(end - HEADER_BYTES)))
    }
}

/// Whether an entry with a right checksum begins here; its place and the end of its payload.
pub fn check(bytes: &[u8]) -> Result<(Place, usize), EntryError> {
    let mut header = bytes.get(..HEADER_BYTES).ok_or(EntryError::Absent)?;
    if header.get_u32_le() != MAGIC {
        return Err(EntryError::Absent);
    }
    let checksum = header.get_u32_le();
    let payload_bytes = header.get_u32_le() as usize;
    header.advance(4);
    let place = Place {
        segment: header.get_u64_le(),
        sequence: header.get_u64_le(),
        synced: header.get_u64_le(),
    };
    let end = HEADER_BYTES + payload_bytes;
    let covered = bytes.get(8..end).filter(|_| payload_bytes <= PAYLOAD_BYTES_MAX);
    match covered {
        Some(covered) if crc32fast::hash(covered) == checksum => Ok((place, end)),
        _ => Err(EntryError::Absent),
    }
}
