//! A change that is being made, effect by effect.

use std::{collections::BTreeMap, ops::Range};

use wal_format::Lsn;

use crate::{
    change::{Change, Value},
    key::Key,
};

/// Effects happen in order, but a change clears first and puts then: a later clear takes back an
/// earlier put in its range.
#[derive(Debug, Default)]
pub(super) struct Draft {
    clears: Vec<Range<Key>>,
    puts: BTreeMap<Key, Value>,
    /// The time of the transaction's commit.
    pub finished: Option<i64>,
}

impl Draft {
    pub fn put(&mut self, key: Key, value: Value) {
        self.puts.insert(key, value);
    }

    pub fn clear(&mut self, range: Range<Key>) {
        let taken_back: Vec<Key> = self.puts.range(range.clone()).map(|(key, _)| *key).collect();
        for key in taken_back {
            self.puts.remove(&key);
        }
        self.clears.push(range);
    }

    pub fn finish(self, start: Lsn, end: Lsn) -> Change {
        let puts = self.puts.into_iter().collect();
        Change { start, end, clears: self.clears, puts, finished: self.finished }
    }
}
