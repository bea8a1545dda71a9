//! What a comparison found.

use std::{collections::BTreeMap, fmt};

use wal_format::{Lsn, PageKey, RelationFork};

/// What was compared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    Page(PageKey),
    /// A fork's length, or that there is one.
    Length(RelationFork),
    File(String),
    SlruPage(String, u32),
    /// A field of `pg_control`.
    Counter(&'static str),
    /// The databases' folders, or the tablespaces' locations.
    Folders(&'static str),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Page(page) => write!(f, "{page}"),
            Subject::Length(fork) => write!(f, "length of {fork}"),
            Subject::File(path) => write!(f, "{path}"),
            Subject::SlruPage(path, page) => write!(f, "{path} page {page}"),
            Subject::Counter(name) => write!(f, "pg_control's {name}"),
            Subject::Folders(name) => write!(f, "{name}"),
        }
    }
}

/// A difference that nothing allows.
#[derive(Clone, Debug)]
pub struct Mismatch {
    pub lsn: Lsn,
    pub subject: Subject,
    /// How the two differ.
    pub detail: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}: {}", self.lsn, self.subject, self.detail)
    }
}

/// The result of one comparison, or of several.
#[derive(Default, Debug)]
pub struct Report {
    /// Pages of relations and SLRUs that both sides have.
    pub blocks: u64,
    /// How many pages and other things are the same, or differ in a way that is allowed, by the class.
    pub classes: BTreeMap<String, u64>,
    pub mismatches: Vec<Mismatch>,
    /// A page of each kind that holds items.
    pub examples: BTreeMap<&'static str, PageKey>,
}

impl Report {
    pub fn count(&mut self, class: impl Into<String>) {
        *self.classes.entry(class.into()).or_default() += 1;
    }

    pub fn differ(&mut self, lsn: Lsn, subject: Subject, detail: impl Into<String>) {
        self.mismatches.push(Mismatch { lsn, subject, detail: detail.into() });
    }

    /// Takes over what another one found.
    pub fn add(&mut self, other: Report) {
        self.blocks += other.blocks;
        for (class, count) in other.classes {
            *self.classes.entry(class).or_default() += count;
        }
        self.mismatches.extend(other.mismatches);
        self.examples.extend(other.examples);
    }
}
