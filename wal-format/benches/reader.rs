//! How many bytes of WAL a second does the reader turn into checked records, and into decoded ones?
//!
//! The WAL is the golden piece up to its segment switch, fed as a stream is, in pieces of 64 KiB.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wal_format::{Lsn, Version, WalReader};

const BEGIN: Lsn = Lsn(0x88_5F30);
const BEFORE: Lsn = Lsn(0x88_5EB8);
const BUSY_BYTES: usize = 0x2_A168;
const PIECE_BYTES: usize = 64 << 10;

fn read(wal: &[u8], decode: bool) {
    let mut reader = WalReader::new(Version::V15, 1 << 20, BEGIN, Some(BEFORE));
    for piece in wal.chunks(PIECE_BYTES) {
        reader.feed(reader.fed_to(), piece).expect("the pieces follow each other");
        while let Some(raw) = reader.next_record().expect("the golden WAL is whole") {
            if decode {
                black_box(raw.decode(Version::V15).expect("the golden WAL is whole"));
            } else {
                black_box(raw);
            }
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let packed = include_bytes!("../tests/golden/postgres-15/wal.zst");
    let mut wal = zstd::decode_all(&packed[..]).expect("the golden WAL unpacks");
    wal.truncate(BUSY_BYTES);
    let mut group = criterion.benchmark_group("wal_reader");
    group.throughput(Throughput::Bytes(wal.len() as u64));
    group.bench_function("read", |bencher| bencher.iter(|| read(&wal, false)));
    group.bench_function("read_and_decode", |bencher| bencher.iter(|| read(&wal, true)));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
