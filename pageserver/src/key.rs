//! What a timeline's history is kept by: one key for each page and each piece of state that WAL
//! changes, in one order.
#![doc = include_str!("../../docs/formats/keys.md")]

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Range,
};

use wal_format::{Fork, Lsn, PageKey, Relation, RelationFork, Slru, Target};

/// Bytes of an encoded [`Key`].
pub const KEY_BYTES: usize = 18;

/// What a key names. The number is the first byte of the encoded key: the order of the kinds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum KeyKind {
    /// A relation's page: [`Target::Page`].
    Page = 1,
    /// A fork's length in blocks, u32 little-endian; present for as long as the fork exists.
    ForkSize = 2,
    /// An SLRU's page: [`Target::Slru`].
    Slru = 3,
    /// A database's folder in a tablespace.
    Database = 4,
    /// A database's `pg_filenode.map`, or the global one.
    RelationMap = 5,
    /// A tablespace; its value is the location.
    Tablespace = 6,
    /// A prepared transaction's state file.
    TwoPhase = 7,
    /// A replication origin's progress.
    ReplicationOrigin = 8,
    /// The counters of `pg_control` as WAL moves them: `wal_format::ControlState`.
    Control = 9,
    /// The template's own `pg_control`.
    ControlFile = 10,
    /// Where records begin and end, and when transactions committed:
    /// [`History`](crate::layer::history::History).
    History = 11,
}

impl KeyKind {
    /// All of them, by their numbers.
    pub const ALL: [KeyKind; 11] = [
        KeyKind::Page,
        KeyKind::ForkSize,
        KeyKind::Slru,
        KeyKind::Database,
        KeyKind::RelationMap,
        KeyKind::Tablespace,
        KeyKind::TwoPhase,
        KeyKind::ReplicationOrigin,
        KeyKind::Control,
        KeyKind::ControlFile,
        KeyKind::History,
    ];

    /// The kind of this number, where there is one.
    pub fn from_number(number: u8) -> Option<KeyKind> {
        KeyKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// All keys of this kind.
    pub fn all(self) -> Range<Key> {
        let first = Key { kind: self as u8, ..Key::MIN };
        first..Key { kind: self as u8 + 1, ..Key::MIN }
    }
}

/// One versioned thing of a timeline. Fields that a kind has no use for are 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    kind: u8,
    tablespace: u32,
    database: u32,
    relation: u32,
    fork: u8,
    block: u32,
}

impl Key {
    /// Below every key.
    pub const MIN: Key =
        Key { kind: 0, tablespace: 0, database: 0, relation: 0, fork: 0, block: 0 };
    /// Above every key.
    pub const MAX: Key = Key {
        kind: u8::MAX,
        tablespace: u32::MAX,
        database: u32::MAX,
        relation: u32::MAX,
        fork: u8::MAX,
        block: u32::MAX,
    };
    /// The counters of `pg_control`.
    pub const CONTROL: Key = Key { kind: KeyKind::Control as u8, ..Key::MIN };
    /// Of these, the next transaction's id, which changes most.
    pub const NEXT_XID: Key = Key { block: 1, ..Key::CONTROL };
    /// The template's own `pg_control`.
    pub const CONTROL_FILE: Key = Key { kind: KeyKind::ControlFile as u8, ..Key::MIN };

    /// A relation's page.
    pub fn page(page: PageKey) -> Key {
        Key { block: page.block, ..Key::of_fork(KeyKind::Page, page.fork) }
    }

    /// A fork's length.
    pub fn fork_size(fork: RelationFork) -> Key {
        Key::of_fork(KeyKind::ForkSize, fork)
    }

    /// An SLRU's page.
    pub fn slru(slru: Slru, page: u32) -> Key {
        Key { kind: KeyKind::Slru as u8, relation: slru as u32, block: page, ..Key::MIN }
    }

    /// The page or SLRU page that redo changes.
    pub fn target(target: Target) -> Key {
        match target {
            Target::Page(page) => Key::page(page),
            Target::Slru(slru, page) => Key::slru(slru, page),
        }
    }

    /// A database's folder in a tablespace.
    pub fn database(tablespace: u32, database: u32) -> Key {
        Key { kind: KeyKind::Database as u8, tablespace, database, ..Key::MIN }
    }

    /// A database's relation map; the global one is `(GLOBAL_TABLESPACE, 0)`.
    pub fn relation_map(tablespace: u32, database: u32) -> Key {
        Key { kind: KeyKind::RelationMap as u8, tablespace, database, ..Key::MIN }
    }

    /// A tablespace.
    pub fn tablespace(oid: u32) -> Key {
        Key { kind: KeyKind::Tablespace as u8, tablespace: oid, ..Key::MIN }
    }

    /// A prepared transaction.
    pub fn two_phase(xid: u32) -> Key {
        Key { kind: KeyKind::TwoPhase as u8, block: xid, ..Key::MIN }
    }

    /// A replication origin.
    pub fn replication_origin(origin: u16) -> Key {
        Key { kind: KeyKind::ReplicationOrigin as u8, block: u32::from(origin), ..Key::MIN }
    }

    /// A piece of history: the end of its last record, and the latest commit's time up to there
    /// since the beginning of the run of layers, in microseconds since 2000.
    pub fn history(end: Lsn, latest_commit: i64) -> Key {
        // The sign bit is turned over: the order of the numbers is the order of the times.
        let time = (latest_commit as u64) ^ (1 << 63);
        Key {
            kind: KeyKind::History as u8,
            tablespace: (end.0 >> 32) as u32,
            database: end.0 as u32,
            relation: (time >> 32) as u32,
            block: time as u32,
            ..Key::MIN
        }
    }

    /// The end of a piece of history, and the latest commit's time; `None` for other keys.
    pub fn as_history(self) -> Option<(Lsn, i64)> {
        let is_history = self.kind == KeyKind::History as u8;
        let joined = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let time = joined(self.relation, self.block) ^ (1 << 63);
        is_history.then(|| (Lsn(joined(self.tablespace, self.database)), time as i64))
    }

    /// The pages of a fork from `first` to its end.
    pub fn pages_from(fork: RelationFork, first: u32) -> Range<Key> {
        let pages = Key::of_fork(KeyKind::Page, fork);
        Key { block: first, ..pages }..Key { fork: pages.fork + 1, ..pages }
    }

    /// Some pages of a fork.
    pub fn pages(fork: RelationFork, blocks: Range<u32>) -> Range<Key> {
        Key::page(fork.block(blocks.start))..Key::page(fork.block(blocks.end))
    }

    /// Some pages of an SLRU.
    pub fn slru_pages(slru: Slru, pages: Range<u32>) -> Range<Key> {
        Key::slru(slru, pages.start)..Key::slru(slru, pages.end)
    }

    /// All pages of all forks of a relation.
    pub fn relation_pages(relation: Relation) -> Range<Key> {
        Key::of_relation(KeyKind::Page, relation)
    }

    /// The lengths of all forks of a relation.
    pub fn relation_sizes(relation: Relation) -> Range<Key> {
        Key::of_relation(KeyKind::ForkSize, relation)
    }

    /// All pages of a database's relations in one tablespace.
    pub fn database_pages(tablespace: u32, database: u32) -> Range<Key> {
        Key::of_database(KeyKind::Page, tablespace, database)
    }

    /// The lengths of all forks of a database's relations in one tablespace.
    pub fn database_sizes(tablespace: u32, database: u32) -> Range<Key> {
        Key::of_database(KeyKind::ForkSize, tablespace, database)
    }

    /// The same page, fork size or relation map, but of another database.
    pub fn in_database(self, tablespace: u32, database: u32) -> Key {
        Key { tablespace, database, ..self }
    }

    /// This key alone.
    pub fn only(self) -> Range<Key> {
        self..self.next()
    }

    /// The key that follows this one in the order.
    pub fn next(self) -> Key {
        let mut next = self;
        let carries =
            [&mut next.block, &mut next.relation, &mut next.database, &mut next.tablespace];
        let [block, relation, database, tablespace] = carries;
        let mut carry = step(block);
        if carry {
            (next.fork, carry) = next.fork.overflowing_add(1);
        }
        for part in [relation, database, tablespace] {
            carry = carry && step(part);
        }
        if carry {
            next.kind.checked_add(1).map_or(Key::MAX, |kind| Key { kind, ..next })
        } else {
            next
        }
    }

    /// The kind, where the number is a known one.
    pub fn kind(self) -> Option<KeyKind> {
        KeyKind::from_number(self.kind)
    }

    /// The tablespace's OID, 0 where the kind has none.
    pub fn tablespace_oid(self) -> u32 {
        self.tablespace
    }

    /// The database's OID, 0 where the kind has none.
    pub fn database_oid(self) -> u32 {
        self.database
    }

    /// The block, SLRU page, transaction or origin; 0 where the kind has none.
    pub fn number(self) -> u32 {
        self.block
    }

    /// The same key of another number.
    pub(crate) fn with_number(self, number: u32) -> Key {
        Key { block: number, ..self }
    }

    /// The fork, for a page's or a fork size's key.
    pub fn fork(self) -> Option<RelationFork> {
        let kind = self.kind()?;
        if !matches!(kind, KeyKind::Page | KeyKind::ForkSize) {
            return None;
        }
        let relation = Relation {
            tablespace: self.tablespace,
            database: self.database,
            number: self.relation,
        };
        Some(relation.fork(Fork::from_number(self.fork)?))
    }

    /// What redo changes under this key, where it changes anything.
    pub fn as_target(self) -> Option<Target> {
        match self.kind()? {
            KeyKind::Page => Some(Target::Page(self.fork()?.block(self.block))),
            KeyKind::Slru => {
                let slru = Slru::ALL.into_iter().find(|slru| *slru as u32 == self.relation)?;
                Some(Target::Slru(slru, self.block))
            }
            _ => None,
        }
    }

    /// The stored form, whose order as bytes is the keys' order.
    pub fn encode(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[0] = self.kind;
        bytes[1..5].copy_from_slice(&self.tablespace.to_be_bytes());
        bytes[5..9].copy_from_slice(&self.database.to_be_bytes());
        bytes[9..13].copy_from_slice(&self.relation.to_be_bytes());
        bytes[13] = self.fork;
        bytes[14..18].copy_from_slice(&self.block.to_be_bytes());
        bytes
    }

    /// The key of a stored form. Kinds of a later version decode too.
    pub fn decode(bytes: &[u8; KEY_BYTES]) -> Key {
        let number = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Key {
            kind: bytes[0],
            tablespace: number(1),
            database: number(5),
            relation: number(9),
            fork: bytes[13],
            block: number(14),
        }
    }

    fn of_fork(kind: KeyKind, fork: RelationFork) -> Key {
        Key {
            kind: kind as u8,
            tablespace: fork.relation.tablespace,
            database: fork.relation.database,
            relation: fork.relation.number,
            fork: fork.fork as u8,
            block: 0,
        }
    }

    fn of_relation(kind: KeyKind, relation: Relation) -> Range<Key> {
        let first = Key::of_fork(kind, relation.fork(Fork::Main));
        let last = Key { fork: u8::MAX, block: u32::MAX, ..first };
        first..last.next()
    }

    fn of_database(kind: KeyKind, tablespace: u32, database: u32) -> Range<Key> {
        let first = Key { kind: kind as u8, tablespace, database, ..Key::MIN };
        let last = Key { relation: u32::MAX, fork: u8::MAX, block: u32::MAX, ..first };
        first..last.next()
    }
}

/// In three words: maps of pages are what ingest is bounded by.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let joined = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        state.write_u64(joined(self.relation, self.block));
        state.write_u64(joined(self.tablespace, self.database));
        state.write_u16(u16::from(self.kind) << 8 | u16::from(self.fork));
    }
}

/// Adds one; true where it wrapped to 0.
fn step(part: &mut u32) -> bool {
    *part = part.wrapping_add(1);
    *part == 0
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = self.as_target() {
            return target.fmt(f);
        }
        match self.kind() {
            Some(KeyKind::ForkSize) => match self.fork() {
                Some(fork) => write!(f, "size of {fork}"),
                None => write!(f, "size of an unknown fork {}", self.fork),
            },
            Some(kind) => {
                write!(f, "{kind:?} {}/{} {}", self.tablespace, self.database, self.block)
            }
            None => write!(f, "a key of unknown kind {}", self.kind),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relation(number: u32) -> Relation {
        Relation { tablespace: 1663, database: 5, number }
    }

    fn any_key() -> impl Strategy<Value = Key> {
        let edge = || prop_oneof![Just(0), Just(u32::MAX), any::<u32>()];
        let small = prop_oneof![Just(0), Just(u8::MAX), any::<u8>()];
        (any::<u8>(), edge(), edge(), edge(), small, edge()).prop_map(
            |(kind, tablespace, database, relation, fork, block)| Key {
                kind,
                tablespace,
                database,
                relation,
                fork,
                block,
            },
        )
    }

    proptest! {
        #[test]
        fn encoded_keys_have_the_keys_order(a in any_key(), b in any_key()) {
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
            prop_assert_eq!(Key::decode(&a.encode()), a);
        }

        #[test]
        fn nothing_is_between_a_key_and_its_next(a in any_key(), b in any_key()) {
            prop_assume!(a != Key::MAX);
            prop_assert!(a.next() > a);
            prop_assert!(b <= a || b >= a.next());
        }
    }

    proptest! {
        #[test]
        fn pieces_of_history_are_ordered_by_lsn_then_by_time(
            a in any::<(u64, i64)>(), b in any::<(u64, i64)>()
        ) {
            let key = |(end, time)| Key::history(Lsn(end), time);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            prop_assert_eq!(key(a).as_history(), Some((Lsn(a.0), a.1)));
            prop_assert!(KeyKind::History.all().contains(&key(a)));
        }
    }

    #[test]
    fn a_relations_range_holds_all_its_forks_and_no_neighbours() {
        let range = Key::relation_pages(relation(7));
        for fork in Fork::ALL {
            assert!(range.contains(&Key::page(relation(7).fork(fork).block(u32::MAX))));
        }
        assert!(!range.contains(&Key::page(relation(6).fork(Fork::Init).block(u32::MAX))));
        assert!(!range.contains(&Key::page(relation(8).fork(Fork::Main).block(0))));
    }

    #[test]
    fn the_pages_of_a_fork_end_with_the_fork() {
        let fork = relation(7).fork(Fork::Main);
        let range = Key::pages_from(fork, 10);
        assert!(!range.contains(&Key::page(fork.block(9))));
        assert!(range.contains(&Key::page(fork.block(10))));
        assert!(range.contains(&Key::page(fork.block(u32::MAX))));
        assert!(!range.contains(&Key::page(relation(7).fork(Fork::FreeSpaceMap).block(0))));
    }

    #[test]
    fn a_databases_range_ends_before_the_next_database() {
        let range = Key::database_sizes(1663, u32::MAX);
        let inside = Relation { tablespace: 1663, database: u32::MAX, number: u32::MAX };
        assert!(range.contains(&Key::fork_size(inside.fork(Fork::Init))));
        let outside = Relation { tablespace: 1664, database: 0, number: 0 };
        assert!(!range.contains(&Key::fork_size(outside.fork(Fork::Main))));
    }
}
