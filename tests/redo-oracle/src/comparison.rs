//! What was replayed against the files of the stopped server: every page, and all else that WAL keeps.

use std::collections::HashMap;

use wal_format::{ControlFile, Fork, PAGE_HEADER_BYTES, Page, Target, rmid};

use crate::{
    counters,
    kind::Kind,
    masks,
    replay::{Item, Replay},
    state::State,
};

/// Compares all of it, and credits every kind of record with what it changed and is right.
pub fn compare(replay: &mut Replay, files: &State, control: &ControlFile) {
    for (target, theirs) in files.pages() {
        if !is_not_logged(files, &target) {
            compare_page(replay, target, theirs, control.has_page_checksums());
        }
    }
    let mut extra: Vec<Target> = replay
        .state
        .pages()
        .filter(|(target, _)| !is_not_logged(files, target) && files.page(target).is_none())
        .map(|(target, _)| target)
        .collect();
    extra.sort();
    for target in extra {
        replay.coverage.differs(|| format!("{target} should be gone"));
    }
    let state = std::mem::take(&mut replay.state);
    compare_map(replay, "pg_filenode.map of", &state.relation_maps, &files.relation_maps);
    compare_map(replay, "prepared transaction", &state.two_phase, &files.two_phase);
    compare_map(replay, "replication origin", &state.origins, &files.origins);
    let items: Vec<Item> = replay.touched.keys().copied().collect();
    for item in items {
        let agrees = match item {
            Item::Fork(fork) if fork.fork == Fork::FreeSpaceMap => continue,
            Item::Fork(fork) => state.forks.contains_key(&fork) == files.forks.contains_key(&fork),
            Item::Database(place) => {
                state.databases.contains(&place) == files.databases.contains(&place)
            }
            Item::Tablespace(oid) => {
                state.tablespaces.contains(&oid) == files.tablespaces.contains(&oid)
            }
            Item::Range(slru, from, to) => {
                let count = |of: &State| {
                    let inside =
                        |(area, page): &&(_, u32)| *area == slru && (from..to).contains(page);
                    of.slrus.keys().filter(inside).count()
                };
                count(&state) == count(files)
            }
            Item::RelationMap(place) => {
                state.relation_maps.get(&place) == files.relation_maps.get(&place)
            }
            Item::TwoPhase(xid) => state.two_phase.get(&xid) == files.two_phase.get(&xid),
            Item::Origin(origin) => state.origins.get(&origin) == files.origins.get(&origin),
            Item::Page(_) | Item::Counters | Item::Settings | Item::FullPageWrites => continue,
        };
        if agrees {
            replay.credit(item);
        } else {
            replay.coverage.differs(|| format!("{item:?} is not as in the server's files"));
        }
    }
    counters::compare_file(replay, control);
}

fn compare_page(replay: &mut Replay, target: Target, theirs: &Page, checksums: bool) {
    let Some(ours) = replay.state.page(&target) else {
        if !is_empty(&target, theirs) {
            replay.coverage.differs(|| format!("{target} is missing"));
        }
        return;
    };
    let (exact, mut ours, mut masked) = (ours.clone(), ours.clone(), theirs.clone());
    if let Target::Page(key) = target {
        if checksums {
            compare_checksum(replay, target, key.block, exact, theirs);
        }
        if !mask_both(key.fork.fork, key.block, &mut ours, &mut masked) {
            return;
        }
    }
    replay.coverage.blocks_compared += 1;
    let is_lost = replay.lost_maps.contains(&target) && is_part_of(&ours, &masked);
    if ours == masked || is_lost {
        replay.credit(Item::Page(target));
    } else {
        replay.coverage.differs(|| format!("{target}: {}", describe(&ours, &masked)));
    }
}

/// The file's checksum is what we compute for it; and where our page is the file's but for the checksum, which is set when a
/// page is served, ours is the file's to the last byte then.
fn compare_checksum(
    replay: &mut Replay,
    target: Target,
    block: u32,
    mut ours: Page,
    theirs: &Page,
) {
    let mut again = theirs.clone();
    again.set_checksum(block);
    if again != *theirs {
        replay.coverage.differs(|| format!("{target}: another checksum than the file's"));
    }
    ours.set_checksum(block);
    replay.coverage.checksums += u64::from(ours == *theirs);
}

fn compare_map<K: Copy + Eq + std::hash::Hash + std::fmt::Debug, V: PartialEq>(
    replay: &mut Replay,
    what: &str,
    ours: &HashMap<K, V>,
    theirs: &HashMap<K, V>,
) {
    let more = theirs.keys().filter(|key| !ours.contains_key(key));
    for key in ours.keys().chain(more) {
        if ours.get(key) != theirs.get(key) {
            replay.coverage.differs(|| format!("{what} {key:?} differs"));
        }
    }
}

impl Replay {
    /// The item is right: each kind that changed it since it was last compared gets the credit.
    pub(crate) fn credit(&mut self, item: Item) {
        let kinds = self.touched.remove(&item).unwrap_or_default();
        for kind in (0..u128::BITS as u8).filter(|bit| kinds >> bit & 1 == 1) {
            self.coverage.tally(Kind(kind)).states += 1;
        }
    }
}

/// The free space map, and the main fork of an unlogged relation.
fn is_not_logged(files: &State, target: &Target) -> bool {
    let Target::Page(key) = target else { return false };
    let init = key.fork.relation.fork(Fork::Init);
    key.fork.fork == Fork::FreeSpaceMap
        || key.fork.fork != Fork::Init && files.forks.contains_key(&init)
}

/// Whether nothing is lost where the page does not exist: it is new, or a visibility map's without a bit.
fn is_empty(target: &Target, page: &Page) -> bool {
    let is_map = matches!(target, Target::Page(key) if key.fork.fork == Fork::VisibilityMap);
    page.is_zero() || is_map && page.bytes()[PAGE_HEADER_BYTES..].iter().all(|byte| *byte == 0)
}

/// Whether the map has no bit that the other has not: less than all visible is safe.
fn is_part_of(ours: &Page, theirs: &Page) -> bool {
    let pairs = ours.bytes().iter().zip(theirs.bytes()).skip(PAGE_HEADER_BYTES);
    pairs.into_iter().all(|(ours, theirs)| ours & !theirs == 0)
}

/// Masks what may differ on both pages; false for pages that the server changes without WAL: sequences run ahead of it, SP-GiST's
/// meta page remembers where there was room.
fn mask_both(fork: Fork, block: u32, ours: &mut Page, theirs: &mut Page) -> bool {
    let Ok(bounds) = theirs.bounds() else {
        [ours, theirs].into_iter().for_each(masks::mask_lsn);
        return true;
    };
    let special = &theirs.bytes()[bounds.special..];
    let rmid = match (fork, special.len()) {
        (Fork::VisibilityMap, _) => {
            [ours, theirs].into_iter().for_each(masks::mask_lsn);
            return true;
        }
        (_, 0) => rmid::HEAP,
        (_, 8) if special[..4] == [0x17, 0x17, 0, 0] => return false,
        (_, 8) => match u16::from_le_bytes([special[6], special[7]]) {
            0xFF82 if special[0] & 1 != 0 => return false,
            0xFF82 => rmid::SPGIST,
            0xF091..=0xF093 => rmid::BRIN,
            // bloom's pages, which are Generic's.
            0xFF83 => rmid::GENERIC,
            _ => rmid::GIN,
        },
        (_, 16) => match u16::from_le_bytes([special[14], special[15]]) {
            0xFF80 => rmid::HASH,
            0xFF81 => rmid::GIST,
            _ => rmid::BTREE,
        },
        _ => rmid::GENERIC,
    };
    [ours, theirs].into_iter().for_each(|page| masks::mask(rmid, block, page));
    true
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
