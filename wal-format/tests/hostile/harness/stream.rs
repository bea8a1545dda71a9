//! The reader's input: bytes as they come, or records that are laid on WAL pages as Postgres does and then damaged.

use wal_format::{
    FirstRecord, LONG_HEADER_BYTES, Lsn, RECORD_HEADER_BYTES, RawRecord, Record, SegmentIdentity,
    Version, WAL_PAGE_BYTES, WalError, WalPageHeader, WalReader, header_bytes, record_checksum,
    rmid,
};

use super::cursor::Cursor;

const SEGMENT_BYTES: u32 = 1 << 20;
const SYSTEM_ID: u64 = 15;
/// What a segment switch may skip.
const SWITCHED_BYTES_MAX: u64 = 32 << 10;
/// Begins a segment; what is read begins near its first page's end, or its own.
const SEGMENT: Lsn = Lsn(7 << 20);
/// `XLOG_SWITCH`.
const SWITCH: u8 = 0x40;

/// Where reading starts.
const STARTS: [u64; 8] = [0, 40, 8152, 8168, 8184, 8192, 0xF_FFE0, 0xF_FFF8];

pub fn run(input: &[u8]) {
    let mut input = Cursor::new(input);
    let choice = input.u8();
    let begin = SEGMENT + STARTS[usize::from(choice & 7)];
    let piece_bytes = 1 + usize::from(input.u16());
    if choice & 8 == 0 {
        let settled = begin + u64::from(input.u16());
        foreign(begin, settled, piece_bytes, input.rest());
    } else {
        laid(begin, piece_bytes, &mut input);
    }
}

/// Bytes of which nothing is known: whatever is read of them is inside of them, and no error lies outside.
fn foreign(begin: Lsn, settled: Lsn, piece_bytes: usize, bytes: &[u8]) {
    let mut reader = reader(begin);
    for piece in bytes.chunks(piece_bytes) {
        feed(&mut reader, piece);
        while let Ok(Some(raw)) = reader.next_record_before(settled) {
            assert!(begin <= raw.start && raw.end <= reader.fed_to());
            decode(&raw);
        }
    }
    if let Err(error) = reader.next_record() {
        assert!(reader.record_end() <= position(&error) && position(&error) < reader.fed_to());
    }
    reader.truncate(settled);
    assert!(reader.fed_to() >= reader.record_end());
    let again = reader.fed_to().since(begin) as usize;
    feed(&mut reader, bytes.get(again..).unwrap_or_default());
    while let Ok(Some(raw)) = reader.next_record() {
        decode(&raw);
    }
}

/// Records of any bytes, with the checksums and page headers that they should have: all are read as they were laid, in whatever pieces
/// they come. After that some bytes are changed: what ends before the first of them is read as before.
fn laid(begin: Lsn, piece_bytes: usize, input: &mut Cursor<'_>) {
    let mut tape = Tape { wal: Vec::new(), begin, last: Lsn(begin.0 - 8) };
    let mut expected = Vec::new();
    let count = input.u8() % 32;
    while expected.len() < usize::from(count) && !input.is_empty() {
        let (rmid, info, xid) = (input.u8(), input.u8(), input.u32());
        expected.push(tape.lay(rmid, info, xid, input.counted()));
    }
    let (records, error) = read(begin, piece_bytes, &tape.wal);
    assert_eq!(error, None);
    assert_eq!(records, expected);
    records.iter().for_each(decode);

    let mut first = tape.wal.len();
    while !input.is_empty() && !tape.wal.is_empty() {
        let at = input.u32() as usize % tape.wal.len();
        let bits = input.u8() | 1;
        tape.wal[at] ^= bits;
        first = first.min(at);
    }
    let first = begin + first as u64;
    let (damaged, _) = read(begin, piece_bytes, &tape.wal);
    let sound = expected.iter().take_while(|record| record.end <= first).count();
    assert!(damaged.len() >= sound);
    assert_eq!(damaged[..sound], expected[..sound]);
    damaged.iter().for_each(decode);
}

/// All records, and the error that ends them.
fn read(begin: Lsn, piece_bytes: usize, wal: &[u8]) -> (Vec<RawRecord>, Option<WalError>) {
    let mut reader = reader(begin);
    let mut records = Vec::new();
    for piece in wal.chunks(piece_bytes) {
        feed(&mut reader, piece);
        loop {
            match reader.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
    }
    (records, None)
}

fn reader(begin: Lsn) -> WalReader {
    WalReader::new(Version::V15, SEGMENT_BYTES, begin, None).with_system_id(SYSTEM_ID)
}

fn feed(reader: &mut WalReader, bytes: &[u8]) {
    let fed = reader.feed(reader.fed_to(), bytes);
    assert_eq!(fed, Ok(()));
}

fn decode(raw: &RawRecord) {
    assert_eq!(raw.bytes[..4], (raw.bytes.len() as u32).to_le_bytes());
    match raw.decode(Version::V15) {
        Ok(Record { main, blocks, .. }) => {
            let parts = blocks.iter().map(|block| block.data.len()).sum::<usize>() + main.len();
            assert!(parts <= raw.bytes.len());
        }
        Err(error) => assert_eq!(position(&error), raw.start),
    }
}

fn position(error: &WalError) -> Lsn {
    match error {
        WalError::Damaged { at, .. } => *at,
        other => panic!("{other} does not say where"),
    }
}

/// WAL as Postgres writes it.
struct Tape {
    wal: Vec<u8>,
    begin: Lsn,
    /// The start of the last record.
    last: Lsn,
}

impl Tape {
    /// Writes a record with this body (xlog.c: `CopyXLogRecordToWAL`).
    fn lay(&mut self, rmid: u8, info: u8, xid: u32, body: &[u8]) -> RawRecord {
        // Between the built-in and the extensions' resource managers there is none.
        let rmid = if rmid < rmid::CUSTOM_MIN { rmid % (rmid::BUILTIN_MAX + 1) } else { rmid };
        // An empty segment takes long to read; a switch is as good shortly before its end.
        let left = u64::from(SEGMENT_BYTES) - self.end().segment_offset(u64::from(SEGMENT_BYTES));
        let info = if left > SWITCHED_BYTES_MAX { info & !SWITCH } else { info };
        let mut record = vec![0; RECORD_HEADER_BYTES];
        record.extend(body);
        let total_bytes = record.len() as u32;
        record[..4].copy_from_slice(&total_bytes.to_le_bytes());
        record[4..8].copy_from_slice(&xid.to_le_bytes());
        record[8..16].copy_from_slice(&self.last.0.to_le_bytes());
        record[16..18].copy_from_slice(&[info, rmid]);
        let checksum = record_checksum(&record);
        record[20..24].copy_from_slice(&checksum.to_le_bytes());

        self.begin_page(None);
        let start = self.end();
        let mut rest = &record[..];
        while !rest.is_empty() {
            self.begin_page((rest.len() < record.len()).then_some(rest.len() as u32));
            let left = WAL_PAGE_BYTES - self.end().page_offset();
            let (here, after) = rest.split_at(rest.len().min(left as usize));
            self.wal.extend(here);
            rest = after;
        }
        self.last = start;
        let is_switch = rmid == rmid::XLOG && info & 0xF0 == SWITCH;
        let align = if is_switch { u64::from(SEGMENT_BYTES) } else { 8 };
        let end = Lsn(self.end().0.next_multiple_of(align));
        self.wal.resize(end.since(self.begin) as usize, 0);
        RawRecord { start, end, bytes: record.into() }
    }

    fn end(&self) -> Lsn {
        self.begin + self.wal.len() as u64
    }

    /// Where a page begins here, writes its header; `remaining` bytes of a record go on there.
    fn begin_page(&mut self, remaining: Option<u32>) {
        let page = self.end();
        if page.page_offset() != 0 {
            return;
        }
        let is_long = header_bytes(page, SEGMENT_BYTES) == LONG_HEADER_BYTES;
        let identity = SegmentIdentity { system_id: SYSTEM_ID, segment_bytes: SEGMENT_BYTES };
        let header = WalPageHeader {
            timeline_id: 1,
            address: page,
            first: remaining.map_or(FirstRecord::Starts, FirstRecord::Continues),
            segment: is_long.then_some(identity),
        };
        self.wal.extend(header.encode(Version::V15));
    }
}
