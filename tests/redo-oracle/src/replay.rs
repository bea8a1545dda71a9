//! Replays WAL in memory and compares each page with the consistency image in its record.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use wal_format::{
    BlockRef, ControlFile, ControlState, DEFAULT_SEGMENT_BYTES, Effect, Fork, Lsn, Page, Record,
    RelationFork, Slru, Target, Version, WalReader, effects, redo, rmid,
};

use crate::{
    comparison, counters,
    coverage::Coverage,
    kind::Kind,
    masks,
    mutation::Mutation,
    spoil,
    state::{Place, State},
};

/// Bytes of WAL read at a time.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Something besides a record's own blocks that records change and that is compared at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// A page whose record has no image to compare with.
    Page(Target),
    /// Whether a fork exists.
    Fork(RelationFork),
    /// Which pages of an SLRU exist, from the first number to before the second.
    Range(Slru, u32, u32),
    /// A database.
    Database(Place),
    /// A tablespace.
    Tablespace(u32),
    /// `pg_filenode.map` of a database.
    RelationMap(Place),
    /// A prepared transaction's file.
    TwoPhase(u32),
    /// A replication origin.
    Origin(u16),
    /// The counters of `pg_control`.
    Counters,
    /// The settings in `pg_control`.
    Settings,
    /// `full_page_writes` in checkpoints.
    FullPageWrites,
}

/// How a replay differs from the ordinary.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Redo is made wrong on purpose.
    pub mutation: Option<Mutation>,
    /// Some records of each kind are spoiled, to see whether the images tell.
    pub spoils: bool,
}

/// WAL being replayed over the state of a cluster.
pub struct Replay {
    pub(crate) state: State,
    pub(crate) control: ControlState,
    /// The kinds that changed each item, a bit each.
    pub(crate) touched: HashMap<Item, u128>,
    /// Visibility map pages that came as images without any content.
    pub(crate) lost_maps: HashSet<Target>,
    pub(crate) coverage: Coverage,
    options: Options,
    reader: WalReader,
    /// Pages that redo was made wrong on.
    mutations: u64,
}

impl Replay {
    /// From the state of a cleanly stopped cluster and the start of its last checkpoint's record.
    pub fn new(state: State, control: &ControlFile, options: Options) -> Replay {
        Replay {
            state,
            control: ControlState::from_control_file(control),
            touched: HashMap::new(),
            lost_maps: HashSet::new(),
            coverage: Coverage::default(),
            options,
            reader: WalReader::new(Version::V15, DEFAULT_SEGMENT_BYTES, control.checkpoint, None),
            mutations: 0,
        }
    }

    /// Pages that redo was made wrong on.
    pub fn mutations(&self) -> u64 {
        self.mutations
    }

    /// Where the last replayed record ends.
    pub fn position(&self) -> Lsn {
        self.reader.record_end()
    }

    /// Records replayed so far.
    pub fn records(&self) -> u64 {
        self.coverage.summary().records
    }

    /// Replays the WAL in this folder up to `to`, or to the end of the record at `last`. Bytes before `to` are final,
    /// but for those of a record that is unfinished there.
    pub fn advance(&mut self, wal: &Path, to: Lsn, last: Option<Lsn>) -> Result<()> {
        self.reader.truncate(self.reader.record_end());
        loop {
            while let Some(raw) = self.reader.next_record()? {
                let record = raw.decode(Version::V15)?;
                self.apply(&record, raw.end)
                    .with_context(|| format!("{} at {}", record.name(), raw.start))?;
                if last == Some(raw.start) || self.is_noticed() {
                    return Ok(());
                }
            }
            let from = self.reader.fed_to();
            if from >= to {
                return Ok(());
            }
            let segment_bytes = u64::from(DEFAULT_SEGMENT_BYTES);
            let segment_end = Lsn((from.0 / segment_bytes + 1) * segment_bytes);
            let count = to.min(segment_end).since(from).min(READ_BYTES_MAX);
            let mut bytes = vec![0; count as usize];
            let path = segment(wal, from)?;
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            file.read_exact_at(&mut bytes, from.0 % segment_bytes)
                .with_context(|| path.display().to_string())?;
            self.reader.feed(from, &bytes)?;
        }
    }

    /// Compares what was replayed with the files of the server, which was stopped cleanly after the last record.
    pub fn finish(mut self, files: &State, control: &ControlFile) -> Coverage {
        if !self.is_noticed() {
            comparison::compare(&mut self, files, control);
        }
        self.coverage
    }

    /// Whether redo was made wrong and a difference told so: more of them say no more.
    fn is_noticed(&self) -> bool {
        self.options.mutation.is_some() && self.coverage.mismatches > 0
    }

    fn apply(&mut self, record: &Record, end: Lsn) -> Result<()> {
        let Some(kind) = self.coverage.kinds().of(record) else {
            bail!("Postgres 15 has no such record");
        };
        self.coverage.tally(kind).records += 1;
        counters::compare(self, record, end);
        if let Some(item) = counters::item(record) {
            self.touch(item, kind);
        }
        self.control.apply(record, end)?;
        for effect in effects(Version::V15, record)? {
            self.follow(effect, kind, record, end)?;
        }
        self.compare(kind, record, end);
        Ok(())
    }

    fn touch(&mut self, item: Item, kind: Kind) {
        *self.touched.entry(item).or_default() |= 1 << kind.0;
    }

    fn follow(&mut self, effect: Effect, kind: Kind, record: &Record, end: Lsn) -> Result<()> {
        let state = &mut self.state;
        let item = match effect {
            Effect::Touch { target, .. } => return self.redo(target, kind, record, end),
            Effect::TouchExisting { target } => {
                return match state.page(&target) {
                    Some(_) => self.redo(target, kind, record, end),
                    None => Ok(()),
                };
            }
            Effect::TouchCommitTimestamps { page } => {
                return match self.control.settings.track_commit_timestamp {
                    true => self.redo(Target::Slru(Slru::CommitTs, page), kind, record, end),
                    false => Ok(()),
                };
            }
            Effect::CreateFork(fork) => {
                state.forks.entry(fork).or_default();
                Item::Fork(fork)
            }
            Effect::TruncateFork { fork, blocks } => {
                if let Some(pages) = state.forks.get_mut(&fork) {
                    pages.retain(|block, _| *block < blocks);
                }
                Item::Fork(fork)
            }
            Effect::DropRelation(relation) => {
                state.drop_relation(relation);
                Item::Fork(relation.fork(Fork::Main))
            }
            Effect::CreateDatabase { tablespace, database } => {
                state.databases.insert((tablespace, database));
                Item::Database((tablespace, database))
            }
            Effect::DropDatabase { tablespace, database } => {
                state.drop_database((tablespace, database));
                Item::Database((tablespace, database))
            }
            Effect::CopyDatabase { from, to } => {
                state.copy_database(from, to);
                Item::Database(to)
            }
            Effect::CreateTablespace { oid, .. } => {
                state.tablespaces.insert(oid);
                Item::Tablespace(oid)
            }
            Effect::DropTablespace { oid } => {
                state.tablespaces.remove(&oid);
                Item::Tablespace(oid)
            }
            Effect::RelationMap { tablespace, database, bytes } => {
                state.relation_maps.insert((tablespace, database), bytes.to_vec());
                Item::RelationMap((tablespace, database))
            }
            Effect::TruncateSlru { slru, from, to } => {
                let before = state.slrus.len();
                state.slrus.retain(|(area, page), _| *area != slru || !(from..to).contains(page));
                // A range that was empty before proves nothing.
                if state.slrus.len() == before {
                    return Ok(());
                }
                Item::Range(slru, from, to)
            }
            Effect::TwoPhase { xid, state: Some(bytes) } => {
                state.two_phase.insert(xid, bytes.to_vec());
                Item::TwoPhase(xid)
            }
            Effect::TwoPhase { xid, state: None } => {
                state.two_phase.remove(&xid);
                Item::TwoPhase(xid)
            }
            Effect::ReplicationOrigin { origin, remote: Some(remote), backward } => {
                let known = state.origins.entry(origin).or_insert(remote);
                if backward || *known < remote {
                    *known = remote;
                }
                Item::Origin(origin)
            }
            Effect::ReplicationOrigin { origin, remote: None, .. } => {
                state.origins.remove(&origin);
                Item::Origin(origin)
            }
            Effect::Finished { .. } => return Ok(()),
        };
        self.touch(item, kind);
        Ok(())
    }

    fn redo(&mut self, target: Target, kind: Kind, record: &Record, end: Lsn) -> Result<()> {
        let block = position(record, target);
        if block.is_none_or(|index| is_for_redo(&record.blocks[index])) {
            self.touch(Item::Page(target), kind);
        }
        if is_empty_map(record, block) {
            self.lost_maps.insert(target);
        }
        let page = self.state.page_mut(&target);
        if self.options.spoils
            && let Some(index) = block
            && !is_for_redo(&record.blocks[index])
        {
            spoil::try_some(record, index, end, page, self.coverage.tally(kind));
        }
        let mutation = self.options.mutation.filter(|mutation| mutation.rmid == record.rmid);
        let before = mutation.map(|_| page.clone());
        redo(Version::V15, record, end, target, page)?;
        if let (Some(mutation), Some(before)) = (mutation, before) {
            self.mutations += 1;
            mutation.damage(self.mutations, &before, page, |page| match target {
                Target::Page(key) if key.fork.fork == Fork::VisibilityMap => masks::mask_lsn(page),
                Target::Page(key) => masks::mask(record.rmid, key.block, page),
                Target::Slru(..) => {}
            });
        }
        Ok(())
    }

    /// xlogrecovery.c, `verifyBackupPageConsistency`.
    fn compare(&mut self, kind: Kind, record: &Record, end: Lsn) {
        for (index, block) in record.blocks.iter().enumerate() {
            let target = Target::Page(block.key);
            if block.image.is_none() || is_for_redo(block) {
                continue;
            }
            let Some(page) = self.state.page(&target) else { continue };
            let difference = difference(record, index, page);
            self.coverage.blocks_compared += 1;
            let tally = self.coverage.tally(kind);
            let Some(words) = difference else {
                tally.blocks += 1;
                continue;
            };
            tally.mismatches += 1;
            let name = record.name();
            let id = block.id;
            self.coverage.differs(|| format!("{name} block {id} {target} before {end}: {words}"));
        }
    }
}

/// The block reference that names this page.
fn position(record: &Record, target: Target) -> Option<usize> {
    record.blocks.iter().position(|block| Target::Page(block.key) == target)
}

/// Whether the block has no image of the page as it is after redo: none at all, or one that redo puts in its place.
fn is_for_redo(block: &BlockRef) -> bool {
    block.image.as_ref().is_none_or(|image| image.apply)
}

/// bufmgr.c, `RelationCopyStorageUsingBuffer`: an image of a visibility map page all of whose contents are the hole.
fn is_empty_map(record: &Record, block: Option<usize>) -> bool {
    let Some(block) = block.map(|index| &record.blocks[index]) else { return false };
    record.rmid == rmid::XLOG
        && block.key.fork.fork == Fork::VisibilityMap
        && block.image.as_ref().is_some_and(|image| image.hole_bytes == 8168)
}

/// Where the page differs from the image that the record has of its block, masked.
pub(crate) fn difference(record: &Record, index: usize, page: &Page) -> Option<String> {
    let block = &record.blocks[index];
    let (mut ours, mut theirs) = (page.clone(), Page::zeroed());
    if let Err(error) = block.image.as_ref()?.restore(&mut theirs) {
        return Some(error.to_string());
    }
    masks::mask(record.rmid, block.key.block, &mut ours);
    masks::mask(record.rmid, block.key.block, &mut theirs);
    (ours != *theirs).then(|| comparison::describe(&ours, &theirs))
}

/// The file that has the WAL at this position: of the newest Postgres timeline that has it.
fn segment(wal: &Path, at: Lsn) -> Result<PathBuf> {
    const TIMELINES_MAX: u32 = 3;
    let number = at.0 / u64::from(DEFAULT_SEGMENT_BYTES);
    let path =
        |timeline: u32| wal.join(format!("{timeline:08X}{:08X}{:08X}", number >> 8, number & 0xFF));
    (1..=TIMELINES_MAX)
        .rev()
        .map(path)
        .find(|path| path.exists())
        .with_context(|| format!("the WAL at {at} is gone from {}", wal.display()))
}
