//! Ingest: what a WAL record does to a timeline's keys. Pure: what must be read first is asked for
//! by [`Planned`], and handed back.
//!
//! Invariants:
//! - A fork's size is above every block that has a value; a page beyond the size has none.
//! - Whatever was cut off or dropped stays gone: truncations, drops, and the gap that an extension
//!   leaves are ranges, below which nothing older is seen.
//! - A record that is not understood is an error with its name and position. It is never skipped.

mod draft;
mod sizes;

use std::collections::HashMap;

use bytes::Bytes;
use wal_format::{
    Effect, Fork, Lsn, Page, RawRecord, Record, RedoError, RelationFork, Slru, Target, Version,
    WalError, effects, redo, rmid,
};

use self::{draft::Draft, sizes::ForkSizes};
use crate::{
    change::{Change, Value},
    control::Control,
    key::Key,
    replication_origin::OriginProgress,
};

/// `XLOG_CHECKPOINT_SHUTDOWN` (pg_control.h).
const CHECKPOINT_SHUTDOWN: u8 = 0x00;

/// A database's folder: tablespace and OID.
pub type DatabaseFolder = (u32, u32);

/// Why ingest of a timeline stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// The WAL is damaged.
    #[error("ingest stopped at {at}: {reason}")]
    Damaged {
        /// The record's start, or how far the WAL could be read.
        at: Lsn,
        /// What is wrong.
        reason: WalError,
    },
    /// There is no redo for this kind of record, or it does not fit its page.
    #[error("ingest stopped at {at}: the record {record} cannot be replayed: {reason}")]
    Redo {
        /// The record's start.
        at: Lsn,
        /// Its name, as `pg_waldump` prints it.
        record: String,
        /// What is wrong.
        reason: RedoError,
    },
    /// What was stored before, and must be known to go on, cannot be read: a value of the timeline,
    /// or WAL that a safekeeper finds damaged.
    #[error("ingest stopped at {at}: {reason}")]
    Stored {
        /// The record's start, or how far the WAL could be read.
        at: Lsn,
        /// What is wrong.
        reason: String,
    },
}

/// A record that was understood, and what must be known before it is carried out.
#[derive(Debug)]
pub struct Planned {
    start: Lsn,
    end: Lsn,
    bytes: Bytes,
    effects: Vec<Effect>,
    /// Forks whose size was not known: to be told by [`Ingest::learn_size`].
    pub unknown_sizes: Vec<RelationFork>,
    /// Databases that the record copies, in its order: all keys of each are to be handed to
    /// [`Ingest::carry_out`].
    pub copied_databases: Vec<DatabaseFolder>,
}

/// The state that ingest keeps of one timeline.
#[derive(Debug)]
pub struct Ingest {
    version: Version,
    control: Control,
    sizes: ForkSizes,
    origins: HashMap<u16, Lsn>,
}

impl Ingest {
    /// Ingest that goes on where the control value and the origins' progress are these.
    pub(crate) fn new(
        version: Version,
        control: Control,
        origins: impl IntoIterator<Item = (u16, OriginProgress)>,
    ) -> Ingest {
        let origins = origins.into_iter().map(|(origin, progress)| (origin, progress.remote_lsn));
        Ingest { version, control, sizes: ForkSizes::default(), origins: origins.collect() }
    }

    /// Reads the record and says what must be known to carry it out.
    pub fn plan(&self, raw: RawRecord) -> Result<Planned, IngestError> {
        let RawRecord { start, end, bytes } = raw;
        let effects = self.effects(start, &bytes)?;
        let mut unknown_sizes = Vec::new();
        let mut copied_databases = Vec::new();
        for effect in &effects {
            if let Some(fork) = fork_sized_by(effect)
                && !self.sizes.is_known(fork)
                && !unknown_sizes.contains(&fork)
            {
                unknown_sizes.push(fork);
            }
            if let Effect::CopyDatabase { from, .. } = effect {
                copied_databases.push(*from);
            }
        }
        Ok(Planned { start, end, bytes, effects, unknown_sizes, copied_databases })
    }

    /// Tells a fork's size as the timeline has it; `None` where there is no such fork.
    pub fn learn_size(&mut self, fork: RelationFork, blocks: Option<u32>) {
        self.sizes.set(fork, blocks);
    }

    /// What the record does. `copies` holds, for each of [`Planned::copied_databases`], its keys
    /// of the kinds page, fork size and relation map with their values before this record.
    pub fn carry_out(
        &mut self,
        planned: Planned,
        copies: Vec<Vec<(Key, Bytes)>>,
    ) -> Result<Change, IngestError> {
        assert_eq!(copies.len(), planned.copied_databases.len(), "each copy has its source");
        let Planned { start, end, bytes, effects, .. } = planned;
        let record = self.parse(start, &bytes)?;
        let mut draft = Draft::default();
        let mut copies = copies.into_iter();
        for effect in effects {
            match self.touched_by(&effect) {
                Some((target, will_init)) => {
                    self.extend_to(target, &mut draft);
                    let value = self.touched(&record, start, end, target, will_init, &bytes)?;
                    draft.put(Key::target(target), value);
                }
                None => self.change_state(effect, &mut copies, &mut draft),
            }
        }
        self.track_control(&record, start, end, &mut draft)?;
        self.sizes.trim();
        Ok(draft.finish(start, end))
    }

    /// What the record at `start` does.
    fn effects(&self, start: Lsn, bytes: &[u8]) -> Result<Vec<Effect>, IngestError> {
        let record = self.parse(start, bytes)?;
        effects(self.version, &record).map_err(|reason| IngestError::Redo {
            at: start,
            record: record.name(),
            reason,
        })
    }

    /// Decodes the record at `start`. That takes less time than to keep what was decoded.
    fn parse<'a>(&self, start: Lsn, bytes: &'a [u8]) -> Result<Record<'a>, IngestError> {
        Record::parse(self.version, bytes)
            .map_err(|reason| IngestError::Damaged { at: start, reason })
    }

    /// The page that an effect changes by redo, and whether redo makes it anew.
    fn touched_by(&self, effect: &Effect) -> Option<(Target, bool)> {
        match *effect {
            Effect::Touch { target, will_init } => Some((target, will_init)),
            Effect::TouchExisting { target: Target::Page(page) } => {
                let exists = self.sizes.get(page.fork).is_some_and(|blocks| page.block < blocks);
                exists.then_some((Target::Page(page), false))
            }
            Effect::TouchExisting { target } => Some((target, false)),
            Effect::TouchCommitTimestamps { page } => {
                let on = self.control.state.settings.track_commit_timestamp;
                on.then_some((Target::Slru(Slru::CommitTs, page), false))
            }
            _ => None,
        }
    }

    /// The value that a record gives a page. A page that the record carries as an image is stored
    /// as that image: a record of 32 images would otherwise be stored 32 times.
    fn touched(
        &self,
        record: &Record,
        start: Lsn,
        end: Lsn,
        target: Target,
        will_init: bool,
        bytes: &Bytes,
    ) -> Result<Value, IngestError> {
        let carries_image = record.blocks.iter().any(|block| {
            let image = block.image.as_ref();
            Target::Page(block.key) == target && image.is_some_and(|image| image.apply)
        });
        if !carries_image {
            return Ok(Value::Record { will_init, bytes: bytes.clone() });
        }
        let mut page = Page::zeroed();
        redo(self.version, record, end, target, &mut page).map_err(|reason| IngestError::Redo {
            at: start,
            record: record.name(),
            reason,
        })?;
        Ok(Value::Image(page.into_bytes()))
    }

    /// A page beyond its fork's end extends the fork; what lies between is zeros, whatever was
    /// there before.
    fn extend_to(&mut self, target: Target, draft: &mut Draft) {
        let Target::Page(page) = target else { return };
        let size = self.sizes.get(page.fork);
        let blocks = size.unwrap_or(0);
        if page.block < blocks {
            return;
        }
        if page.block > blocks {
            draft.clear(Key::pages(page.fork, blocks..page.block));
        }
        self.set_size(page.fork, page.block + 1, draft);
    }

    fn set_size(&mut self, fork: RelationFork, blocks: u32, draft: &mut Draft) {
        self.sizes.set(fork, Some(blocks));
        let value = Bytes::copy_from_slice(&blocks.to_le_bytes());
        draft.put(Key::fork_size(fork), Value::Image(value));
    }

    fn change_state(
        &mut self,
        effect: Effect,
        copies: &mut impl Iterator<Item = Vec<(Key, Bytes)>>,
        draft: &mut Draft,
    ) {
        match effect {
            Effect::CreateFork(fork) => {
                if self.sizes.get(fork).is_none() {
                    self.set_size(fork, 0, draft);
                }
            }
            Effect::TruncateFork { fork, blocks } => self.truncate(fork, blocks, draft),
            Effect::DropRelation(relation) => {
                draft.clear(Key::relation_pages(relation));
                draft.clear(Key::relation_sizes(relation));
                for fork in Fork::ALL {
                    self.sizes.set(relation.fork(fork), None);
                }
            }
            Effect::CreateDatabase { tablespace, database } => {
                draft.put(Key::database(tablespace, database), Value::Image(Bytes::new()));
            }
            Effect::CopyDatabase { to, .. } => {
                self.copy_database(copies.next().unwrap_or_default(), to, draft);
            }
            Effect::DropDatabase { tablespace, database } => {
                self.drop_database(tablespace, database, draft);
            }
            Effect::CreateTablespace { oid, location } => {
                draft.put(Key::tablespace(oid), Value::Image(Bytes::from(location)));
            }
            Effect::DropTablespace { oid } => draft.clear(Key::tablespace(oid).only()),
            Effect::RelationMap { tablespace, database, bytes } => {
                draft.put(Key::relation_map(tablespace, database), Value::Image(bytes));
            }
            Effect::TruncateSlru { slru, from, to } => {
                draft.clear(Key::slru_pages(slru, from..to));
            }
            Effect::TwoPhase { xid, state: Some(state) } => {
                draft.put(Key::two_phase(xid), Value::Image(state));
            }
            Effect::TwoPhase { xid, state: None } => draft.clear(Key::two_phase(xid).only()),
            Effect::ReplicationOrigin { origin, remote: Some(remote), backward } => {
                let before = self.origins.get(&origin).copied().unwrap_or(Lsn::INVALID);
                if backward || before < remote {
                    self.origins.insert(origin, remote);
                    let progress = OriginProgress { remote_lsn: remote };
                    let value = Value::Image(progress.encode());
                    draft.put(Key::replication_origin(origin), value);
                }
            }
            Effect::ReplicationOrigin { origin, remote: None, .. } => {
                self.origins.remove(&origin);
                draft.clear(Key::replication_origin(origin).only());
            }
            Effect::Finished { time, commit: true, .. } => draft.finished = Some(time),
            // An abort is no moment to go back to. The others touch a page, which does not exist
            // or is not kept: see `touched_by`.
            Effect::Finished { commit: false, .. }
            | Effect::Touch { .. }
            | Effect::TouchExisting { .. }
            | Effect::TouchCommitTimestamps { .. } => {}
        }
    }

    /// A truncation never makes a fork longer (md.c: `mdtruncate` in recovery).
    fn truncate(&mut self, fork: RelationFork, blocks: u32, draft: &mut Draft) {
        if self.sizes.get(fork).is_some_and(|size| size > blocks) {
            draft.clear(Key::pages_from(fork, blocks));
            self.set_size(fork, blocks, draft);
        }
    }

    fn drop_database(&mut self, tablespace: u32, database: u32, draft: &mut Draft) {
        draft.clear(Key::database_pages(tablespace, database));
        draft.clear(Key::database_sizes(tablespace, database));
        draft.clear(Key::database(tablespace, database).only());
        draft.clear(Key::relation_map(tablespace, database).only());
        self.sizes.forget_database(tablespace, database);
    }

    /// The copy is as the source was before this record, and nothing of what the folder held
    /// before remains (dbcommands.c: `dbase_redo`).
    fn copy_database(
        &mut self,
        source: Vec<(Key, Bytes)>,
        (tablespace, database): DatabaseFolder,
        draft: &mut Draft,
    ) {
        self.drop_database(tablespace, database, draft);
        draft.put(Key::database(tablespace, database), Value::Image(Bytes::new()));
        for (key, value) in source {
            draft.put(key.in_database(tablespace, database), Value::Image(value));
        }
    }

    fn track_control(
        &mut self,
        record: &Record,
        start: Lsn,
        end: Lsn,
        draft: &mut Draft,
    ) -> Result<(), IngestError> {
        let changed = self
            .control
            .state
            .apply(record, end)
            .map_err(|reason| IngestError::Damaged { at: start, reason })?;
        let shut_down = record.rmid == rmid::XLOG && record.kind() == CHECKPOINT_SHUTDOWN;
        if shut_down {
            self.control.shutdown_checkpoint_end = end;
        }
        if changed || shut_down {
            draft.put(Key::CONTROL, Value::Image(self.control.encode()));
        }
        Ok(())
    }
}

/// The fork whose size decides what an effect does.
fn fork_sized_by(effect: &Effect) -> Option<RelationFork> {
    match effect {
        Effect::Touch { target: Target::Page(page), .. }
        | Effect::TouchExisting { target: Target::Page(page) } => Some(page.fork),
        Effect::CreateFork(fork) | Effect::TruncateFork { fork, .. } => Some(*fork),
        _ => None,
    }
}

/// The number of blocks that the value of a fork size says.
pub(crate) fn fork_blocks(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_le_bytes)
}
