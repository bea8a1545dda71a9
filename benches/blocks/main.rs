//! What the size of a block, the compression level and a dictionary do to real pages:
//! `cargo bench --bench blocks`, as root. The last line is one JSON object, of the choice that
//! `pageserver::layer::format` has made; a line before it for each that was tried.
//!
//! The pages are those of a stock Postgres' files: pgbench's accounts, their index, rows of words;
//! and each in the state after a load and after updates. Blocks are made as an image layer's are.
//!
//! - `stored`: stored bytes over the pages' bytes;
//! - `read_bytes`: what a cold read of one page has to fetch;
//! - `write_mb_s`, `read_mb_s`: megabytes of pages that one processor compresses, decompresses;
//! - `page_us`: what one cold page costs of the processor.

#[path = "../../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use other parts of it")]
mod harness;

#[path = "../figures/mod.rs"]
#[allow(dead_code, reason = "the other benches use other parts of it")]
mod figures;

use std::{fs, hint::black_box, time::Instant};

use pageserver::layer::format::{BLOCK_BYTES, ZSTD_LEVEL};
use serde_json::{Value, json};

use self::figures::round;
use crate::harness::{Database, Stock, pgbench, pgbench_init};

const PAGE_BYTES: usize = 8192;
/// A row of a block: varints of how far its key and its LSN are from those before, and of a page's length.
const ROW: [u8; 5] = [1, 0, 0x80, 0x80, 0x02];
/// What a block has beside its pages and their rows: numbers, and what its keys begin with.
const HEAD_BYTES: usize = 12;
const RUN_BYTES: usize = 18;
/// Pages of each file that are looked at.
const PAGES_MAX: usize = 4_096;
const BLOCK_SIZES: [usize; 5] = [8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10];
const LEVELS: [i32; 4] = [-1, 1, 3, 6];
const DICTIONARY_BYTES: usize = 64 << 10;

/// Pages of one file, in order.
struct Pages {
    name: &'static str,
    bytes: Vec<u8>,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let files = runtime.block_on(pages())?;
    let mut chosen = json!(null);
    for level in LEVELS {
        for block_bytes in BLOCK_SIZES {
            for with_dictionary in [false, true] {
                let measured = measure(&files, level, block_bytes, with_dictionary)?;
                println!("{measured}");
                if (level, block_bytes, with_dictionary) == (ZSTD_LEVEL, BLOCK_BYTES, false) {
                    chosen = measured;
                }
            }
        }
    }
    println!("{chosen}");
    Ok(())
}

async fn pages() -> anyhow::Result<Vec<Pages>> {
    let folder = harness::folder()?;
    let options = ["--locale=C.UTF-8", "-E", "UTF8", "--auth=trust"];
    let mut stock = Stock::initdb(folder.path().join("pgdata"), &options)?;
    stock.start()?;
    Database::connect_to(stock.port, "postgres").await?.run("CREATE DATABASE app").await?;
    pgbench_init(stock.port, 3)?;
    let database = Database::connect_to(stock.port, "app").await?;
    database
        .run(
            "CREATE TABLE words (id bigserial PRIMARY KEY, name text, mail text, note text, at timestamptz);
             INSERT INTO words (name, mail, note, at)
             SELECT 'customer number ' || i, 'user' || i % 7919 || '@example.com',
                    repeat('the order of ' || md5((i % 1000)::text) || ' was sent ', 1 + i % 4),
                    '2026-01-01'::timestamptz + i * interval '7 seconds'
             FROM generate_series(1, 150000) i;
             CREATE INDEX ON words (mail)",
        )
        .await?;
    let mut files = Vec::new();
    read(&stock, &database, &mut files, ["accounts", "accounts' index", "words", "words' index"])
        .await?;
    pgbench(stock.port, &["-n", "-c", "4", "-t", "10000"])?;
    database.run("UPDATE words SET note = note || id WHERE id % 3 = 0").await?;
    let updated =
        ["accounts, updated", "their index", "words, updated", "their index after updates"];
    read(&stock, &database, &mut files, updated).await?;
    Ok(files)
}

async fn read(
    stock: &Stock,
    database: &Database,
    files: &mut Vec<Pages>,
    names: [&'static str; 4],
) -> anyhow::Result<()> {
    database.run("CHECKPOINT").await?;
    let relations = ["pgbench_accounts", "pgbench_accounts_pkey", "words", "words_mail_idx"];
    for (name, relation) in names.into_iter().zip(relations) {
        let path: String =
            database.one(&format!("SELECT pg_relation_filepath('{relation}')")).await?;
        let mut bytes = fs::read(stock.data().join(path))?;
        bytes.truncate(PAGES_MAX * PAGE_BYTES);
        files.push(Pages { name, bytes });
    }
    Ok(())
}

fn measure(
    files: &[Pages],
    level: i32,
    block_bytes: usize,
    with_dictionary: bool,
) -> anyhow::Result<Value> {
    let dictionary = if with_dictionary { dictionary(files)? } else { Vec::new() };
    let mut compressor = zstd::bulk::Compressor::with_dictionary(level, &dictionary)?;
    let mut decompressor = zstd::bulk::Decompressor::with_dictionary(&dictionary)?;
    let pages_per_block = block_bytes.div_ceil(PAGE_BYTES + ROW.len());
    let (mut raw_bytes, mut stored_bytes, mut blocks) = (0, 0, 0);
    let (mut write_s, mut read_s) = (0.0, 0.0);
    let mut by_file = serde_json::Map::new();
    for file in files {
        let (mut raw_of_file, mut stored_of_file) = (0, 0);
        for pages in file.bytes.chunks(pages_per_block * PAGE_BYTES) {
            let block = block(pages);
            let began = Instant::now();
            let stored = compressor.compress(&block)?;
            write_s += began.elapsed().as_secs_f64();
            let began = Instant::now();
            black_box(decompressor.decompress(&stored, block.len())?);
            read_s += began.elapsed().as_secs_f64();
            raw_of_file += pages.len();
            stored_of_file += stored.len();
            blocks += 1;
        }
        by_file
            .insert(file.name.to_owned(), json!(round(stored_of_file as f64 / raw_of_file as f64)));
        raw_bytes += raw_of_file;
        stored_bytes += stored_of_file;
    }
    Ok(json!({
        "level": level,
        "block_kib": block_bytes >> 10,
        "dictionary": with_dictionary,
        "stored": round(stored_bytes as f64 / raw_bytes as f64),
        "read_bytes": stored_bytes / blocks,
        "write_mb_s": round(raw_bytes as f64 / 1e6 / write_s),
        "read_mb_s": round(raw_bytes as f64 / 1e6 / read_s),
        "page_us": round(read_s / blocks as f64 * 1e6),
        "stored_by_file": by_file,
    }))
}

/// A block as an image layer has it: the values, then the one run, then the rows.
fn block(pages: &[u8]) -> Vec<u8> {
    let rows = ROW.repeat(pages.len() / PAGE_BYTES);
    [&[0; HEAD_BYTES], pages, &[0; RUN_BYTES], &rows].concat()
}

/// Trained on every seventeenth page of each file.
fn dictionary(files: &[Pages]) -> anyhow::Result<Vec<u8>> {
    let samples: Vec<&[u8]> =
        files.iter().flat_map(|file| file.bytes.chunks(PAGE_BYTES).step_by(17)).collect();
    Ok(zstd::dict::from_samples(&samples, DICTIONARY_BYTES)?)
}
