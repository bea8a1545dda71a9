//! What a run has shown: a row for each kind of record.

use std::fmt::{self, Write};

use serde::Serialize;

use crate::kind::{Kind, Kinds, Proof, proof};

/// How many differences are told in words.
const TOLD_MAX: usize = 40;

/// What was seen of one kind.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Records of this kind.
    pub records: u64,
    /// Blocks that equal the image in their record.
    pub blocks: u64,
    /// Pages, files and counters that it changed and that equal the stopped server's.
    pub states: u64,
    /// Blocks that differ from the image in their record.
    pub mismatches: u64,
    /// Records spoiled on purpose, and how many of them were noticed.
    pub spoiled: u64,
    /// Of those, the ones that were noticed.
    pub caught: u64,
}

/// All that a run has shown.
#[derive(Debug, Clone)]
pub struct Coverage {
    kinds: Kinds,
    tallies: Vec<Tally>,
    /// Pages compared: with images, and with the server's files.
    pub blocks_compared: u64,
    /// Differences of all sorts.
    pub mismatches: u64,
    /// Pages that equal the server's file to the last byte, checksum and all, in clusters that have checksums.
    pub checksums: u64,
    /// The first differences, in words.
    pub told: Vec<String>,
}

/// The last line of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Records replayed.
    pub records: u64,
    /// Pages compared.
    pub blocks_compared: u64,
    /// Differences.
    pub mismatches: u64,
    /// Kinds of which there was a record.
    pub kinds_seen: usize,
    /// Kinds whose redo was proven.
    pub kinds_verified: usize,
    /// Kinds that Postgres has.
    pub kinds_total: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { records, blocks_compared, mismatches, .. } = self;
        let Summary { kinds_seen, kinds_verified, kinds_total, .. } = self;
        write!(
            f,
            "{records} records, {blocks_compared} pages compared, {mismatches} differences; of {kinds_total} kinds \
             {kinds_seen} seen and {kinds_verified} verified"
        )
    }
}

/// The coverage as a page of the docs.
pub fn document(coverage: &Coverage, suites: &[&str]) -> String {
    let summary = coverage.summary();
    format!(
        "# Redo: what is proven\n\n\
         Written by `cargo run --release --bin redo-oracle -- --suite {} --write-coverage docs/redo-coverage.md` \
         ([redo.md](formats/redo.md) says how): {summary}.\n\n\
         \"Blocks verified\" equal the image in their own record. \"States verified\" are pages, files and counters that the kind \
         changed and that equal the stopped server's.\n\n{}",
        if suites.len() == 1 { suites[0] } else { "all" },
        coverage.table()
    )
}

impl Default for Coverage {
    fn default() -> Coverage {
        let kinds = Kinds::all();
        let tallies = vec![Tally::default(); kinds.count()];
        Coverage {
            kinds,
            tallies,
            blocks_compared: 0,
            mismatches: 0,
            checksums: 0,
            told: Vec::new(),
        }
    }
}

impl Coverage {
    /// The kinds.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// A kind's row.
    pub fn tally(&mut self, kind: Kind) -> &mut Tally {
        &mut self.tallies[usize::from(kind.0)]
    }

    /// Each kind's name and row.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.kinds.names().iter().map(String::as_str).zip(&self.tallies)
    }

    /// Counts a difference, and keeps it in words where it is one of the first.
    pub fn differs(&mut self, words: impl FnOnce() -> String) {
        self.mismatches += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(words());
        }
    }

    /// Takes over what another run has shown.
    pub fn add(&mut self, other: &Coverage) {
        for (tally, more) in self.tallies.iter_mut().zip(&other.tallies) {
            tally.records += more.records;
            tally.blocks += more.blocks;
            tally.states += more.states;
            tally.mismatches += more.mismatches;
            tally.spoiled += more.spoiled;
            tally.caught += more.caught;
        }
        self.blocks_compared += other.blocks_compared;
        self.mismatches += other.mismatches;
        self.checksums += other.checksums;
        let room = TOLD_MAX.saturating_sub(self.told.len());
        self.told.extend(other.told.iter().take(room).cloned());
    }

    /// Whether a kind's redo was proven.
    fn is_verified(&self, name: &str, tally: &Tally) -> bool {
        match proof(name) {
            _ if tally.mismatches > 0 => false,
            Proof::Images => tally.blocks > 0,
            Proof::State(_) => tally.states > 0,
            Proof::Nothing(_) => tally.records > 0 && self.mismatches == 0,
            Proof::Never(_) => false,
        }
    }

    /// The kinds that were neither proven nor are known to be impossible.
    pub fn unproven(&self) -> Vec<&str> {
        let is_open = |(name, tally): &(&str, &Tally)| {
            !self.is_verified(name, tally) && !matches!(proof(name), Proof::Never(_))
        };
        self.rows().filter(is_open).map(|(name, _)| name).collect()
    }

    /// The numbers of the last line.
    pub fn summary(&self) -> Summary {
        Summary {
            records: self.tallies.iter().map(|tally| tally.records).sum(),
            blocks_compared: self.blocks_compared,
            mismatches: self.mismatches,
            kinds_seen: self.tallies.iter().filter(|tally| tally.records > 0).count(),
            kinds_verified: self
                .rows()
                .filter(|(name, tally)| self.is_verified(name, tally))
                .count(),
            kinds_total: self.kinds.count(),
        }
    }

    /// The table, in Markdown: kind, records, blocks, states, and what proves it or why nothing does.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| kind | records | blocks verified | states verified | proof |\n|---|---:|---:|---:|---|\n",
        );
        for (name, tally) in self.rows() {
            let words = match proof(name) {
                _ if tally.mismatches > 0 => format!("**{} blocks differ**", tally.mismatches),
                Proof::Never(reason) => format!("cannot be made: {reason}"),
                _ if tally.records == 0 => "**not seen in this run**".to_owned(),
                _ if !self.is_verified(name, tally) => "**not proven by this run**".to_owned(),
                Proof::Images => "the images in the records".to_owned(),
                Proof::State(what) => what.to_owned(),
                Proof::Nothing(reason) => format!("changes nothing that is kept: {reason}"),
            };
            let Tally { records, blocks, states, .. } = *tally;
            writeln!(table, "| {name} | {records} | {blocks} | {states} | {words} |")
                .expect("a string takes all");
        }
        table
    }
}
