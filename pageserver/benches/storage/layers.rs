//! The parts of a read and of a flush, each as far by itself as a timeline lets them be measured.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use pageserver::{
    change::Value,
    key::Key,
    timeline::{RECORDS_PER_IMAGE, Timeline},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use wal_format::{Fork, Lsn, RelationFork};

use crate::{Bench, TABLE_PAGES, apply, fork, open, rows};

/// Bytes of records of a layer that is written.
const LAYER_BYTES: u64 = 16 << 20;
/// A cache that has a layer's table of contents, and few of its blocks.
const SMALL_CACHE_BYTES: u64 = 16 << 20;
/// Layers of a timeline whose layers are looked up.
const LAYERS: u64 = 200;

fn table() -> RelationFork {
    fork(900_000, Fork::Main)
}

fn record(random: &mut StdRng, bytes: usize) -> Value {
    Value::Record { will_init: false, bytes: rows(random, bytes) }
}

fn page(bench: &Bench, timeline: &Timeline, fork: RelationFork, block: u32, at: Lsn) -> Bytes {
    bench.runtime.block_on(timeline.pages(fork, block, 1, at)).expect("the store works")
}

/// From memory to a compressed object and a manifest that names it.
pub fn write(criterion: &mut Criterion) {
    let bench = Bench::new();
    let timeline = bench.tenant("write");
    let mut random = StdRng::seed_from_u64(4);
    let mut group = criterion.benchmark_group("layer write");
    group.throughput(Throughput::Bytes(LAYER_BYTES)).sample_size(10);
    for (name, bytes) in [("records of 120 bytes", 120), ("records of 8 KB", 7_800)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    for _ in 0..LAYER_BYTES / bytes {
                        let block = random.random_range(0..200_000);
                        let key = Key::page(fork(930_000, Fork::Main).block(block));
                        let put = (key, record(&mut random, bytes as usize));
                        apply(&timeline, vec![put], bytes.next_multiple_of(8));
                    }
                },
                |()| bench.runtime.block_on(timeline.flush()).expect("the store works"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// One page of an image layer, whose block is in memory, or has to be read and decompressed.
pub fn blocks(criterion: &mut Criterion) {
    let bench = Bench::new();
    let timeline = bench.tenant("blocks");
    let small = open(&bench.runtime, &bench.folder, SMALL_CACHE_BYTES);
    let small = bench.runtime.block_on(small.timeline(timeline.id())).expect("it loads");
    let at = timeline.last_record_lsn();
    for block in 0..TABLE_PAGES {
        page(&bench, &timeline, table(), block, at);
    }
    let mut random = StdRng::seed_from_u64(5);
    let mut group = criterion.benchmark_group("block read");
    for (name, timeline) in [("cached", &timeline), ("from the store", &small)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let block = random.random_range(0..TABLE_PAGES);
                black_box(page(&bench, timeline, table(), block, at))
            });
        });
    }
    group.finish();
}

/// A page below many layers that know nothing of it: of other keys, and of keys around its own.
pub fn lookup(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut random = StdRng::seed_from_u64(6);
    let mut group = criterion.benchmark_group("layer map lookup");
    let layers = [
        ("one layer", 0, [940_000, 940_001]),
        ("200 layers of other keys", LAYERS, [940_000, 940_001]),
        ("200 layers of keys on both sides", LAYERS, [899_000, 940_001]),
    ];
    for (number, (name, count, relations)) in layers.into_iter().enumerate() {
        let timeline = bench.tenant(&format!("lookup-{number}"));
        for _ in 0..count {
            for relation in relations {
                let key = Key::page(fork(relation, Fork::Main).block(0));
                apply(&timeline, vec![(key, record(&mut random, 120))], 120);
            }
            bench.runtime.block_on(timeline.flush()).expect("the store works");
        }
        let at = timeline.last_record_lsn();
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(page(&bench, &timeline, table(), 7, at)));
        });
    }
    group.finish();
}

/// A page from as many records as there may be without an image, in one block; redo here is only
/// a copy of the record.
pub fn reconstruct(criterion: &mut Criterion) {
    let bench = Bench::new();
    let timeline = bench.tenant("reconstruct");
    let mut random = StdRng::seed_from_u64(7);
    let mut group = criterion.benchmark_group("reconstruct");
    for (block, records) in [(0, 1), (1, RECORDS_PER_IMAGE / 4), (2, RECORDS_PER_IMAGE - 1)] {
        let key = Key::page(table().block(block));
        for _ in 0..records {
            apply(&timeline, vec![(key, record(&mut random, 120))], 120);
        }
        bench.runtime.block_on(timeline.flush()).expect("the store works");
        let at = timeline.last_record_lsn();
        group.bench_function(format!("{records} records"), |bencher| {
            bencher.iter(|| black_box(page(&bench, &timeline, table(), block, at)));
        });
    }
    group.finish();
}
