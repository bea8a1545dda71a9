//! One record at a time: what each common kind takes, from bytes to changed pages, and what a page takes that is made from 100 inserts.

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde_json::json;
use wal_format::{Effect, Lsn, Page, RawRecord, Record, Target, Version, effects, redo, rmid};

use crate::{Settings, in_memory::WalInMemory, median, pages::Pages, round, wal::Recorded};

/// Rounds over all records of a kind; the median counts.
const ROUNDS: usize = 15;
/// A kind with fewer records is not measured.
const RECORDS_MIN: usize = 50;
/// Records from which the samples are taken.
const LOOKED_AT: usize = 600_000;
/// Inserts into the page that is made.
const CHAIN_RECORDS: usize = 100;
/// How often it is made.
const CHAIN_ROUNDS: usize = 1001;

/// Records with the pages that they touch.
#[derive(Default)]
pub struct Samples {
    kinds: BTreeMap<String, Vec<Sample>>,
    /// Heap inserts by the page that they go to, from its first one on.
    inserts: FxHashMap<Target, Vec<(Bytes, Lsn)>>,
    /// The first page that has enough of them.
    chain: Option<Target>,
}

struct Sample {
    raw: RawRecord,
    pages: Vec<(Target, Box<Page>)>,
}

/// Ends the reading.
#[derive(Debug, thiserror::Error)]
#[error("there are samples enough")]
struct Enough;

impl Samples {
    pub fn take(
        recorded: &Recorded,
        settings: Settings,
        wal: &WalInMemory,
        pages: &mut Pages,
    ) -> Result<Samples> {
        let mut samples = Samples::default();
        let mut looked_at = 0;
        let read = wal.read(recorded.images(), |records| {
            records.into_iter().try_for_each(|lent| {
                let bytes = Bytes::copy_from_slice(lent.bytes);
                let raw = RawRecord { start: lent.start, end: lent.end, bytes };
                let record = raw.decode(Version::V15)?;
                // Before the clean stop the pages are not known, but images need none.
                if raw.start < recorded.first() && record.rmid != rmid::XLOG {
                    return Ok(());
                }
                samples.keep(&record, &raw, pages, settings.records_of_kind)?;
                if raw.start < recorded.first() {
                    return Ok(());
                }
                for (target, will_init) in touched(&record)? {
                    let slot = pages.slot(target, will_init)?;
                    redo(Version::V15, &record, raw.end, target, pages.page_mut(slot))?;
                }
                looked_at += 1;
                if looked_at == LOOKED_AT { bail!(Enough) } else { Ok(()) }
            })
        });
        match read {
            Err(error) if !error.is::<Enough>() => Err(error),
            _ => Ok(samples),
        }
    }

    fn keep(
        &mut self,
        record: &Record,
        raw: &RawRecord,
        pages: &mut Pages,
        most: usize,
    ) -> Result<()> {
        let touched = touched(record)?;
        if touched.is_empty() {
            return Ok(());
        }
        if record.rmid == rmid::HEAP && record.name().starts_with("Heap/INSERT") {
            self.keep_insert(raw, touched[0]);
        }
        let kept = self.kinds.entry(kind(record)).or_default();
        if kept.len() < most {
            let before = |(target, will_init): &(Target, bool)| -> Result<(Target, Box<Page>)> {
                let slot = pages.slot(*target, *will_init)?;
                Ok((*target, Box::new(pages.page(slot).clone())))
            };
            let pages = touched.iter().map(before).collect::<Result<_>>()?;
            kept.push(Sample { raw: raw.clone(), pages });
        }
        Ok(())
    }

    fn keep_insert(&mut self, raw: &RawRecord, (target, will_init): (Target, bool)) {
        if self.chain.is_some() {
            return;
        }
        if will_init {
            self.inserts.insert(target, Vec::new());
        }
        let Some(chain) = self.inserts.get_mut(&target) else { return };
        chain.push((raw.bytes.clone(), raw.end));
        if chain.len() == CHAIN_RECORDS {
            self.chain = Some(target);
        }
    }

    /// Prints for each kind how long decoding takes, and all from bytes to changed pages.
    pub fn measure_kinds(&self) {
        for (kind, samples) in self.kinds.iter().filter(|(_, all)| all.len() >= RECORDS_MIN) {
            let per_record =
                |nanoseconds: Vec<f64>| round(median(&nanoseconds) / samples.len() as f64);
            let decode_ns = per_record((0..ROUNDS).map(|_| decode_all(samples)).collect());
            let ns = per_record((0..ROUNDS).map(|_| redo_all(samples)).collect());
            let records = samples.len();
            println!(
                "{}",
                json!({ "what": "record", "kind": kind, "records": records, "decode_ns": decode_ns, "ns": ns })
            );
        }
    }

    /// Microseconds that a page takes which is made from 100 heap inserts as they are stored: decoded and applied, one after the other.
    pub fn measure_chain(&self) -> Result<f64> {
        let target = self.chain.context("no page has 100 inserts")?;
        let chain = self.inserts.get(&target).context("the page's inserts")?;
        let mut page = Page::zeroed();
        let mut microseconds = Vec::with_capacity(CHAIN_ROUNDS);
        for _ in 0..CHAIN_ROUNDS {
            let began = Instant::now();
            page.zero();
            for (bytes, end) in chain {
                let record = Record::parse(Version::V15, bytes)?;
                redo(Version::V15, &record, *end, target, &mut page)?;
            }
            microseconds.push(began.elapsed().as_secs_f64() * 1e6);
        }
        anyhow::ensure!(usize::from(page.max_offset()) == CHAIN_RECORDS, "{page:?}");
        Ok(median(&microseconds))
    }
}

/// The kind's name; an image's compression with it.
fn kind(record: &Record) -> String {
    let image = record.blocks.iter().find_map(|block| block.image.as_ref());
    match image.filter(|_| record.rmid == rmid::XLOG) {
        Some(image) => {
            let hole = if image.hole_bytes > 0 { "with" } else { "without" };
            format!("{}, {:?}, {hole} hole", record.name(), image.compression)
        }
        None => record.name(),
    }
}

/// The pages that redo changes, and whether it makes them anew.
fn touched(record: &Record) -> Result<Vec<(Target, bool)>> {
    let touch = |effect| match effect {
        Effect::Touch { target, will_init } => Some((target, will_init)),
        _ => None,
    };
    Ok(effects(Version::V15, record)?.into_iter().filter_map(touch).collect())
}

/// Nanoseconds to decode all of them.
fn decode_all(samples: &[Sample]) -> f64 {
    let began = Instant::now();
    for sample in samples {
        black_box(sample.raw.decode(Version::V15)).expect("Postgres' own records are sound");
    }
    began.elapsed().as_secs_f64() * 1e9
}

/// Nanoseconds to decode all of them, to see what they do, and to do it to their pages.
fn redo_all(samples: &[Sample]) -> f64 {
    let mut pages: Vec<Vec<(Target, Box<Page>)>> =
        samples.iter().map(|sample| sample.pages.clone()).collect();
    let began = Instant::now();
    for (sample, pages) in samples.iter().zip(&mut pages) {
        let record = sample.raw.decode(Version::V15).expect("Postgres' own records are sound");
        black_box(effects(Version::V15, &record)).expect("Postgres' own records are sound");
        for (target, page) in pages {
            redo(Version::V15, &record, sample.raw.end, *target, page)
                .expect("the page is the one before the record");
        }
    }
    began.elapsed().as_secs_f64() * 1e9
}
