//! The WAL of a timeline, as its safekeepers give it to any reader, laid out as segment files.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, Permissions},
    net::SocketAddr,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use protocol::{
    TenantTimeline, TimelineOrigin,
    quorum::{Hello, PROTOCOL_VERSION, Purpose, ReadLimit, ReaderMessage},
    wire,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use wal_format::{Lsn, Record, Segment, Version, WalReader, rmgr::clog::Clog};

use crate::harness::{safekeeper_status, token};

/// Postgres' own number of a timeline that was never promoted.
const POSTGRES_TIMELINE: u32 = 1;

const SHUTDOWN: &str = "XLOG/CHECKPOINT_SHUTDOWN";
const PARAMETER_CHANGE: &str = "XLOG/PARAMETER_CHANGE";

/// Records after whose first appearance the states are compared: those that change something beside pages, or many pages at once.
const TURNING_POINTS: [&str; 22] = [
    PARAMETER_CHANGE,
    "XLOG/CHECKPOINT_ONLINE",
    "XLOG/SWITCH",
    "Transaction/PREPARE",
    "Transaction/COMMIT_PREPARED",
    "Transaction/ABORT_PREPARED",
    "Storage/TRUNCATE",
    "CLOG/ZEROPAGE",
    "CLOG/TRUNCATE",
    "CommitTs/ZEROPAGE",
    "CommitTs/TRUNCATE",
    "MultiXact/ZERO_OFF_PAGE",
    "MultiXact/ZERO_MEM_PAGE",
    "MultiXact/TRUNCATE_ID",
    "Database/CREATE_FILE_COPY",
    "Database/CREATE_WAL_LOG",
    "Database/DROP",
    "Tablespace/CREATE",
    "Tablespace/DROP",
    "RelMap/UPDATE",
    "ReplicationOrigin/SET",
    "ReplicationOrigin/DROP",
];

/// A record after which the state is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Its first byte.
    pub start: Lsn,
    /// Its end, which is the state's LSN.
    pub end: Lsn,
    /// No record follows.
    pub is_last: bool,
    /// It is a shutdown checkpoint.
    pub is_shutdown: bool,
    /// The end of the last record before it, or itself, that changed the settings in `pg_control`; 0 for none.
    pub settings_since: Lsn,
}

/// What a truncation of `pg_xact` says.
#[derive(Clone, Copy, Debug)]
pub struct ClogTruncation {
    /// The record's end.
    pub end: Lsn,
    /// The oldest transaction in use, and its database.
    pub oldest: (u32, u32),
}

/// All complete records of a timeline.
pub struct Wal {
    /// Start, end, and the number of its kind.
    records: Vec<(Lsn, Lsn, u16)>,
    kinds: Vec<String>,
    /// In their order.
    pub clog_truncations: Vec<ClogTruncation>,
}

impl Wal {
    /// Reads all of it from the first of the safekeepers that has it, and writes it to `archive` over what `base` has of the first
    /// segment.
    pub async fn fetch(
        safekeepers: &[SocketAddr],
        timeline: TenantTimeline,
        origin: &TimelineOrigin,
        base: &Path,
        archive: &Path,
    ) -> Result<Wal> {
        let mut until = Vec::new();
        for safekeeper in safekeepers {
            let status = safekeeper_status(*safekeeper, timeline, token()).await?;
            until.push((status.commit_lsn, *safekeeper));
        }
        let (until, safekeeper) = until.into_iter().max().context("no safekeeper")?;
        let version = Version::from_major(origin.major).context("a served major")?;
        let reader = WalReader::new(version, origin.segment_bytes, origin.point.lsn, None);
        let mut sink = Sink { segment_bytes: origin.segment_bytes, archive, base, open: None };
        let mut wal = Wal { records: Vec::new(), kinds: Vec::new(), clog_truncations: Vec::new() };
        let mut index = Index { version, reader, numbers: HashMap::new() };
        let mut stream = open(safekeeper, timeline, origin.point.lsn).await?;
        let mut at = origin.point.lsn;
        while at < until {
            let Some((begin, bytes)) = next(&mut stream).await? else { continue };
            ensure!(begin == at, "WAL at {begin} where {at} was next");
            sink.write(at, &bytes)?;
            index.feed(at, &bytes, &mut wal)?;
            at += bytes.len() as u64;
        }
        let last = wal.records.last().map(|(_, end, _)| *end);
        ensure!(last == Some(until), "the WAL until {until} does not end with a record");
        Ok(wal)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The records at whose ends the states are compared: the first of each kind that is a turning point, each shutdown checkpoint and
    /// the record before it, the last of all, and `spread` evenly between.
    pub fn stops(&self, spread: usize) -> Vec<Stop> {
        let mut chosen = BTreeSet::from([self.records.len() - 1]);
        for turning in TURNING_POINTS {
            chosen.extend(self.records.iter().position(|record| self.kind(record) == turning));
        }
        for (at, record) in self.records.iter().enumerate() {
            if self.kind(record) == SHUTDOWN {
                chosen.extend([at.saturating_sub(1), at]);
            }
        }
        let step = (self.records.len() / (spread + 1)).max(1);
        chosen.extend((step..self.records.len()).step_by(step));
        chosen.into_iter().map(|at| self.stop(at)).collect()
    }

    fn stop(&self, at: usize) -> Stop {
        let record = &self.records[at];
        let before = self.records[..=at].iter().rev();
        let changed = before.copied().find(|record| self.kind(record) == PARAMETER_CHANGE);
        Stop {
            start: record.0,
            end: record.1,
            is_last: at + 1 == self.records.len(),
            is_shutdown: self.kind(record) == SHUTDOWN,
            settings_since: changed.map_or(Lsn(0), |(_, end, _)| end),
        }
    }

    /// How many records of each turning point's kind there are.
    pub fn turning_points(&self) -> Vec<(&'static str, usize)> {
        let count =
            |name: &&str| self.records.iter().filter(|record| self.kind(record) == *name).count();
        TURNING_POINTS.into_iter().map(|name| (name, count(&name))).collect()
    }

    /// The name of the last record before this LSN.
    pub fn name_before(&self, end: Lsn) -> &str {
        let at = self.records.partition_point(|record| record.1 <= end);
        let record = at.checked_sub(1).and_then(|at| self.records.get(at));
        record.map_or("the base's last record", |record| self.kind(record))
    }

    fn kind(&self, record: &(Lsn, Lsn, u16)) -> &str {
        &self.kinds[usize::from(record.2)]
    }
}

/// Cuts WAL into records.
struct Index {
    version: Version,
    reader: WalReader,
    numbers: HashMap<String, u16>,
}

impl Index {
    fn feed(&mut self, at: Lsn, bytes: &[u8], wal: &mut Wal) -> Result<()> {
        self.reader.feed(at, bytes)?;
        while let Some(raw) = self.reader.next_record()? {
            let record = raw.decode(self.version)?;
            let name = record.name();
            if name == "CLOG/TRUNCATE" {
                wal.clog_truncations.push(clog_truncation(&record, raw.end)?);
            }
            let number = match self.numbers.get(&name) {
                Some(number) => *number,
                None => {
                    let number = u16::try_from(wal.kinds.len())?;
                    wal.kinds.push(name.clone());
                    self.numbers.insert(name, number);
                    number
                }
            };
            wal.records.push((raw.start, raw.end, number));
        }
        Ok(())
    }
}

fn clog_truncation(record: &Record, end: Lsn) -> Result<ClogTruncation> {
    match Clog::parse(record.info, record.main) {
        Some(Clog::Truncate { oldest_xid, database, .. }) => {
            Ok(ClogTruncation { end, oldest: (oldest_xid, database) })
        }
        other => bail!("{other:?} is no truncation"),
    }
}

/// Segment files, written from the first byte on.
struct Sink<'a> {
    segment_bytes: u32,
    archive: &'a Path,
    base: &'a Path,
    open: Option<(Segment, File)>,
}

impl Sink<'_> {
    fn write(&mut self, mut at: Lsn, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let segment = Segment::containing(POSTGRES_TIMELINE, at, self.segment_bytes);
            if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
                self.open = Some((segment, self.create(segment)?));
            }
            let (_, file) = self.open.as_ref().context("a segment that is open")?;
            let room = segment.end(self.segment_bytes).since(at) as usize;
            let (here, later) = bytes.split_at(room.min(bytes.len()));
            file.write_all_at(here, at.segment_offset(u64::from(self.segment_bytes)))?;
            at += here.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// A new segment; the first one begins as the base has it.
    fn create(&self, segment: Segment) -> Result<File> {
        let name = segment.file_name(self.segment_bytes);
        let (path, of_base): (PathBuf, _) =
            (self.archive.join(&name), self.base.join("pg_wal").join(&name));
        if self.open.is_none() && of_base.exists() {
            fs::copy(of_base, &path)?;
        }
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        file.set_len(u64::from(self.segment_bytes))?;
        // The server that reads it is another user's.
        file.set_permissions(Permissions::from_mode(0o644))?;
        Ok(file)
    }
}

async fn open(safekeeper: SocketAddr, timeline: TenantTimeline, from: Lsn) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(safekeeper).await?;
    let purpose = Purpose::Read { from, limit: ReadLimit::Commit };
    let hello = Hello { version: PROTOCOL_VERSION, timeline, purpose, token: token() };
    stream.write_all(&wire::encode(&hello, b"")?).await?;
    Ok(stream)
}

/// The next piece of WAL; none for a message without WAL.
async fn next(stream: &mut TcpStream) -> Result<Option<(Lsn, Bytes)>> {
    let mut prefix = [0; wire::PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let (header, payload) = wire::decode_prefix(prefix)?;
    let mut frame = vec![0; header + payload];
    stream.read_exact(&mut frame).await?;
    match wire::decode_header(&frame[..header])? {
        ReaderMessage::Wal { begin, .. } if payload > 0 => {
            Ok(Some((begin, Bytes::from(frame).slice(header..))))
        }
        ReaderMessage::Wal { .. } => Ok(None),
        other => bail!("a safekeeper answered {other:?}"),
    }
}
