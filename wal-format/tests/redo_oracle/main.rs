//! Redo, proven against Postgres: with `wal_consistency_checking` a record carries each page as it is afterwards.
//! Pages redone here must equal those images, and at the end the files of the stopped server, but for what Postgres itself masks.

mod files;
mod masks;
mod postgres;
mod replay;
mod workload;

use std::fs;

use anyhow::Result;
use files::State;
use postgres::Cluster;
use replay::Replay;
use wal_format::{ControlFile, Fork, Lsn, Page, Target, rmid};

/// WAL with everything in it that a short run can make, between two clean stops.
struct Run {
    cluster: Cluster,
    before: std::path::PathBuf,
    start: Lsn,
    last: Lsn,
}

impl Run {
    fn make() -> Result<Run> {
        let mut cluster = Cluster::create(workload::SETTINGS)?;
        cluster.advance_to_segment_ends()?;
        let start = checkpoint(&cluster)?;
        let before = cluster.data().with_file_name("before");
        copy(&cluster.data(), &before)?;
        cluster.start()?;
        workload::run(&cluster)?;
        cluster.stop()?;
        let last = checkpoint(&cluster)?;
        Ok(Run { cluster, before, start, last })
    }

    fn replay(&self) -> Result<Replay> {
        let state = State::load(&self.before)?;
        let wal = self.cluster.data().join("pg_wal");
        Replay::run(state, &wal, self.start, self.last)
    }
}

/// Where the last checkpoint's record begins.
fn checkpoint(cluster: &Cluster) -> Result<Lsn> {
    let bytes = fs::read(cluster.data().join("global/pg_control"))?;
    Ok(ControlFile::decode(&bytes)?.checkpoint)
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() && entry.file_name() != "pg_wal" => copy(&entry.path(), &target)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), target)?),
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn redone_pages_are_those_of_postgres() -> Result<()> {
    let run = Run::make()?;
    let replay = run.replay()?;
    println!("{}", replay.table());
    println!("{} records", replay.records);
    for told in &replay.told {
        println!("{told}");
    }
    assert_eq!(replay.mismatches(), 0, "pages differ from their consistency images");

    let differences = compare_with_files(&replay, &State::load(&run.cluster.data())?);
    for difference in differences.iter().take(40) {
        println!("{difference}");
    }
    assert!(differences.is_empty(), "{} differences from the server's files", differences.len());

    // The comparison must be able to fail: of each kind some spoiled records are noticed. But the payload of a VISIBLE record
    // is the visibility map's bits, which the masks hide; they are compared with the files.
    for (name, tally) in &replay.tallies {
        let can_fail = tally.tried > 0 && name != "Heap2/VISIBLE";
        assert!(!can_fail || tally.caught > 0, "nobody noticed a spoiled {name} record");
    }
    Ok(())
}

/// What the replayed state and the server's files disagree on.
fn compare_with_files(replay: &Replay, files: &State) -> Vec<String> {
    let mut differences = Vec::new();
    let ours = &replay.state;
    for (target, theirs) in &files.pages {
        if is_not_logged(files, target) {
            continue;
        }
        let Some(page) = ours.pages.get(target) else {
            if !is_empty(target, theirs) {
                differences.push(format!("{target} is missing"));
            }
            continue;
        };
        let (mut page, mut theirs) = (page.clone(), theirs.clone());
        if let Target::Page(key) = target {
            let Some(mask) = mask_of(&theirs, key.fork.fork) else { continue };
            masks::mask(mask, key.block, &mut page);
            masks::mask(mask, key.block, &mut theirs);
        }
        let by = replay.changed_by.get(target);
        if page != theirs && !lost_by_postgres(target, by.copied()) {
            differences
                .push(format!("{target} (last by {by:?}): {}", replay::describe(&page, &theirs)));
        }
    }
    let mut more: Vec<_> =
        ours.pages.keys().filter(|page| !files.pages.contains_key(page)).collect();
    more.sort_by_key(|page| page.to_string());
    differences.extend(more.iter().map(|page| format!("{page} should be gone")));
    if ours.two_phase != files.two_phase {
        differences.push("two-phase files differ".to_owned());
    }
    if ours.relation_maps != files.relation_maps {
        differences.push("relation maps differ".to_owned());
    }
    differences
}

/// The free space map, and the main fork of an unlogged relation.
fn is_not_logged(files: &State, target: &Target) -> bool {
    let Target::Page(key) = target else { return false };
    let init = key.fork.relation.fork(Fork::Init);
    key.fork.fork == Fork::FreeSpaceMap
        || key.fork.fork != Fork::Init && files.forks.contains(&init)
}

/// Whether nothing is lost where the page does not exist: it is new, or a visibility map's without a bit.
fn is_empty(target: &Target, page: &Page) -> bool {
    let is_map = matches!(target, Target::Page(key) if key.fork.fork == Fork::VisibilityMap);
    page.is_zero() || is_map && page.bytes()[24..].iter().all(|byte| *byte == 0)
}

/// `CREATE DATABASE … STRATEGY wal_log` logs the visibility map's pages as if they had a hole (bufmgr.c,
/// `RelationCopyStorageUsingBuffer`), which is all of them: the WAL has no bit of theirs, and a standby none either.
fn lost_by_postgres(target: &Target, by: Option<u8>) -> bool {
    let is_map = matches!(target, Target::Page(key) if key.fork.fork == Fork::VisibilityMap);
    is_map && by == Some(rmid::XLOG)
}

/// The resource manager whose mask fits the page; `None` for pages that the server changes without WAL:
/// sequences run ahead of it, SP-GiST's meta page remembers where there was room.
fn mask_of(page: &Page, fork: Fork) -> Option<u8> {
    /// What tells the mask of a visibility map, of which nothing but the LSN may differ.
    const EXACT: u8 = rmid::LOGICAL_MESSAGE;
    let Ok(bounds) = page.bounds() else { return Some(EXACT) };
    let special = &page.bytes()[bounds.special..];
    match (fork, special.len()) {
        (Fork::VisibilityMap, _) => Some(EXACT),
        (_, 0) => Some(rmid::HEAP),
        (_, 8) if special[..4] == [0x17, 0x17, 0, 0] => None,
        (_, 8) => Some(match u16::from_le_bytes([special[6], special[7]]) {
            0xFF82 if special[0] & 1 != 0 => return None,
            0xFF82 => rmid::SPGIST,
            0xF091..=0xF093 => rmid::BRIN,
            // bloom's pages, which are Generic's.
            0xFF83 => rmid::GENERIC,
            _ => rmid::GIN,
        }),
        (_, 16) => Some(match u16::from_le_bytes([special[14], special[15]]) {
            0xFF80 => rmid::HASH,
            0xFF81 => rmid::GIST,
            _ => rmid::BTREE,
        }),
        _ => Some(rmid::GENERIC),
    }
}
