//! The reader on WAL that is made here, whole and damaged.

use super::*;
use crate::wal_layout::{WalLayout, encode_record};

const SEGMENT: u32 = 1 << 20;
const LAYOUT: WalLayout =
    WalLayout { version: Version::V15, timeline_id: 1, system_id: 7, segment_bytes: SEGMENT };

/// WAL as a Postgres would write it, from `begin`.
struct Stream {
    begin: Lsn,
    wal: Vec<u8>,
    records: Vec<RawRecord>,
}

impl Stream {
    fn new(begin: Lsn) -> Stream {
        Stream { begin, wal: Vec::new(), records: Vec::new() }
    }

    fn end(&self) -> Lsn {
        self.begin + self.wal.len() as u64
    }

    fn last(&self) -> Lsn {
        self.records.last().map_or(Lsn(0x1000), |record| record.start)
    }

    fn push(&mut self, info: u8, rmid: u8, main: &[u8]) {
        let mut bytes = encode_record(1, self.last(), info, rmid, &main[..main.len().min(255)]);
        if main.len() > 255 {
            // A long record: the rest of its data is opaque to the reader.
            bytes.extend_from_slice(&main[255..]);
            let total_bytes = bytes.len() as u32;
            bytes[..4].copy_from_slice(&total_bytes.to_le_bytes());
            let checksum = record_checksum(&bytes);
            bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
        }
        let start = LAYOUT.record_start(self.end());
        self.wal.extend(LAYOUT.lay_out(self.end(), &bytes));
        if rmid == rmid::XLOG && info == kind::SWITCH {
            let rest = self.end().0.next_multiple_of(u64::from(SEGMENT)) - self.end().0;
            self.wal.resize(self.wal.len() + rest as usize, 0);
        }
        self.records.push(RawRecord { start, end: self.end(), bytes: bytes.into() });
    }

    fn reader(&self) -> WalReader {
        WalReader::new(Version::V15, SEGMENT, self.begin, Some(Lsn(0x1000))).with_system_id(7)
    }

    /// Flips a bit of the byte at `lsn`.
    fn flip(&mut self, lsn: Lsn) {
        self.wal[lsn.since(self.begin) as usize] ^= 0x10;
    }

    fn set(&mut self, lsn: Lsn, byte: u8) {
        self.wal[lsn.since(self.begin) as usize] = byte;
    }
}

/// Small and large records over several pages and a segment's end, with a switch.
fn mixed() -> Stream {
    let mut stream = Stream::new(Lsn(0x10_0000 * 3 - 0x6000));
    for n in 0..400_usize {
        let main = vec![n as u8; (n * 37) % 250];
        stream.push(0x10, rmid::HEAP, &main);
        if n % 100 == 50 {
            stream.push(0x20, rmid::HEAP, &vec![n as u8; 20_000]);
        }
    }
    stream.push(kind::SWITCH, rmid::XLOG, &[]);
    stream.push(0, rmid::HEAP, b"in the next segment");
    stream
}

fn read_all(reader: &mut WalReader) -> Vec<RawRecord> {
    std::iter::from_fn(|| reader.next_record().unwrap()).collect()
}

#[test]
fn records_are_found_however_the_bytes_are_cut() {
    let stream = mixed();
    for piece in [1, 7, 8, 100, 4096, 8192, 100_000, usize::MAX] {
        let mut reader = stream.reader();
        let mut found = Vec::new();
        for bytes in stream.wal.chunks(piece.min(stream.wal.len())) {
            reader.feed(reader.fed_to(), bytes).unwrap();
            found.extend(read_all(&mut reader));
            assert!(reader.record_end() <= reader.fed_to());
        }
        assert_eq!(found, stream.records, "in pieces of {piece}");
        assert_eq!(reader.record_end(), stream.end());
        assert_eq!(reader.last_record(), Some(stream.last()));
    }
}

#[test]
fn lent_records_are_the_same_records_in_any_number() {
    let stream = mixed();
    for (piece, most) in [(1 << 20, 1), (1 << 20, 3), (8192, 1000), (777, 2), (13, 5)] {
        let mut reader = stream.reader();
        let mut records = Vec::new();
        for (number, piece) in stream.wal.chunks(piece).enumerate() {
            // By turns copied, and put where there is more room than it takes.
            if number % 2 == 0 {
                reader.feed(reader.fed_to(), piece).expect("it follows");
            } else {
                reader.room(piece.len() + number % 7)[..piece.len()].copy_from_slice(piece);
                reader.feed_room(piece.len());
            }
            loop {
                let lent = reader.next_records(most).expect("it is sound");
                let before = records.len();
                records.extend(lent.map(|LentRecord { start, end, bytes }| RawRecord {
                    start,
                    end,
                    bytes: Bytes::copy_from_slice(bytes),
                }));
                assert!(records.len() - before <= most);
                if records.len() == before {
                    break;
                }
            }
        }
        assert_eq!(records, stream.records, "{most} of pieces of {piece} bytes");
    }
}

#[test]
fn records_before_damage_are_lent_before_it_is_told() {
    let mut stream = mixed();
    let damaged = stream.records.len() - 2;
    let start = stream.records[damaged].start;
    stream.flip(start + 20);
    let mut reader = stream.reader();
    reader.feed(reader.fed_to(), &stream.wal).expect("it follows");
    assert_eq!(reader.next_records(usize::MAX).expect("there are some").len(), damaged);
    for _ in 0..2 {
        let error = reader.next_records(usize::MAX).expect_err("the next one is damaged");
        assert!(matches!(error, WalError::Damaged { at, .. } if at == start), "{error}");
    }
}

#[test]
fn a_reader_may_start_at_any_record_end() {
    let stream = mixed();
    for (last, next) in stream.records.iter().zip(&stream.records[1..]) {
        let mut reader = WalReader::new(Version::V15, SEGMENT, last.end, Some(last.start));
        reader.feed(last.end, &stream.wal[last.end.since(stream.begin) as usize..]).unwrap();
        assert_eq!(reader.next_record().unwrap().as_ref(), Some(next));
    }
}

#[test]
fn a_switch_counts_when_its_segment_is_there_to_the_end() {
    let mut stream = Stream::new(Lsn(0x10_0000));
    stream.push(kind::SWITCH, rmid::XLOG, &[]);
    let mut reader = stream.reader();
    let (last, but_last) = stream.wal.split_last().unwrap();
    reader.feed(stream.begin, but_last).unwrap();
    assert_eq!(reader.next_record(), Ok(None));
    assert_eq!(reader.record_end(), stream.begin);
    reader.feed(reader.fed_to(), &[*last]).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().end, Lsn(0x20_0000));
}

#[test]
fn bytes_that_do_not_follow_are_refused() {
    let stream = mixed();
    let mut reader = stream.reader();
    let begin = stream.begin + 8;
    assert_eq!(
        reader.feed(begin, &[0]),
        Err(WalError::OutOfOrder { expected: stream.begin, begin })
    );
}

#[test]
fn a_tail_that_is_written_again_is_no_damage() {
    // A page that was written while its second record was not copied yet, and its third one was.
    let mut stream = Stream::new(Lsn(0x10_4000));
    for text in ["first", "second", "third"] {
        stream.push(0, rmid::HEAP, text.as_bytes());
    }
    let second = &stream.records[1];
    let mut early = stream.wal.clone();
    let range = second.start.since(stream.begin) as usize..second.end.since(stream.begin) as usize;
    early[range].fill(0);

    let mut reader = stream.reader();
    reader.feed(stream.begin, &early).unwrap();
    let settled = stream.begin;
    assert_eq!(reader.next_record_before(settled).unwrap().as_ref(), Some(&stream.records[0]));
    assert_eq!(reader.next_record_before(settled), Ok(None));
    let first_end = reader.record_end();
    assert_eq!(
        reader.next_record(),
        Err(WalError::Damaged { at: first_end, damage: Damage::RecordLength { found: 0 } })
    );

    reader.truncate(stream.begin);
    assert_eq!(reader.fed_to(), first_end, "what was read stays read");
    reader.feed(first_end, &stream.wal[first_end.since(stream.begin) as usize..]).unwrap();
    assert_eq!(read_all(&mut reader), stream.records[1..]);
}

#[test]
fn a_long_record_goes_on_after_its_tail_was_written_again() {
    let mut stream = Stream::new(Lsn(0x10_4000));
    stream.push(0, rmid::HEAP, &vec![5; 50_000]);
    let mut reader = stream.reader();
    let mut shown = 0;
    while shown < stream.wal.len() {
        // Each write repeats the last page of the one before, whose end was zero.
        let from = shown / 8192 * 8192;
        let to = (shown + 5000).min(stream.wal.len());
        let mut write = stream.wal[from..to].to_vec();
        write.resize(write.len().next_multiple_of(8192), 0);
        reader.truncate(stream.begin + from as u64);
        let skip = reader.fed_to().since(stream.begin) as usize - from;
        reader.feed(reader.fed_to(), &write[skip..]).unwrap();
        let settled = stream.begin + to as u64;
        let found = reader.next_record_before(settled.page_start()).unwrap();
        assert_eq!(found.is_some(), to == stream.wal.len());
        shown = to;
    }
    assert_eq!(reader.last_record(), Some(stream.last()));
}

#[test]
fn an_overwritten_unfinished_record_is_skipped() {
    let mut stream = Stream::new(Lsn(0x10_4000));
    stream.push(0, rmid::HEAP, b"complete");
    let unfinished = stream.end();
    let lost = LAYOUT.lay_out(unfinished, &[9; 9000]);
    let page = unfinished.page_start() + WAL_PAGE_BYTES;
    stream.wal.extend_from_slice(&lost[..page.since(unfinished) as usize]);
    let head = 9000_u32.to_le_bytes();
    let at = unfinished.since(stream.begin) as usize;
    stream.wal[at..at + 4].copy_from_slice(&head);
    let prev = stream.last().0.to_le_bytes();
    stream.wal[at + 8..at + 16].copy_from_slice(&prev);
    stream.wal[at + 17] = rmid::HEAP;

    let mut main = unfinished.0.to_le_bytes().to_vec();
    main.extend_from_slice(&[0; 8]);
    let mut wrong = Stream { wal: stream.wal.clone(), records: stream.records.clone(), ..stream };
    let overwrite = FirstRecord::Overwrites;
    for stream in [&mut stream, &mut wrong] {
        let page_at = stream.wal.len();
        stream.push(kind::OVERWRITE_CONTRECORD, rmid::XLOG, &main);
        stream.wal[page_at..page_at + 24].copy_from_slice(&LAYOUT.header(page, overwrite));
        main[0] ^= 8;
    }

    let mut reader = stream.reader();
    reader.feed(stream.begin, &stream.wal).unwrap();
    assert_eq!(read_all(&mut reader), stream.records);

    let mut reader = wrong.reader();
    reader.feed(wrong.begin, &wrong.wal).unwrap();
    reader.next_record().unwrap().unwrap();
    assert_eq!(
        reader.next_record(),
        Err(WalError::Damaged { at: page + 24, damage: Damage::Overwritten })
    );
}

/// Reads `stream` after `change`; the error must be this one, and come again.
fn check_damage(change: impl Fn(&mut Stream), at: Lsn, damage: Damage) {
    let mut stream = mixed();
    change(&mut stream);
    let mut reader = stream.reader();
    reader.feed(stream.begin, &stream.wal).unwrap();
    let error = loop {
        match reader.next_record() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the damage was not found"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, WalError::Damaged { at, damage });
    assert_eq!(reader.next_record(), Err(error.clone()));
    assert!(error.to_string().contains(&at.to_string()), "{error}");
}

#[test]
fn damage_is_refused_with_its_position_and_reason() {
    let stream = mixed();
    let page = stream.begin + WAL_PAGE_BYTES;
    let segment = Lsn(0x30_0000);
    // A record that lies in one page, and the large one, which continues on pages.
    let short = &stream.records[20];
    let large = &stream.records[51];
    let start = short.start;
    let prev = stream.records[19].start;
    let length = short.bytes.len() as u32;
    let checksum = |record: &RawRecord| record_checksum(&record.bytes);
    let page_of_large = large.start.page_start() + WAL_PAGE_BYTES;
    let room = page_of_large.since(large.start) as u32;
    let rest = large.bytes.len() as u32 - room;

    let magic = Damage::PageMagic { expected: 0xD110, found: 0xD100 };
    check_damage(|s| s.flip(page), page, magic);
    check_damage(|s| s.flip(page + 3), page, Damage::PageFlags { found: 0x1005 });
    check_damage(|s| s.flip(page + 9), page, Damage::PageAddress { found: Lsn(page.0 ^ 0x1000) });
    let system = Damage::SystemId { expected: 7, found: 7 ^ 16 };
    check_damage(|s| s.flip(segment + 24), segment, system);
    let geometry = Damage::Geometry { segment: SEGMENT ^ 0x1000, page: 8192 };
    check_damage(|s| s.flip(segment + 33), segment, geometry);
    let length = Damage::RecordLength { found: length | 0x6000_0000 };
    check_damage(|s| s.set(start + 3, 0x60), start, length);
    let link = Damage::PreviousRecord { expected: prev, found: Lsn(prev.0 ^ 0x1000) };
    check_damage(|s| s.flip(start + 9), start, link);
    check_damage(|s| s.flip(start + 17), start, Damage::Malformed { part: "xl_rmid" });
    let found = checksum(short) ^ 0x10;
    let sum = Damage::RecordChecksum { expected: checksum(short), found };
    check_damage(|s| s.flip(start + 20), start, sum);
    let continued = Damage::Continuation { expected: rest, found: rest ^ 0x1000 };
    check_damage(|s| s.flip(page_of_large + 17), page_of_large, continued);
    let begins = Damage::Continuation { expected: rest, found: 0 };
    check_damage(|s| s.set(page_of_large + 2, 0), page_of_large, begins);
}

#[test]
fn an_absurd_length_is_found_on_the_next_page() {
    let mut stream = mixed();
    let start = stream.records[20].start;
    stream.set(start + 2, 0x10);
    let page = start.page_start() + WAL_PAGE_BYTES;
    let mut reader = stream.reader();
    let near = (page.since(stream.begin) + 24) as usize;
    reader.feed(stream.begin, &stream.wal[..near]).unwrap();
    let error = std::iter::from_fn(|| reader.next_record().transpose()).find_map(Result::err);
    let expected = (stream.records[20].bytes.len() as u32 | 0x10_0000) - page.since(start) as u32;
    let WalError::Damaged { at, damage: Damage::Continuation { expected: found, .. } } =
        error.unwrap()
    else {
        panic!("another error");
    };
    assert_eq!((at, found), (page, expected));
}
