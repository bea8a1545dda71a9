//! Redo as the engine does it: ingest sorts the WAL by the pages that it touches, and a page is made from all its records at once,
//! each in its order.
//!
//! While one page after the other is made, it lies in the processor's cache; following the WAL, the next record's page mostly does not.

use std::hint::black_box;

use anyhow::{Context, Result};
use rustc_hash::FxHashMap;
use wal_format::{ControlState, Effect, Lsn, Record, Target, Version, list_effects, redo};

use crate::replay::Pages;

/// WAL that is sorted before its pages are made.
const BATCH_BYTES: usize = 192 << 20;
/// Before each record in a batch stands its end.
const END_BYTES: usize = 8;

/// A batch of records, and who touches what.
pub struct ByPage {
    control: ControlState,
    pages: Pages,
    /// The records' bytes, each after its end.
    records: Vec<u8>,
    /// Numbers of the pages that the batch touches.
    numbers: FxHashMap<Target, u32>,
    touched: Vec<Touched>,
    /// The page's number and the record's place, in the order of the WAL.
    touches: Vec<(u32, u32)>,
    effects: Vec<Effect>,
}

struct Touched {
    target: Target,
    /// The first record that touches it makes it anew.
    is_new: bool,
    records: u32,
}

impl ByPage {
    pub fn new(control: ControlState, pages: Pages) -> ByPage {
        ByPage {
            control,
            pages,
            records: Vec::with_capacity(BATCH_BYTES),
            numbers: FxHashMap::default(),
            touched: Vec::new(),
            touches: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Decodes a record and notes which pages it touches.
    pub fn ingest(&mut self, bytes: &[u8], end: Lsn) -> Result<()> {
        if self.records.len() + END_BYTES + bytes.len() > BATCH_BYTES {
            self.make_pages()?;
        }
        let record = Record::parse(Version::V15, bytes)?;
        self.control.apply(&record, end)?;
        self.effects.clear();
        list_effects(Version::V15, &record, &mut self.effects)?;
        // What is done to whole forks waits for what was done to their pages.
        if self.effects.iter().any(changes_forks) {
            self.make_pages()?;
            return self.pages.apply(&record, end);
        }
        let place = self.records.len() as u32;
        self.records.extend_from_slice(&end.0.to_le_bytes());
        self.records.extend_from_slice(bytes);
        for effect in &self.effects {
            let Effect::Touch { target, will_init } = *effect else { continue };
            let next = self.touched.len() as u32;
            let number = *self.numbers.entry(target).or_insert(next);
            if number == next {
                self.touched.push(Touched { target, is_new: will_init, records: 0 });
            }
            self.touched[number as usize].records += 1;
            self.touches.push((number, place));
        }
        Ok(())
    }

    /// Makes the pages of the batch, and begins the next one.
    pub fn make_pages(&mut self) -> Result<()> {
        // The records' places by page; those of one page stay in their order.
        let mut next = Vec::with_capacity(self.touched.len());
        let mut total = 0;
        for touched in &self.touched {
            next.push(total);
            total += touched.records as usize;
        }
        let mut places = vec![0; total];
        for (number, place) in self.touches.drain(..) {
            let next = &mut next[number as usize];
            places[*next] = place;
            *next += 1;
        }
        let mut rest = &places[..];
        for touched in self.touched.drain(..) {
            let (own, others) = rest.split_at(touched.records as usize);
            rest = others;
            // Read all at once, they arrive sooner than one after the other.
            black_box(
                own.iter()
                    .fold(0, |sum: u8, place| sum ^ self.records[*place as usize + END_BYTES]),
            );
            let page = self.pages.page(touched.target, touched.is_new)?;
            for place in own {
                let (end, bytes) = stored(&self.records[*place as usize..])?;
                let record = Record::parse(Version::V15, bytes)?;
                redo(Version::V15, &record, end, touched.target, page)?;
            }
        }
        self.numbers.clear();
        self.records.clear();
        Ok(())
    }

    /// The pages as they are at the end.
    pub fn into_pages(self) -> Pages {
        self.pages
    }
}

/// A record's end and its bytes, from the front of what was stored.
fn stored(from: &[u8]) -> Result<(Lsn, &[u8])> {
    let (end, from) = from.split_first_chunk::<END_BYTES>().context("a record's end")?;
    let length = from.first_chunk::<4>().context("a record's length")?;
    let bytes = from.get(..u32::from_le_bytes(*length) as usize).context("a record")?;
    Ok((Lsn(u64::from_le_bytes(*end)), bytes))
}

/// Whether it concerns more than one page, or a page only if it is there.
fn changes_forks(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::TouchExisting { .. }
            | Effect::TruncateFork { .. }
            | Effect::DropRelation(_)
            | Effect::CopyDatabase { .. }
            | Effect::DropDatabase { .. }
            | Effect::TruncateSlru { .. }
    )
}
