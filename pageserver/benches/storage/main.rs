//! What the storage engine costs inside one process: applying records, writing layers, reading
//! blocks, finding layers, reconstructing pages, reading ranges from each kind of layer, the scans
//! of a base backup, creating tenants and branches.
//!
//! `cargo bench -p pageserver --bench storage`

mod layers;

use std::{hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pageserver::{
    change::{Change, Value},
    key::{Key, KeyKind},
    redo::Redo,
    tenants::{Options, TemplateSource, Tenants},
    timeline::Timeline,
};
use protocol::{BranchPoint, TimelineOrigin};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::runtime::Runtime;
use wal_format::{Fork, Lsn, Page, Relation, RelationFork, Slru, Target};

/// Pages of the table that is read.
const TABLE_PAGES: u32 = 16_384;
/// Relations of the template, three forks each.
const TEMPLATE_RELATIONS: u32 = 1_000;
/// Pages of one read-ahead request.
const RANGE: u32 = 128;

/// Writes the record into the page: what a record of new rows does, without its decoding.
struct CopyRedo;

impl Redo for CopyRedo {
    fn apply(&self, record: &[u8], end: Lsn, _: Target, page: &mut Page) -> Result<(), String> {
        let bytes = page.bytes_mut();
        let length = record.len().min(bytes.len() - 64);
        bytes[64..64 + length].copy_from_slice(&record[..length]);
        page.set_lsn(end);
        Ok(())
    }
}

struct Bench {
    runtime: Runtime,
    tenants: Tenants,
    folder: tempfile::TempDir,
}

fn fork(number: u32, fork: Fork) -> RelationFork {
    Relation { tablespace: 1663, database: 5, number }.fork(fork)
}

/// Rows as a table has them: numbers that rise, padding, some text.
fn rows(random: &mut StdRng, bytes: usize) -> Bytes {
    let mut page = vec![0; bytes];
    for row in page.chunks_mut(120) {
        let length = row.len().min(48);
        random.fill(&mut row[..length / 4]);
    }
    page.into()
}

fn open(runtime: &Runtime, folder: &tempfile::TempDir, cache_bytes: u64) -> Tenants {
    let path = folder.path().to_str().expect("the path is UTF-8");
    let store = runtime.block_on(pageserver::store::open(path)).expect("it can be used");
    let redo = Arc::new(CopyRedo);
    let _entered = runtime.enter();
    Tenants::new(Options { store, redo, cache_bytes, on_load: Box::new(|_| {}) })
}

impl Bench {
    fn new() -> Bench {
        let runtime = Runtime::new().expect("a runtime starts");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let tenants = open(&runtime, &folder, 512 << 20);
        let bench = Bench { runtime, tenants, folder };
        bench.runtime.block_on(bench.import());
        bench
    }

    async fn import(&self) {
        let point = BranchPoint { lsn: Lsn(0x100_0000), last_record: Lsn(0xFF_FF00) };
        let origin = TimelineOrigin { point, system_id: 7, segment_bytes: 16 << 20, major: 15 };
        let source = TemplateSource { origin, checksums: false };
        let mut writer = self.tenants.import_template("base", source).await.expect("it is new");
        let mut random = StdRng::seed_from_u64(1);
        for relation in 0..TEMPLATE_RELATIONS {
            for kind in [Fork::Main, Fork::FreeSpaceMap, Fork::VisibilityMap] {
                let fork = fork(relation, kind);
                let size = Bytes::from_static(&[3, 0, 0, 0]);
                writer.put(Key::fork_size(fork), size).await.expect("the store works");
                for block in 0..3 {
                    let page = rows(&mut random, 8192);
                    writer.put(Key::page(fork.block(block)), page).await.expect("it works");
                }
            }
        }
        for block in 0..TABLE_PAGES {
            let key = Key::page(fork(900_000, Fork::Main).block(block));
            writer.put(key, rows(&mut random, 8192)).await.expect("the store works");
        }
        writer.put(Key::slru(Slru::Clog, 0), rows(&mut random, 8192)).await.expect("it works");
        writer.finish().await.expect("the store works");
    }

    fn tenant(&self, name: &str) -> Arc<Timeline> {
        self.runtime.block_on(async {
            let tenant = self.tenants.create_tenant(name, "base").await.expect("it is new");
            self.tenants.timeline(tenant.branches[0].timeline).await.expect("it loads")
        })
    }
}

fn apply(timeline: &Timeline, puts: Vec<(Key, Value)>, length: u64) {
    let start = timeline.last_record_lsn();
    let end = Lsn(start.0 + length);
    timeline.apply(Change { start, end, puts, ..Change::default() });
}

fn ingest(criterion: &mut Criterion) {
    let bench = Bench::new();
    let timeline = bench.tenant("ingest");
    let mut random = StdRng::seed_from_u64(2);
    let mut group = criterion.benchmark_group("apply");
    for (name, bytes, batch) in [("records of 120 bytes", 120, 10_000), ("of 8 KB", 7_800, 500)] {
        group.throughput(Throughput::Bytes(bytes * batch));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    bench.runtime.block_on(timeline.ready_for_more()).expect("nobody else writes");
                    let value = |random: &mut StdRng| Value::Record {
                        will_init: bytes > 1_000,
                        bytes: rows(random, bytes as usize),
                    };
                    (0..batch)
                        .map(|_| {
                            let block = random.random_range(0..200_000);
                            let key = Key::page(fork(910_000, Fork::Main).block(block));
                            (key, value(&mut random))
                        })
                        .collect::<Vec<_>>()
                },
                |puts| {
                    for put in puts {
                        apply(&timeline, vec![put], bytes.next_multiple_of(8));
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let bench = Bench::new();
    let timeline = bench.tenant("reads");
    let table = fork(920_000, Fork::Main);
    let mut random = StdRng::seed_from_u64(3);
    for block in 0..TABLE_PAGES {
        let record = Value::Record { will_init: true, bytes: rows(&mut random, 7_800) };
        apply(&timeline, vec![(Key::page(table.block(block)), record)], 7_800);
        if block % 1_000 == 0 {
            bench.runtime.block_on(timeline.ready_for_more()).expect("nobody else writes");
        }
    }
    bench.runtime.block_on(timeline.flush()).expect("the store works");
    let at = timeline.last_record_lsn();
    let mut group = criterion.benchmark_group("128 pages");
    group.throughput(Throughput::Bytes(u64::from(RANGE) * 8192));
    for (name, fork) in [("image layer", fork(900_000, Fork::Main)), ("delta layer", table)] {
        group.bench_function(format!("{name}, cached"), |bencher| {
            bencher.iter(|| {
                let pages = timeline.pages(fork, 1_024, RANGE, at);
                black_box(bench.runtime.block_on(pages).expect("the store works"))
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("whole table");
    group.throughput(Throughput::Bytes(u64::from(TABLE_PAGES) * 8192));
    group.sample_size(10);
    // A cache far smaller than the table: nothing of it is there when it is read again.
    let cold = open(&bench.runtime, &bench.folder, 8 << 20);
    let cold = bench.runtime.block_on(cold.timeline(timeline.id())).expect("it loads");
    for (name, fork) in [("image layers", fork(900_000, Fork::Main)), ("delta layers", table)] {
        group.bench_function(format!("{name}, cold"), |bencher| {
            bencher.iter(|| {
                for first in (0..TABLE_PAGES).step_by(RANGE as usize) {
                    let pages = cold.pages(fork, first, RANGE, at);
                    black_box(bench.runtime.block_on(pages).expect("the store works"));
                }
            });
        });
    }
    group.finish();

    let sizes = KeyKind::ForkSize.all();
    criterion.bench_function("scan of 3,000 fork sizes", |bencher| {
        bencher.iter(|| {
            let scan = timeline.scan(sizes.clone(), at);
            black_box(bench.runtime.block_on(scan).expect("the store works"))
        });
    });
}

fn creation(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("create");
    group.measurement_time(Duration::from_secs(3));
    let mut number = 0;
    group.bench_function("tenant", |bencher| {
        bencher.iter(|| {
            number += 1;
            let name = format!("tenant-{number}");
            bench.runtime.block_on(bench.tenants.create_tenant(&name, "base")).expect("it is new")
        });
    });
    let parent = bench.tenant("parent");
    let (tenant, point) = (parent.id().tenant, parent.origin().point);
    group.bench_function("branch", |bencher| {
        bencher.iter(|| {
            number += 1;
            let name = format!("branch-{number}");
            let branch = bench.tenants.create_branch(tenant, &name, "main", point);
            bench.runtime.block_on(branch).expect("it is new")
        });
    });
    group.finish();
}

criterion_group!(
    benches,
    layers::write,
    layers::blocks,
    layers::lookup,
    layers::reconstruct,
    reads,
    ingest,
    creation
);
criterion_main!(benches);
