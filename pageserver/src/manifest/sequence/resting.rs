//! A writer of a sequence that left memory.

use std::{collections::VecDeque, sync::Arc};

use object_store::{ObjectStore, path::Path};

use super::{Earlier, Sequence};

/// What a writer has to know to go on as the same one. As another writer it would leave one more
/// manifest for ever, each time.
#[derive(Clone, Debug)]
pub struct Resting {
    writer: u128,
    newest: u64,
    says: u64,
    takeover: u64,
    collected_below: u64,
    own: Box<[u64]>,
    whole: (u64, usize),
    change_bytes: usize,
}

// There may be one for each tenant and each timeline that this process has written.
const _: () = assert!(size_of::<Resting>() <= 96);

impl Sequence {
    /// The writer, where it has written; one that has not is like any other.
    pub fn rest(&self) -> Option<Resting> {
        self.has_written.then(|| Resting {
            writer: self.writer,
            newest: self.newest,
            says: self.says,
            takeover: self.takeover,
            // What is being removed just now is removed again: it is not there then.
            collected_below: self.earlier.collected_below(),
            own: self.own.iter().copied().collect(),
            whole: self.whole,
            change_bytes: self.change_bytes,
        })
    }

    /// That writer again, with what it knew: where another has written since, it is fenced.
    pub fn wake(store: Arc<dyn ObjectStore>, folder: Path, resting: Resting) -> Sequence {
        Sequence {
            store,
            folder,
            writer: resting.writer,
            newest: resting.newest,
            says: resting.says,
            takeover: resting.takeover,
            earlier: Arc::new(Earlier::from(resting.collected_below)),
            own: VecDeque::from(resting.own.into_vec()),
            has_written: true,
            is_private: false,
            whole: resting.whole,
            change_bytes: resting.change_bytes,
        }
    }

    /// Goes on as that writer of this sequence, which was just opened; as a new one where another has
    /// written since.
    pub fn resume(self, resting: Resting) -> Sequence {
        if self.newest != resting.newest {
            return self;
        }
        Sequence::wake(self.store, self.folder, resting)
    }
}
