//! The names in `pg_wal`: inode numbers, folders and what each file is to the WAL. It mirrors the
//! backing folder; whoever changes that changes this, under the same lock.
//!
//! Invariants:
//! - A number is never given twice.
//! - A file whose last name is gone stays as long as the kernel knows its number.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use wal_format::{Lsn, Segment};

use crate::wal_source::POSTGRES_TIMELINE;

/// The number of the folder itself.
pub(super) const ROOT: u64 = 1;

/// What a name in the folder means to the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// A segment of this timeline, which begins here.
    Segment(Lsn),
    /// A segment of another Postgres timeline: none of ours may come to be.
    Foreign,
    /// Not WAL: a temporary file, an archiver's note.
    Other,
}

impl Meaning {
    /// What the name of a file in the folder itself means.
    fn of(parent: u64, name: &OsStr, segment_bytes: u32) -> Meaning {
        let name = name.to_str().filter(|_| parent == ROOT);
        match name.and_then(|name| Segment::parse(name, segment_bytes)) {
            Some(segment) if segment.timeline_id == POSTGRES_TIMELINE => {
                Meaning::Segment(segment.start(segment_bytes))
            }
            Some(_) => Meaning::Foreign,
            None => Meaning::Other,
        }
    }
}

/// A file or folder, whatever its name is now.
pub(super) struct Node {
    /// Its number.
    pub(super) ino: u64,
    /// Where its segment begins; 0 where it is none. The WAL's first segment has number 1.
    segment: AtomicU64,
    /// How many times the kernel was told of it.
    lookups: AtomicU64,
}

impl Node {
    /// Where its segment begins, where it is one.
    pub(super) fn segment(&self) -> Option<Lsn> {
        Some(Lsn(self.segment.load(Ordering::Acquire))).filter(|lsn| lsn.is_valid())
    }

    fn mean(&self, meaning: Meaning) {
        let start = match meaning {
            Meaning::Segment(start) => start,
            Meaning::Foreign | Meaning::Other => Lsn::INVALID,
        };
        self.segment.store(start.0, Ordering::Release);
    }
}

struct Entry {
    node: Arc<Node>,
    /// Its folder and name; none once it was removed.
    place: Option<(u64, OsString)>,
    /// What is in it, where it is a folder.
    children: Option<BTreeMap<OsString, u64>>,
}

/// See the module.
pub(super) struct Tree {
    root: PathBuf,
    segment_bytes: u32,
    entries: HashMap<u64, Entry>,
    next: u64,
}

impl Tree {
    /// The folder as it is.
    pub(super) fn scan(root: &Path, segment_bytes: u32) -> io::Result<Tree> {
        let node = Arc::new(Node { ino: ROOT, segment: 0.into(), lookups: 1.into() });
        let top = Entry { node, place: None, children: Some(BTreeMap::new()) };
        let entries = HashMap::from([(ROOT, top)]);
        let mut tree = Tree { root: root.to_owned(), segment_bytes, entries, next: ROOT + 1 };
        tree.scan_folder(ROOT, root)?;
        Ok(tree)
    }

    fn scan_folder(&mut self, parent: u64, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_folder = entry.file_type()?.is_dir();
            let node = self.insert(parent, &entry.file_name(), is_folder);
            if is_folder {
                self.scan_folder(node.ino, &entry.path())?;
            }
        }
        Ok(())
    }

    /// What a name in a folder means.
    pub(super) fn meaning(&self, parent: u64, name: &OsStr) -> Meaning {
        Meaning::of(parent, name, self.segment_bytes)
    }

    /// Where in the backing folder a number is; none where it has no name any more.
    pub(super) fn path(&self, ino: u64) -> Option<PathBuf> {
        if ino == ROOT {
            return Some(self.root.clone());
        }
        let (parent, name) = self.entries.get(&ino)?.place.as_ref()?;
        Some(self.path(*parent)?.join(name))
    }

    /// Where in the backing folder a name is, whether it exists or not.
    pub(super) fn path_of(&self, parent: u64, name: &OsStr) -> Option<PathBuf> {
        Some(self.path(parent)?.join(name))
    }

    /// What has this number.
    pub(super) fn node(&self, ino: u64) -> Option<Arc<Node>> {
        self.entries.get(&ino).map(|entry| entry.node.clone())
    }

    /// What has this name.
    pub(super) fn child(&self, parent: u64, name: &OsStr) -> Option<Arc<Node>> {
        let ino = self.entries.get(&parent)?.children.as_ref()?.get(name)?;
        self.node(*ino)
    }

    /// What is in a folder: number, whether it is a folder, name.
    pub(super) fn list(&self, ino: u64) -> Option<Vec<(u64, bool, OsString)>> {
        let children = self.entries.get(&ino)?.children.as_ref()?;
        let is_folder = |ino| self.entries.get(ino).is_some_and(|child| child.children.is_some());
        Some(children.iter().map(|(name, ino)| (*ino, is_folder(ino), name.clone())).collect())
    }

    /// Gives a new file or folder its number.
    pub(super) fn insert(&mut self, parent: u64, name: &OsStr, is_folder: bool) -> Arc<Node> {
        let ino = self.next;
        self.next += 1;
        let node = Arc::new(Node { ino, segment: 0.into(), lookups: 0.into() });
        let children = is_folder.then(BTreeMap::new);
        self.entries.insert(ino, Entry { node: node.clone(), place: None, children });
        self.place(ino, parent, name);
        node
    }

    /// Takes a name away.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr) {
        let children = self.entries.get_mut(&parent).and_then(|entry| entry.children.as_mut());
        let Some(ino) = children.and_then(|children| children.remove(name)) else { return };
        if let Some(entry) = self.entries.get_mut(&ino) {
            entry.place = None;
            entry.node.mean(Meaning::Other);
        }
        self.drop_unknown(ino);
    }

    /// Gives a name to what has another, and takes it from what had it.
    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) {
        let Some(node) = self.child(from.0, from.1) else { return };
        self.remove(to.0, to.1);
        let children = self.entries.get_mut(&from.0).and_then(|entry| entry.children.as_mut());
        children.and_then(|children| children.remove(from.1));
        self.place(node.ino, to.0, to.1);
    }

    /// The kernel is told of a node.
    pub(super) fn told(&self, node: &Node) {
        node.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// The kernel forgets a node so many times.
    pub(super) fn forget(&mut self, ino: u64, times: u64) {
        if let Some(entry) = self.entries.get(&ino) {
            entry.node.lookups.fetch_sub(times, Ordering::Relaxed);
        }
        self.drop_unknown(ino);
    }

    fn place(&mut self, ino: u64, parent: u64, name: &OsStr) {
        let meaning = self.meaning(parent, name);
        if let Some(children) = self.entries.get_mut(&parent).and_then(|e| e.children.as_mut()) {
            children.insert(name.to_owned(), ino);
        }
        if let Some(entry) = self.entries.get_mut(&ino) {
            entry.place = Some((parent, name.to_owned()));
            entry.node.mean(meaning);
        }
    }

    fn drop_unknown(&mut self, ino: u64) {
        let unknown = self.entries.get(&ino).is_some_and(|entry| {
            entry.place.is_none() && entry.node.lookups.load(Ordering::Relaxed) == 0
        });
        if unknown && ino != ROOT {
            self.entries.remove(&ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u32 = 16 << 20;

    fn tree(folder: &tempfile::TempDir) -> Tree {
        fs::create_dir(folder.path().join("archive_status")).expect("a folder is made");
        fs::write(folder.path().join("000000010000000000000003"), b"").expect("a file is made");
        Tree::scan(folder.path(), SEGMENT_BYTES).expect("the folder is read")
    }

    #[test]
    fn a_temporary_file_becomes_a_segment_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder is made");
        let mut tree = tree(&folder);
        let name = OsStr::new("000000010000000000000004");
        let node = tree.insert(ROOT, OsStr::new("xlogtemp.77"), false);
        assert_eq!(node.segment(), None);
        tree.rename((ROOT, OsStr::new("xlogtemp.77")), (ROOT, name));
        assert_eq!(node.segment(), Some(Lsn(0x400_0000)));
        assert_eq!(tree.path(node.ino), Some(folder.path().join(name)));
        assert_eq!(tree.list(ROOT).map(|list| list.len()), Some(3));
    }

    #[test]
    fn a_removed_file_stays_until_the_kernel_forgets_it() {
        let folder = tempfile::tempdir().expect("a folder is made");
        let mut tree = tree(&folder);
        let name = OsStr::new("000000010000000000000003");
        let node = tree.child(ROOT, name).expect("the segment was found");
        tree.told(&node);
        tree.remove(ROOT, name);
        assert!(tree.child(ROOT, name).is_none() && tree.node(node.ino).is_some());
        assert_eq!((tree.path(node.ino), node.segment()), (None, None));
        tree.forget(node.ino, 1);
        assert!(tree.node(node.ino).is_none());
    }

    #[test]
    fn a_segment_of_another_postgres_timeline_is_foreign() {
        let folder = tempfile::tempdir().expect("a folder is made");
        let tree = tree(&folder);
        let name = OsStr::new("000000020000000000000003");
        assert_eq!(tree.meaning(ROOT, name), Meaning::Foreign);
        let notes = tree.child(ROOT, OsStr::new("archive_status")).expect("the folder was found");
        assert_eq!(tree.meaning(notes.ino, name), Meaning::Other);
    }
}
