//! Replays WAL from a data directory's files in memory and compares each page with the consistency image in the record.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};
use wal_format::{
    Effect, Lsn, Page, Record, RedoError, RelationFork, Target, Version, WalReader, effects, redo,
};

use crate::{files::State, masks};

/// How many mismatches are told apart in words.
const TOLD_MAX: usize = 20;
/// How many spoiled records of each kind are tried.
const TRIED_MAX: u64 = 400;

/// What was seen of one record kind.
#[derive(Default, Clone)]
pub struct Tally {
    pub records: u64,
    /// Blocks that agree with the image in the record.
    pub verified: u64,
    pub mismatches: u64,
    /// Records that were refused for want of redo.
    pub refused: u64,
    /// Records spoiled on purpose, and those of them that were noticed.
    pub tried: u64,
    pub caught: u64,
}

impl Tally {
    /// Applies the record with one byte of its payload spoiled: that is what a wrong redo function would do.
    /// It must be refused, or the page must differ from the image, at least for some byte of some record of each kind.
    fn try_mutations(&mut self, record: &Record, end: Lsn, target: Target, page: &Page) {
        let Target::Page(key) = target else { return };
        let Some(index) = record.blocks.iter().position(|block| block.key == key) else { return };
        if record.blocks[index].image.as_ref().is_none_or(|image| image.apply) {
            return;
        }
        let spoil = |bytes: &[u8], at: u64| {
            let mut bytes = bytes.to_vec();
            let at = (at % bytes.len() as u64) as usize;
            bytes[at] ^= 1 << (at % 8);
            bytes
        };
        for step in 0..8 {
            let wrong;
            let mut spoiled = Record {
                blocks: record.blocks.iter().cloned().collect(),
                main: record.main,
                ..*record
            };
            let at = (end.0 / 8).wrapping_mul(7) + step * 3;
            let block = &mut spoiled.blocks[index];
            if step % 2 == 0 && !block.data.is_empty() {
                wrong = spoil(block.data, at);
                block.data = &wrong;
            } else if !spoiled.main.is_empty() {
                wrong = spoil(spoiled.main, at);
                spoiled.main = &wrong;
            } else {
                continue;
            }
            self.tried += 1;
            let mut page = page.clone();
            let outcome = redo(Version::V15, &spoiled, end, target, &mut page);
            self.caught +=
                u64::from(outcome.is_err() || difference(record, index, &page).is_some());
        }
    }
}

#[derive(Default)]
pub struct Replay {
    pub state: State,
    pub tallies: BTreeMap<String, Tally>,
    /// The resource manager that last changed the page, which knows its mask.
    pub changed_by: HashMap<Target, u8>,
    pub told: Vec<String>,
    pub records: u64,
    commit_timestamps: bool,
}

impl Replay {
    /// Replays all WAL from `start`, a record's start, to the end of the record at `last`.
    pub fn run(state: State, wal: &Path, start: Lsn, last: Lsn) -> Result<Replay> {
        const SEGMENT_BYTES: u32 = 16 << 20;
        let mut replay = Replay { state, commit_timestamps: true, ..Replay::default() };
        let mut reader = WalReader::new(Version::V15, SEGMENT_BYTES, start, None);
        let mut segment = start.0 / u64::from(SEGMENT_BYTES);
        loop {
            while let Some(raw) = reader.next_record()? {
                let record = raw.decode(Version::V15)?;
                replay.apply(&record, raw.end)?;
                if raw.start == last {
                    return Ok(replay);
                }
            }
            let path = wal.join(segment_name(segment));
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            let skip = (reader.fed_to().0 % u64::from(SEGMENT_BYTES)) as usize;
            reader.feed(reader.fed_to(), &bytes[skip..])?;
            segment += 1;
        }
    }

    fn apply(&mut self, record: &Record, end: Lsn) -> Result<()> {
        self.records += 1;
        let tally = self.tallies.entry(record.name()).or_default();
        tally.records += 1;
        let list = match effects(Version::V15, record) {
            Ok(list) => list,
            Err(RedoError::Unsupported { .. }) => {
                tally.refused += 1;
                for block in &record.blocks {
                    self.state.pages.remove(&Target::Page(block.key));
                }
                return Ok(());
            }
            Err(error) => bail!("{error} before {end}"),
        };
        for effect in list {
            self.follow(effect, record, end)
                .with_context(|| format!("{} before {end}", record.name()))?;
        }
        self.compare(record, end);
        Ok(())
    }

    fn follow(&mut self, effect: Effect, record: &Record, end: Lsn) -> Result<()> {
        let state = &mut self.state;
        let touched = match effect {
            Effect::Touch { target, .. } => Some(target),
            Effect::TouchExisting { target } => state.pages.contains_key(&target).then_some(target),
            Effect::TouchCommitTimestamps { page } => {
                self.commit_timestamps.then_some(Target::Slru(wal_format::Slru::CommitTs, page))
            }
            Effect::CreateFork(fork) => {
                state.forks.insert(fork);
                None
            }
            Effect::TruncateFork { fork, blocks } => {
                let stays = |page: &Target| !in_fork(page, fork, blocks);
                state.pages.retain(|page, _| stays(page));
                None
            }
            Effect::DropRelation(relation) => {
                let of = |page: &Target| matches!(page, Target::Page(key) if key.fork.relation == relation);
                state.pages.retain(|page, _| !of(page));
                state.forks.retain(|fork| fork.relation != relation);
                None
            }
            Effect::DropDatabase { tablespace, database } => {
                drop_database(state, (tablespace, database));
                None
            }
            Effect::CopyDatabase { from, to } => {
                copy_database(state, from, to);
                None
            }
            Effect::RelationMap { tablespace, database, bytes } => {
                state.relation_maps.insert((tablespace, database), bytes.to_vec());
                None
            }
            Effect::TruncateSlru { slru, from, to } => {
                let gone = |page: &Target| matches!(page, Target::Slru(area, page) if *area == slru && (from..to).contains(page));
                state.pages.retain(|page, _| !gone(page));
                None
            }
            Effect::TwoPhase { xid, state: Some(bytes) } => {
                state.two_phase.insert(xid, bytes.to_vec());
                None
            }
            Effect::TwoPhase { xid, state: None } => {
                state.two_phase.remove(&xid);
                None
            }
            Effect::CreateDatabase { .. }
            | Effect::CreateTablespace { .. }
            | Effect::DropTablespace { .. }
            | Effect::ReplicationOrigin { .. }
            | Effect::Finished { .. } => None,
        };
        let Some(target) = touched else { return Ok(()) };
        if let Target::Page(key) = target {
            self.state.forks.insert(key.fork);
        }
        let page = self.state.pages.entry(target).or_insert_with(Page::zeroed);
        let tally = self.tallies.entry(record.name()).or_default();
        if tally.tried < TRIED_MAX {
            tally.try_mutations(record, end, target, page);
        }
        redo(Version::V15, record, end, target, page)?;
        self.changed_by.insert(target, record.rmid);
        Ok(())
    }

    /// xlogrecovery.c, `verifyBackupPageConsistency`.
    fn compare(&mut self, record: &Record, end: Lsn) {
        let name = record.name();
        for (index, block) in record.blocks.iter().enumerate() {
            let target = Target::Page(block.key);
            let (Some(page), Some(_)) =
                (self.state.pages.get(&target), block.image.as_ref().filter(|image| !image.apply))
            else {
                continue;
            };
            let tally = self.tallies.entry(name.clone()).or_default();
            let Some(difference) = difference(record, index, page) else {
                tally.verified += 1;
                continue;
            };
            tally.mismatches += 1;
            if self.told.len() < TOLD_MAX {
                let id = block.id;
                self.told.push(format!("{name} block {id} {target} before {end}: {difference}"));
            }
        }
    }

    pub fn mismatches(&self) -> u64 {
        self.tallies.values().map(|tally| tally.mismatches).sum()
    }

    /// The table: kind, records, blocks verified.
    pub fn table(&self) -> String {
        let heads = ["records", "verified", "differ", "refused", "spoiled", "caught"];
        let row = |name: &str, cells: [String; 6]| {
            let cells = cells.map(|cell| format!("{cell:>9}")).concat();
            format!("{name:<34}{cells}\n")
        };
        let mut table = row("kind", heads.map(str::to_owned));
        for (name, tally) in &self.tallies {
            let Tally { records, verified, mismatches, refused, tried, caught } = *tally;
            let cells = [records, verified, mismatches, refused, tried, caught];
            table += &row(name, cells.map(|cell| cell.to_string()));
        }
        table
    }
}

/// Where the page differs from the image that the record has of its block, masked.
fn difference(record: &Record, index: usize, page: &Page) -> Option<String> {
    let block = &record.blocks[index];
    let (mut ours, mut theirs) = (page.clone(), Page::zeroed());
    block.image.as_ref()?.restore(&mut theirs).expect("Postgres' own images are sound");
    masks::mask(record.rmid, block.key.block, &mut ours);
    masks::mask(record.rmid, block.key.block, &mut theirs);
    (ours != theirs).then(|| describe(&ours, &theirs))
}

/// Where two masked pages differ.
pub fn describe(ours: &Page, theirs: &Page) -> String {
    let differ: Vec<usize> =
        (0..ours.bytes().len()).filter(|at| ours.bytes()[*at] != theirs.bytes()[*at]).collect();
    let (Some(first), Some(last)) = (differ.first(), differ.last()) else {
        return "no difference".to_owned();
    };
    let window = |page: &Page| {
        format!("{:02x?}", &page.bytes()[*first..(*first + 24).min(page.bytes().len())])
    };
    format!(
        "{} bytes in {first}..={last}: ours {} theirs {} ({:?}, {:?})",
        differ.len(),
        window(ours),
        window(theirs),
        ours.bounds(),
        theirs.bounds()
    )
}

fn segment_name(segment: u64) -> String {
    format!("{:08X}{:08X}{:08X}", 1, segment >> 8, segment & 0xFF)
}

fn in_fork(page: &Target, fork: RelationFork, from: u32) -> bool {
    matches!(page, Target::Page(key) if key.fork == fork && key.block >= from)
}

fn drop_database(state: &mut State, of: (u32, u32)) {
    let here = |fork: &RelationFork| (fork.relation.tablespace, fork.relation.database) == of;
    state.pages.retain(|page, _| !matches!(page, Target::Page(key) if here(&key.fork)));
    state.forks.retain(|fork| !here(fork));
    state.relation_maps.remove(&of);
}

fn copy_database(state: &mut State, from: (u32, u32), to: (u32, u32)) {
    drop_database(state, to);
    let moved = |mut fork: RelationFork| {
        let relation = &mut fork.relation;
        let is_here = (relation.tablespace, relation.database) == from;
        (relation.tablespace, relation.database) = to;
        is_here.then_some(fork)
    };
    let forks: Vec<RelationFork> = state.forks.iter().copied().filter_map(moved).collect();
    state.forks.extend(forks);
    let copies: Vec<(Target, Page)> = state
        .pages
        .iter()
        .filter_map(|(target, page)| match target {
            Target::Page(key) => {
                Some((Target::Page(moved(key.fork)?.block(key.block)), page.clone()))
            }
            Target::Slru(..) => None,
        })
        .collect();
    state.pages.extend(copies);
    if let Some(map) = state.relation_maps.get(&from).cloned() {
        state.relation_maps.insert(to, map);
    }
}
