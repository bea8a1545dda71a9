//! Makes the first inputs of the fuzz targets from real WAL: of each kind and shape of record the ones that take the fewest bytes, with
//! the pages as they were before.
//!
//! `cargo run --release --example seeds -- CORPUS [PG_WAL]…`: the golden WAL is always read; each further folder is the `pg_wal` of a
//! cluster with `wal_consistency_checking = all`, from its first record on (`wal_keep_size` keeps it there).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use wal_format::{
    BlockRef, Compression, Effect, Lsn, Page, PageKey, RawRecord, Record, Target, Version,
    WalReader, effects, redo,
};
use wal_format_fuzz::harness::{Base, Block, Case, Image, PageShape, TARGETS};

/// Inputs that are kept of a record kind.
const KEPT_OF_KIND: usize = 6;
/// A larger input is not kept where there is a smaller one of its kind.
const BYTES_MAX: usize = 3000;
/// Records that one input of the reader has.
const READER_RECORDS: usize = 12;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let corpus = arguments.next().context("the folder to write to is missing")?;
    let mut seeds = Seeds::default();
    seeds.read_golden()?;
    for folder in arguments {
        seeds.pages.clear();
        seeds.read_folder(&folder)?;
    }
    seeds.write(&corpus)
}

#[derive(Default)]
struct Seeds {
    pages: HashMap<Target, Box<Page>>,
    /// By kind, then by shape.
    kept: BTreeMap<(u8, String), BTreeMap<String, Vec<u8>>>,
    /// Of the reader: by compression of an image, or none.
    reader: BTreeMap<String, Vec<RawRecord>>,
}

impl Seeds {
    fn read_golden(&mut self) -> Result<()> {
        let packed = include_bytes!("../../tests/golden/postgres-15/wal.zst");
        let wal = zstd::decode_all(&packed[..])?;
        let mut reader = WalReader::new(Version::V15, 1 << 20, Lsn(0x88_5F30), None);
        reader.feed(reader.fed_to(), &wal)?;
        self.read(&mut reader)
    }

    fn read_folder(&mut self, folder: &Path) -> Result<()> {
        const SEGMENT_BYTES: u32 = 16 << 20;
        let mut segments = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_file() && name.len() == 24 {
                let number = |part: &str| u64::from_str_radix(part, 16);
                segments.push((number(&name[8..16])? << 8 | number(&name[16..])?, entry.path()));
            }
        }
        segments.sort();
        let (first, _) = segments.first().context("a folder without WAL")?;
        let start = Lsn(first * u64::from(SEGMENT_BYTES));
        let mut reader = WalReader::new(Version::V15, SEGMENT_BYTES, start, None);
        for (_, path) in segments {
            reader.feed(reader.fed_to(), &fs::read(&path)?)?;
            if let Err(error) = self.read(&mut reader) {
                // The last segment is zeros from the last record on.
                eprintln!("{}: {error:#}", path.display());
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, reader: &mut WalReader) -> Result<()> {
        while let Some(raw) = reader.next_record()? {
            let record = raw.decode(Version::V15)?;
            self.keep(&record);
            self.keep_for_reader(&record, &raw);
            self.apply(&record, raw.end)?;
        }
        Ok(())
    }

    /// Keeps the record where its kind has none of this shape yet, or a larger one.
    fn keep(&mut self, record: &Record) {
        let known = |block: &BlockRef| {
            let image = block.image.as_ref().is_some_and(|image| image.apply);
            block.will_init || image || self.pages.contains_key(&Target::Page(block.key))
        };
        if !record.blocks.iter().all(known) {
            return;
        }
        let before = |key| self.pages.get(&Target::Page(key)).cloned().unwrap_or_else(Page::zeroed);
        let case = case(record, before);
        let shape: String = case
            .blocks
            .iter()
            .map(|block| {
                let image = block.image.as_ref().map_or(0xFF, |image| image.info);
                let has_data = !block.data.is_empty();
                format!("{}:{}{}{image:x} ", block.id, block.will_init, has_data)
            })
            .chain([format!("{:x}", record.info)])
            .collect();
        let bytes = case.encode();
        let of_kind = self.kept.entry((record.rmid, record.name())).or_default();
        match of_kind.get_mut(&shape) {
            Some(kept) if kept.len() <= bytes.len() => {}
            Some(kept) => *kept = bytes,
            None => drop(of_kind.insert(shape, bytes)),
        }
    }

    fn keep_for_reader(&mut self, record: &Record, raw: &RawRecord) {
        let image = record.blocks.iter().find_map(|block| block.image.as_ref());
        let kind = image.map_or("none".to_owned(), |image| format!("{:?}", image.compression));
        let kept = self.reader.entry(kind).or_default();
        if kept.len() < READER_RECORDS && raw.bytes.len() < 1000 {
            kept.push(raw.clone());
        }
    }

    fn apply(&mut self, record: &Record, end: Lsn) -> Result<()> {
        for effect in effects(Version::V15, record)? {
            let (Effect::Touch { target, .. } | Effect::TouchExisting { target }) = effect else {
                continue;
            };
            let page = self.pages.entry(target).or_insert_with(Page::zeroed);
            // A page that was there before the WAL began is unknown until an after-image comes.
            if redo(Version::V15, record, end, target, page).is_err() {
                self.pages.remove(&target);
            }
        }
        for block in &record.blocks {
            if let Some(image) = block.image.as_ref().filter(|image| !image.apply) {
                let page = self.pages.entry(Target::Page(block.key)).or_insert_with(Page::zeroed);
                image.restore(page)?;
            }
        }
        Ok(())
    }

    fn write(self, corpus: &Path) -> Result<()> {
        let mut total = 0;
        for ((rmid, name), shapes) in self.kept {
            let target = TARGETS.iter().find(|(_, target)| *target == Some(rmid));
            let Some((target, _)) = target else { bail!("no target for {name}") };
            let mut smallest: Vec<Vec<u8>> = shapes.into_values().collect();
            smallest.sort_by_key(Vec::len);
            let within = smallest.iter().take_while(|bytes| bytes.len() <= BYTES_MAX).count();
            for (index, bytes) in smallest.iter().take(within.clamp(1, KEPT_OF_KIND)).enumerate() {
                let file = name.split_once('/').map_or(&*name, |(_, kind)| kind);
                let file = file.to_lowercase().replace(['+', ' ', '(', ')'], "_");
                total += bytes.len();
                write(corpus, target, &format!("{file}-{index}"), bytes)?;
            }
        }
        for (kind, records) in self.reader {
            for start in 0..8_u8 {
                let bytes = reader_input(start, &records);
                total += bytes.len();
                write(corpus, "reader", &format!("{}-{start}", kind.to_lowercase()), &bytes)?;
            }
        }
        println!("{total} bytes");
        Ok(())
    }
}

/// The case of a real record; `before` is the page at a block before it.
fn case(record: &Record, before: impl Fn(PageKey) -> Box<Page>) -> Case {
    let block = |block: &BlockRef| Block {
        id: block.id,
        fork: block.key.fork.fork as u8,
        number: block.key.block,
        will_init: block.will_init,
        data: block.data.to_vec(),
        image: block.image.as_ref().filter(|image| image.apply).map(|image| Image {
            info: u8::from(image.hole_bytes > 0) | 0x02 | compression(image.compression),
            hole_offset: image.hole_offset,
            hole_bytes: image.hole_bytes,
            bytes: image.bytes.to_vec(),
        }),
        before: PageShape::of(&before(block.key)),
    };
    Case {
        info: record.info & !0x0F,
        xid: record.xid,
        origin: record.origin.unwrap_or(0),
        blocks: record.blocks.iter().map(block).collect(),
        elsewhere: PageShape { base: Base::Zeros, runs: Vec::new() },
        main: record.main.to_vec(),
    }
}

/// The bit of `bimg_info`.
fn compression(compression: Compression) -> u8 {
    match compression {
        Compression::None => 0,
        Compression::Pglz => 0x04,
        Compression::Lz4 => 0x08,
        Compression::Zstd => 0x10,
    }
}

/// The records as the reader's target lays them on pages, from one of its eight starts.
fn reader_input(start: u8, records: &[RawRecord]) -> Vec<u8> {
    let mut bytes = vec![start | 8];
    bytes.extend(1000_u16.to_le_bytes());
    let here = records.iter().skip(usize::from(start)).take(3);
    bytes.push(here.clone().count() as u8);
    for raw in here {
        bytes.extend([raw.bytes[17], raw.bytes[16]]);
        bytes.extend(&raw.bytes[4..8]);
        let body = &raw.bytes[wal_format::RECORD_HEADER_BYTES..];
        bytes.extend((body.len() as u16).to_le_bytes());
        bytes.extend(body);
    }
    bytes
}

fn write(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}
