//! Ingest: what a WAL record does to a timeline's keys. Pure: what must be read first is asked for
//! by [`Needs`], and handed back.
//!
//! Invariants:
//! - A fork's size is above every block that has a value; a page beyond the size has none.
//! - The next transaction's id that is stored is above that of every record, and exact where a cluster was
//!   shut down or keeps commit timestamps.
//! - Whatever was cut off or dropped stays gone: truncations, drops, and the gap that an extension
//!   leaves are ranges, below which nothing older is seen.
//! - A record that is not understood is an error with its name and position. It is never skipped.

mod sizes;

use std::collections::HashMap;

use bytes::Bytes;
use wal_format::{
    BlockRef, Effect, Fork, LentRecord, Lsn, Outline, Page, Record, RedoError, RelationFork, Slru,
    Target, Version, WalError, kept_record, list_effects, redo, rmid,
};

use self::sizes::ForkSizes;
use crate::{
    change::{Changes, Place, Value},
    control::{Control, xid_ahead},
    key::Key,
    replication_origin::OriginProgress,
};

/// `XLOG_CHECKPOINT_SHUTDOWN` (pg_control.h).
const CHECKPOINT_SHUTDOWN: u8 = 0x00;

/// A record of so many bytes is kept once for all its pages.
const SHARED_RECORD_BYTES: usize = 1 << 10;

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
    /// Ingest panicked: what it applied last may be there in part.
    #[error(
        "ingest stopped behind {at} by a fault of its own: {reason}; what was not stored yet is taken from the \
         safekeepers again when the pageserver is restarted"
    )]
    Panicked {
        /// The last record's end.
        at: Lsn,
        /// What the panic said.
        reason: String,
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

/// What must be known before a record is carried out.
#[derive(Debug, Default)]
pub struct Needs {
    /// Forks whose size was not known: to be told by [`Ingest::learn_size`].
    pub unknown_sizes: Vec<RelationFork>,
    /// Databases that the record copies, in its order: all keys of each are to be handed to
    /// [`Ingest::take_with`].
    pub copied_databases: Vec<DatabaseFolder>,
}

/// All keys of each database that a record copies.
pub type Copies = Vec<Vec<(Key, Bytes)>>;

/// The state that ingest keeps of one timeline.
#[derive(Debug)]
pub struct Ingest {
    version: Version,
    control: Control,
    /// The next transaction's id as it is stored.
    stored_next_xid: u64,
    sizes: ForkSizes,
    origins: HashMap<u16, Lsn>,
    /// Of one record, as is the outline; their room serves the next.
    effects: Vec<Effect>,
    outline: Outline,
}

impl Ingest {
    /// Ingest that goes on where the control value and the origins' progress are these.
    pub(crate) fn new(
        version: Version,
        control: Control,
        origins: impl IntoIterator<Item = (u16, OriginProgress)>,
    ) -> Ingest {
        let origins = origins.into_iter().map(|(origin, progress)| (origin, progress.remote_lsn));
        Ingest {
            version,
            stored_next_xid: control.state.next_xid,
            control,
            sizes: ForkSizes::default(),
            origins: origins.collect(),
            effects: Vec::new(),
            outline: Outline::default(),
        }
    }

    /// Tells a fork's size as the timeline has it; `None` where there is no such fork.
    pub fn learn_size(&mut self, fork: RelationFork, blocks: Option<u32>) {
        self.sizes.set(fork, blocks);
    }

    /// Adds what the record does to `changes`, or says what must be known first, and adds nothing:
    /// then it is taken by [`Ingest::take_with`].
    pub fn take(
        &mut self,
        lent: LentRecord<'_>,
        changes: &mut Changes,
    ) -> Result<Option<Needs>, IngestError> {
        if self.outline.take(self.version, lent.bytes) {
            match self.outline.committed {
                None => return Ok(self.take_outline(lent, changes)),
                Some(time) if !self.control.state.settings.track_commit_timestamp => {
                    self.take_commit(lent, time, changes);
                    return Ok(None);
                }
                Some(_) => {}
            }
        }
        self.take_with(lent, Copies::new(), changes)
    }

    /// As [`Ingest::take`], with `copies` of the databases asked for, each with its keys of the kinds
    /// page, fork size and relation map with their values before this record.
    pub fn take_with(
        &mut self,
        lent: LentRecord<'_>,
        copies: Copies,
        changes: &mut Changes,
    ) -> Result<Option<Needs>, IngestError> {
        let LentRecord { start, end, bytes } = lent;
        let record = Record::parse(self.version, bytes)
            .map_err(|reason| IngestError::Damaged { at: start, reason })?;
        let mut taken = Taken { record: &record, start, end, bytes, kept: None };
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        list_effects(self.version, &record, &mut effects).map_err(|reason| IngestError::Redo {
            at: start,
            record: record.name(),
            reason,
        })?;
        let needs = self.needs(&effects, copies.len());
        if needs.is_none() {
            self.carry_out(&mut taken, effects.drain(..), copies, changes)?;
        }
        self.effects = effects;
        Ok(needs)
    }

    /// As [`Ingest::take`], for a record that only changes pages that it names: most do.
    fn take_outline(&mut self, lent: LentRecord<'_>, changes: &mut Changes) -> Option<Needs> {
        let mut extends = false;
        for page in &self.outline.pages {
            match self.sizes.known(page.key.fork) {
                Some(size) => extends |= size.is_none_or(|blocks| page.key.block >= blocks),
                None => {
                    let forks = self.outline.pages.iter().map(|page| page.key.fork);
                    let unknown_sizes = self.unknown_sizes(forks);
                    return Some(Needs { unknown_sizes, ..Needs::default() });
                }
            }
        }
        let mut shared = None;
        for number in 0..self.outline.pages.len() {
            let page = self.outline.pages[number];
            if extends {
                self.extend_to(Target::Page(page.key), changes);
            }
            // The pages of a large record share it.
            let place = if lent.bytes.len() < SHARED_RECORD_BYTES {
                changes.keep_record(&self.outline.kept_for(&page, lent.bytes))
            } else {
                let keep = || changes.keep_record(&kept_record(lent.bytes));
                *shared.get_or_insert_with(keep)
            };
            changes.put_record(Key::page(page.key), page.will_init, place);
        }
        self.close_outline(lent, None, changes);
        self.sizes.trim();
        None
    }

    /// As [`Ingest::take`], for a commit of which nothing is kept but its transaction's status.
    fn take_commit(&mut self, lent: LentRecord<'_>, time: i64, changes: &mut Changes) {
        let place = changes.keep(&self.outline.kept_commit());
        changes.put_record(Key::target(self.outline.status_page()), false, place);
        self.close_outline(lent, Some(time), changes);
    }

    fn close_outline(
        &mut self,
        lent: LentRecord<'_>,
        finished: Option<i64>,
        changes: &mut Changes,
    ) {
        if self.control.state.apply_outline(&self.outline) {
            self.put_next_xid(false, changes);
        }
        changes.close(lent.start, lent.end, finished);
    }

    fn needs(&self, effects: &[Effect], copies: usize) -> Option<Needs> {
        let unknown_sizes = self.unknown_sizes(effects.iter().filter_map(fork_sized_by));
        let copied = effects.iter().filter_map(|effect| match effect {
            Effect::CopyDatabase { from, .. } => Some(*from),
            _ => None,
        });
        let needs = Needs { unknown_sizes, copied_databases: copied.collect() };
        let is_known = needs.unknown_sizes.is_empty() && needs.copied_databases.len() == copies;
        (!is_known).then_some(needs)
    }

    /// Those of some forks whose size is not known, each once.
    fn unknown_sizes(&self, forks: impl Iterator<Item = RelationFork>) -> Vec<RelationFork> {
        let mut unknown = Vec::new();
        for fork in forks {
            if !self.sizes.is_known(fork) && !unknown.contains(&fork) {
                unknown.push(fork);
            }
        }
        unknown
    }

    fn carry_out(
        &mut self,
        taken: &mut Taken<'_, '_>,
        effects: impl Iterator<Item = Effect>,
        copies: Copies,
        changes: &mut Changes,
    ) -> Result<(), IngestError> {
        let mut copies = copies.into_iter();
        let mut finished = None;
        for effect in effects {
            if let Effect::Finished { time, commit: true, .. } = effect {
                finished = Some(time);
            }
            match self.touched_by(&effect) {
                Some((target, will_init)) => {
                    self.extend_to(target, changes);
                    let of_target = |block: &&BlockRef| Target::Page(block.key) == target;
                    let mut blocks = taken.record.blocks.iter().filter(of_target);
                    let carries_image = blocks.any(BlockRef::has_image_to_apply);
                    self.put_touched(taken, target, carries_image, will_init, changes)?;
                }
                None => self.change_state(effect, &mut copies, changes),
            }
        }
        self.close(taken, finished, changes)
    }

    fn close(
        &mut self,
        taken: &Taken<'_, '_>,
        finished: Option<i64>,
        changes: &mut Changes,
    ) -> Result<(), IngestError> {
        self.track_control(taken, changes)?;
        self.sizes.trim();
        changes.close(taken.start, taken.end, finished);
        Ok(())
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

    /// What the record makes of a page. One that it carries as an image is stored as that image: a
    /// record of 32 images would otherwise be stored 32 times.
    fn put_touched(
        &self,
        taken: &mut Taken<'_, '_>,
        target: Target,
        carries_image: bool,
        will_init: bool,
        changes: &mut Changes,
    ) -> Result<(), IngestError> {
        if !carries_image {
            let place = taken.kept(changes);
            changes.put_record(Key::target(target), will_init, place);
            return Ok(());
        }
        let Taken { record, start, end, .. } = *taken;
        let mut page = Page::zeroed();
        redo(self.version, record, end, target, &mut page).map_err(|reason| IngestError::Redo {
            at: start,
            record: record.name(),
            reason,
        })?;
        changes.put_image(Key::target(target), page.into_bytes());
        Ok(())
    }

    /// A page beyond its fork's end extends the fork; what lies between is zeros, whatever was
    /// there before.
    fn extend_to(&mut self, target: Target, changes: &mut Changes) {
        let Target::Page(page) = target else { return };
        let size = self.sizes.get(page.fork);
        let blocks = size.unwrap_or(0);
        if page.block < blocks {
            return;
        }
        if page.block > blocks {
            changes.clear(Key::pages(page.fork, blocks..page.block));
        }
        self.set_size(page.fork, page.block + 1, changes);
    }

    fn set_size(&mut self, fork: RelationFork, blocks: u32, changes: &mut Changes) {
        self.sizes.set(fork, Some(blocks));
        changes.put_small(Key::fork_size(fork), &blocks.to_le_bytes());
    }

    fn change_state(
        &mut self,
        effect: Effect,
        copies: &mut impl Iterator<Item = Vec<(Key, Bytes)>>,
        changes: &mut Changes,
    ) {
        match effect {
            Effect::CreateFork(fork) => {
                if self.sizes.get(fork).is_none() {
                    self.set_size(fork, 0, changes);
                }
            }
            Effect::TruncateFork { fork, blocks } => self.truncate(fork, blocks, changes),
            Effect::DropRelation(relation) => {
                changes.clear(Key::relation_pages(relation));
                changes.clear(Key::relation_sizes(relation));
                for fork in Fork::ALL {
                    self.sizes.set(relation.fork(fork), None);
                }
            }
            Effect::CreateDatabase { tablespace, database } => {
                changes.put(Key::database(tablespace, database), Value::Image(Bytes::new()));
            }
            Effect::CopyDatabase { to, .. } => {
                self.copy_database(copies.next().unwrap_or_default(), to, changes);
            }
            Effect::DropDatabase { tablespace, database } => {
                self.drop_database(tablespace, database, changes);
            }
            Effect::CreateTablespace { oid, location } => {
                changes.put(Key::tablespace(oid), Value::Image(Bytes::from(location)));
            }
            Effect::DropTablespace { oid } => changes.clear(Key::tablespace(oid).only()),
            Effect::RelationMap { tablespace, database, bytes } => {
                changes.put(Key::relation_map(tablespace, database), Value::Image(bytes));
            }
            Effect::TruncateSlru { slru, from, to } => {
                changes.clear(Key::slru_pages(slru, from..to));
            }
            Effect::TwoPhase { xid, state: Some(state) } => {
                changes.put(Key::two_phase(xid), Value::Image(state));
            }
            Effect::TwoPhase { xid, state: None } => changes.clear(Key::two_phase(xid).only()),
            Effect::ReplicationOrigin { origin, remote: Some(remote), backward } => {
                let before = self.origins.get(&origin).copied().unwrap_or(Lsn::INVALID);
                if backward || before < remote {
                    self.origins.insert(origin, remote);
                    let progress = OriginProgress { remote_lsn: remote };
                    let value = Value::Image(progress.encode());
                    changes.put(Key::replication_origin(origin), value);
                }
            }
            Effect::ReplicationOrigin { origin, remote: None, .. } => {
                self.origins.remove(&origin);
                changes.clear(Key::replication_origin(origin).only());
            }
            // Only a commit is a moment to go back to: see `carry_out`. The others touch a page,
            // which does not exist or is not kept: see `touched_by`.
            Effect::Finished { .. }
            | Effect::Touch { .. }
            | Effect::TouchExisting { .. }
            | Effect::TouchCommitTimestamps { .. } => {}
        }
    }

    /// A truncation never makes a fork longer (md.c: `mdtruncate` in recovery).
    fn truncate(&mut self, fork: RelationFork, blocks: u32, changes: &mut Changes) {
        if self.sizes.get(fork).is_some_and(|size| size > blocks) {
            changes.clear(Key::pages_from(fork, blocks));
            self.set_size(fork, blocks, changes);
        }
    }

    fn drop_database(&mut self, tablespace: u32, database: u32, changes: &mut Changes) {
        changes.clear(Key::database_pages(tablespace, database));
        changes.clear(Key::database_sizes(tablespace, database));
        changes.clear(Key::database(tablespace, database).only());
        changes.clear(Key::relation_map(tablespace, database).only());
        self.sizes.forget_database(tablespace, database);
    }

    /// The copy is as the source was before this record, and nothing of what the folder held
    /// before remains (dbcommands.c: `dbase_redo`).
    fn copy_database(
        &mut self,
        source: Vec<(Key, Bytes)>,
        (tablespace, database): DatabaseFolder,
        changes: &mut Changes,
    ) {
        self.drop_database(tablespace, database, changes);
        changes.put(Key::database(tablespace, database), Value::Image(Bytes::new()));
        for (key, value) in source {
            changes.put(key.in_database(tablespace, database), Value::Image(value));
        }
    }

    fn track_control(
        &mut self,
        taken: &Taken<'_, '_>,
        changes: &mut Changes,
    ) -> Result<(), IngestError> {
        let Taken { record, start, end, .. } = *taken;
        let others = self
            .control
            .state
            .apply(record, end)
            .map_err(|reason| IngestError::Damaged { at: start, reason })?;
        let shut_down = record.rmid == rmid::XLOG && record.kind() == CHECKPOINT_SHUTDOWN;
        if shut_down {
            self.control.shutdown_checkpoint_end = end;
        }
        if others || shut_down {
            changes.put(Key::CONTROL, Value::Image(self.control.encode()));
        }
        self.put_next_xid(shut_down, changes);
        Ok(())
    }

    /// Writes the next transaction's id where what is stored does not do: ahead, unless no transaction runs.
    #[inline]
    fn put_next_xid(&mut self, shut_down: bool, changes: &mut Changes) {
        let next = self.control.state.next_xid;
        // Postgres makes a page of commit timestamps when its first id is taken, which must not be left out.
        let is_exact = shut_down || self.control.state.settings.track_commit_timestamp;
        let is_stored =
            if is_exact { next == self.stored_next_xid } else { next <= self.stored_next_xid };
        if !is_stored {
            self.stored_next_xid = if is_exact { next } else { xid_ahead(next) };
            changes.put_small(Key::NEXT_XID, &self.stored_next_xid.to_le_bytes());
        }
    }
}

/// A record that is carried out.
struct Taken<'t, 'r> {
    record: &'t Record<'r>,
    start: Lsn,
    end: Lsn,
    bytes: &'r [u8],
    kept: Option<Place>,
}

impl Taken<'_, '_> {
    /// What is kept of the record, copied once.
    fn kept(&mut self, changes: &mut Changes) -> Place {
        *self.kept.get_or_insert_with(|| changes.keep_record(&kept_record(self.bytes)))
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
