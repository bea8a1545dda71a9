//! What a record does, before any page is looked at: the list that ingest follows in order.

use bytes::Bytes;

use crate::{
    BlockRef, Fork, Lsn, PageKey, Record, RedoError, Relation, RelationFork, Slru, Target, Version,
    redo::{self, slru},
    rmgr::{
        clog::Clog,
        commit_ts::CommitTs,
        database::Database,
        heap::Heap,
        heap2::Heap2,
        multixact::MultiXact,
        relmap::RelmapUpdate,
        replication_origin::ReplicationOrigin,
        storage::{Storage, Truncate},
        tablespace::Tablespace,
        transaction::{Finished, Transaction},
        xlog,
    },
    rmid, visibility_map,
};

/// One thing that a record does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The record changes this page, which exists from now on (its fork too, and zeros between the fork's end and it).
    Touch {
        /// The page.
        target: Target,
        /// Redo does not need the page as it was: it is made anew, or a full-page image takes its place.
        will_init: bool,
    },
    /// Like `Touch`, but nothing happens where the page does not exist.
    TouchExisting {
        /// The page.
        target: Target,
    },
    /// Like `Touch` of this page of [`Slru::CommitTs`], but only while `track_commit_timestamp` is on in the cluster's control state.
    TouchCommitTimestamps {
        /// The page.
        page: u32,
    },
    /// The fork exists from now on, empty if it was not there.
    CreateFork(RelationFork),
    /// Where the fork is longer, it is cut to so many blocks.
    TruncateFork {
        /// The fork.
        fork: RelationFork,
        /// The blocks that stay.
        blocks: u32,
    },
    /// All forks of the relation go.
    DropRelation(Relation),
    /// An empty database exists from now on in this tablespace.
    CreateDatabase {
        /// The tablespace.
        tablespace: u32,
        /// The database.
        database: u32,
    },
    /// A database takes over all files of another as they are now; what it had before goes.
    CopyDatabase {
        /// Tablespace and database that are copied.
        from: (u32, u32),
        /// Tablespace and database that come into being.
        to: (u32, u32),
    },
    /// All that the database has in this tablespace goes.
    DropDatabase {
        /// The tablespace.
        tablespace: u32,
        /// The database.
        database: u32,
    },
    /// A tablespace exists from now on.
    CreateTablespace {
        /// The tablespace.
        oid: u32,
        /// Where the user put it.
        location: String,
    },
    /// A tablespace goes.
    DropTablespace {
        /// The tablespace.
        oid: u32,
    },
    /// The file `pg_filenode.map` of a database, or the shared one, has new contents.
    RelationMap {
        /// The database's tablespace.
        tablespace: u32,
        /// The database; 0 for the shared map.
        database: u32,
        /// The whole file.
        bytes: Bytes,
    },
    /// Pages `from` to before `to` of an SLRU go.
    TruncateSlru {
        /// The SLRU.
        slru: Slru,
        /// The first page that goes.
        from: u32,
        /// The first page after `from` that stays.
        to: u32,
    },
    /// A transaction was prepared, or a prepared one has ended.
    TwoPhase {
        /// The transaction.
        xid: u32,
        /// The file in `pg_twophase`, with its checksum; `None`: it goes.
        state: Option<Bytes>,
    },
    /// A replication origin has advanced.
    ReplicationOrigin {
        /// The origin.
        origin: u16,
        /// How far it was replicated; `None`: it is dropped.
        remote: Option<Lsn>,
        /// Whether it may go back; else only a later position counts.
        backward: bool,
    },
    /// A transaction has ended.
    Finished {
        /// When, in microseconds since 2000.
        time: i64,
        /// The transaction; for a prepared one, the one that was prepared.
        xid: u32,
        /// Whether it committed.
        commit: bool,
    },
}

/// All effects of a record, in the order in which they happen.
///
/// A kind without redo, which is an extension's, is refused by name and never skipped: not even where all its pages come as
/// images, since its redo may change those.
pub fn effects(version: Version, record: &Record) -> Result<Vec<Effect>, RedoError> {
    let mut list = Vec::with_capacity(record.blocks.len() + 2);
    list_effects(version, record, &mut list)?;
    Ok(list)
}

/// As [`effects`], for one who reads many records: they are added to `list`, whose room serves again. After an error it has some of them.
pub fn list_effects(
    version: Version,
    record: &Record,
    list: &mut Vec<Effect>,
) -> Result<(), RedoError> {
    match version {
        Version::V15 => list_all(record, list),
    }
}

/// The references to all that the record changes, where its only effects are [`Effect::Touch`] of the pages that it names: so it is with
/// most. `None` for any other; [`effects`] says what it does.
pub fn named_pages<'r, 'a>(version: Version, record: &'r Record<'a>) -> Option<&'r [BlockRef<'a>]> {
    match version {
        Version::V15 => {
            changes_named_pages(record.rmid, record.info, record.main).then_some(&record.blocks)
        }
    }
}

/// Whether a record of this kind and data changes the pages that it names and nothing else.
pub(crate) fn changes_named_pages(rmid: u8, info: u8, main: &[u8]) -> bool {
    match rmid {
        rmid::HEAP => {
            Heap::parse(info, main).is_some_and(|parsed| !redo::heap::clears_visibility(parsed))
        }
        rmid::HEAP2 => {
            Heap2::parse(info, main).is_some_and(|parsed| !redo::heap2::clears_visibility(parsed))
        }
        rmid => redo::is_supported(rmid),
    }
}

fn list_all(record: &Record, list: &mut Vec<Effect>) -> Result<(), RedoError> {
    let malformed = || RedoError::malformed(record);
    match record.rmid {
        rmid::XLOG => {
            let kind = xlog::Kind::parse(record.info).ok_or_else(malformed)?;
            if kind == xlog::Kind::Images {
                // A block without an image, or with one for checks only, is not restored (xlog.c, `xlog_redo`).
                let restored = record.blocks.iter().filter(|block| block.has_image_to_apply());
                list.extend(restored.map(touch));
            }
            if record.kind() == xlog::kind::PARAMETER_CHANGE {
                let settings = xlog::changed_settings(record.main).ok_or_else(malformed)?;
                // commit_ts.c, `DeactivateCommitTs`: timestamps end where they are no longer taken.
                if !settings.track_commit_timestamp {
                    removed(Slru::CommitTs, std::iter::once(slru::COMMIT_TS.all()), list);
                }
            }
        }
        rmid::TRANSACTION => {
            let parsed = Transaction::parse(record.info, record.main).ok_or_else(malformed)?;
            transaction(record, parsed, list);
        }
        rmid::STORAGE => match Storage::parse(record.info, record.main).ok_or_else(malformed)? {
            Storage::Create(fork) => list.push(Effect::CreateFork(fork)),
            Storage::Truncate(truncate) => truncate_relation(truncate, list),
        },
        rmid::CLOG => match Clog::parse(record.info, record.main).ok_or_else(malformed)? {
            Clog::ZeroPage(page) => list.push(anew(Slru::Clog, page)),
            Clog::Truncate { cutoff, .. } => {
                removed(Slru::Clog, slru::CLOG.before(cutoff), list);
            }
        },
        rmid::COMMIT_TS => {
            match CommitTs::parse(record.info, record.main).ok_or_else(malformed)? {
                CommitTs::ZeroPage(page) => list.push(anew(Slru::CommitTs, page)),
                CommitTs::Truncate { cutoff, .. } => {
                    removed(Slru::CommitTs, slru::COMMIT_TS.before(cutoff), list);
                }
            }
        }
        rmid::MULTIXACT => {
            let parsed = MultiXact::parse(record.info, record.main).ok_or_else(malformed)?;
            multixact(parsed, list);
        }
        rmid::DATABASE => {
            database(Database::parse(record.info, record.main).ok_or_else(malformed)?, list);
        }
        rmid::TABLESPACE => {
            let parsed = Tablespace::parse(record.info, record.main).ok_or_else(malformed)?;
            list.push(match parsed {
                Tablespace::Create { oid, location } => {
                    let location = String::from_utf8_lossy(location).into_owned();
                    Effect::CreateTablespace { oid, location }
                }
                Tablespace::Drop { oid } => Effect::DropTablespace { oid },
            });
        }
        rmid::RELMAP => {
            let update = RelmapUpdate::parse(record.info, record.main).ok_or_else(malformed)?;
            let (tablespace, database) = (update.tablespace, update.database);
            let bytes = Bytes::copy_from_slice(update.bytes);
            list.push(Effect::RelationMap { tablespace, database, bytes });
        }
        rmid::REPLICATION_ORIGIN => {
            let parsed =
                ReplicationOrigin::parse(record.info, record.main).ok_or_else(malformed)?;
            let (origin, remote, backward) = match parsed {
                ReplicationOrigin::Set { origin, remote, force } => (origin, Some(remote), force),
                ReplicationOrigin::Drop { origin } => (origin, None, true),
            };
            list.push(Effect::ReplicationOrigin { origin, remote, backward });
        }
        rmid::HEAP => {
            let parsed = Heap::parse(record.info, record.main).ok_or_else(malformed)?;
            list.extend(record.blocks.iter().map(touch));
            let cleared = redo::heap::cleared(record, parsed);
            cleared.for_each(|(page, _)| clear_visibility(page, list));
        }
        rmid::HEAP2 => {
            let parsed = Heap2::parse(record.info, record.main).ok_or_else(malformed)?;
            list.extend(record.blocks.iter().map(touch));
            let cleared = redo::heap2::cleared(record, parsed);
            cleared.into_iter().for_each(|(page, _)| clear_visibility(page, list));
        }
        // Standby's records concern a standby's locks and snapshots; LogicalMessage's only who decodes the WAL.
        rmid::STANDBY | rmid::LOGICAL_MESSAGE => {}
        rmid if redo::is_supported(rmid) => list.extend(record.blocks.iter().map(touch)),
        _ => return Err(RedoError::unsupported(record)),
    }
    Ok(())
}

fn touch(block: &BlockRef) -> Effect {
    Effect::Touch { target: Target::Page(block.key), will_init: block.is_made_anew() }
}

fn anew(slru: Slru, page: u32) -> Effect {
    Effect::Touch { target: Target::Slru(slru, page), will_init: true }
}

fn slru_touch(slru: Slru, page: u32) -> Effect {
    Effect::Touch { target: Target::Slru(slru, page), will_init: false }
}

fn removed(slru: Slru, ranges: impl Iterator<Item = std::ops::Range<u32>>, list: &mut Vec<Effect>) {
    let effect = |range: std::ops::Range<u32>| Effect::TruncateSlru {
        slru,
        from: range.start,
        to: range.end,
    };
    list.extend(ranges.map(effect));
}

/// xact.c, `xact_redo_commit`, `xact_redo_abort`; twophase.c, `PrepareRedoAdd`.
fn transaction(record: &Record, parsed: Transaction<'_>, list: &mut Vec<Effect>) {
    let advanced = |remote: Lsn| {
        let origin = record.origin?;
        Some(Effect::ReplicationOrigin { origin, remote: Some(remote), backward: false })
    };
    match parsed {
        Transaction::Finished(finished) => {
            let xid = finished.prepared_xid.unwrap_or(record.xid);
            status_pages(xid, &finished, list);
            list.extend(finished.origin.and_then(|(remote, _)| advanced(remote)));
            list.extend(finished.relations.iter().map(Effect::DropRelation));
            if finished.prepared_xid.is_some() {
                list.push(Effect::TwoPhase { xid, state: None });
            }
            let (time, commit) = (finished.time, finished.committed);
            list.push(Effect::Finished { time, xid, commit });
        }
        Transaction::Prepared(prepared) => {
            let mut state = Vec::with_capacity(record.main.len() + 4);
            state.extend_from_slice(record.main);
            state.extend_from_slice(&crc32c::crc32c(record.main).to_le_bytes());
            list.push(Effect::TwoPhase { xid: prepared.xid, state: Some(state.into()) });
            list.extend(advanced(prepared.origin_lsn));
        }
        Transaction::Transient => {}
    }
}

/// The pages of `pg_xact`, and on commit of `pg_commit_ts`, that hold these transactions.
fn status_pages(xid: u32, finished: &Finished<'_>, list: &mut Vec<Effect>) {
    let xids = || std::iter::once(xid).chain(finished.subtransactions.iter());
    list.extend(pages(xids(), slru::CLOG).map(|page| slru_touch(Slru::Clog, page)));
    if finished.committed {
        let stamped = pages(xids(), slru::COMMIT_TS);
        list.extend(stamped.map(|page| Effect::TouchCommitTimestamps { page }));
    }
}

/// Each page once: subtransactions and members come in rising order, so that those of a page stand together.
fn pages(numbers: impl Iterator<Item = u32>, area: slru::Area) -> impl Iterator<Item = u32> {
    let mut last = None;
    numbers
        .map(move |number| area.page(number))
        .filter(move |page| last.replace(*page) != Some(*page))
}

/// storage.c, `smgr_redo`; visibilitymap.c, `visibilitymap_prepare_truncate`.
fn truncate_relation(truncate: Truncate, list: &mut Vec<Effect>) {
    let main = truncate.relation.fork(Fork::Main);
    list.push(Effect::CreateFork(main));
    if truncate.main {
        list.push(Effect::TruncateFork { fork: main, blocks: truncate.blocks });
    }
    if truncate.free_space_map {
        // Its tree cannot be cut without being rebuilt; none at all is right, a stale one is not.
        let fork = truncate.relation.fork(Fork::FreeSpaceMap);
        list.push(Effect::TruncateFork { fork, blocks: 0 });
    }
    if truncate.visibility_map {
        let fork = truncate.relation.fork(Fork::VisibilityMap);
        let place = visibility_map::Place::of(truncate.blocks);
        let blocks = if place.is_first_of_page() {
            place.block
        } else {
            list.push(Effect::TouchExisting { target: Target::Page(fork.block(place.block)) });
            place.block + 1
        };
        list.push(Effect::TruncateFork { fork, blocks });
    }
}

/// multixact.c, `multixact_redo`, `RecordNewMultiXact`.
fn multixact(parsed: MultiXact<'_>, list: &mut Vec<Effect>) {
    match parsed {
        MultiXact::ZeroOffsetsPage(page) => list.push(anew(Slru::MultiXactOffsets, page)),
        MultiXact::ZeroMembersPage(page) => list.push(anew(Slru::MultiXactMembers, page)),
        MultiXact::Create(create) => {
            let ids = [create.id, slru::next_multixact(create.id)];
            let offsets = pages(ids.into_iter(), slru::MULTIXACT_OFFSETS);
            list.extend(offsets.map(|page| slru_touch(Slru::MultiXactOffsets, page)));
            let members = (0..create.len()).map(|index| create.first_member.wrapping_add(index));
            let members = pages(members, slru::MULTIXACT_MEMBERS);
            list.extend(members.map(|page| slru_touch(Slru::MultiXactMembers, page)));
        }
        MultiXact::Truncate(truncate) => {
            let members = slru::members_between(truncate.start_members, truncate.end_members);
            removed(Slru::MultiXactMembers, members, list);
            let last = slru::previous_multixact(truncate.end_offsets);
            let cutoff = slru::MULTIXACT_OFFSETS.page(last);
            let offsets = slru::MULTIXACT_OFFSETS.before(cutoff);
            removed(Slru::MultiXactOffsets, offsets, list);
        }
    }
}

/// dbcommands.c, `dbase_redo`.
fn database(parsed: Database<'_>, list: &mut Vec<Effect>) {
    match parsed {
        Database::Copy { database, tablespace, from_database, from_tablespace } => {
            let from = (from_tablespace, from_database);
            list.push(Effect::CopyDatabase { from, to: (tablespace, database) });
        }
        Database::Create { database, tablespace } => {
            list.push(Effect::CreateDatabase { tablespace, database });
        }
        Database::Drop { database, tablespaces } => {
            let dropped = |tablespace| Effect::DropDatabase { tablespace, database };
            list.extend(tablespaces.iter().map(dropped));
        }
    }
}

/// Touches the visibility map's page of a heap page, once: the record changes it without naming it.
fn clear_visibility(heap: PageKey, list: &mut Vec<Effect>) {
    let target = Target::Page(visibility_map::page_of(heap));
    let effect = Effect::Touch { target, will_init: false };
    if !list.contains(&effect) {
        list.push(effect);
    }
}

#[cfg(test)]
mod tests;
