//! The mount's folders and names, pure: what exists, by number, and how long it is remembered.
//!
//! Invariants:
//! - A node's number is never used again.
//! - A node lives as long as a folder names it or the kernel remembers it (`lookups`): a file that
//!   was removed while it was open can still be read and written.
//! - An entry keeps its place in a folder's listing until it is removed, so that a listing goes on
//!   where it was while entries are removed.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

/// The number of the mount's root, by FUSE's convention.
pub const ROOT: u64 = 1;
/// The modes that Postgres gives to what it makes (`pg_dir_create_mode`, `pg_file_create_mode`).
pub const FOLDER_MODE: u16 = 0o700;
/// See [`FOLDER_MODE`].
pub const FILE_MODE: u16 = 0o600;

/// Why a name could not be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TreeError {
    /// Nothing of this name or number.
    #[error("not found")]
    NotFound,
    /// The name is taken.
    #[error("exists")]
    Exists,
    /// A folder was expected.
    #[error("not a folder")]
    NotAFolder,
    /// A file was expected.
    #[error("a folder")]
    IsAFolder,
    /// The folder has entries.
    #[error("not empty")]
    NotEmpty,
}

/// What a node is.
pub enum Kind<F> {
    /// A folder, with the place of its next entry.
    Folder(Folder),
    /// A file.
    File(Arc<F>),
    /// A symbolic link that exists only in the answer that made it.
    Link(PathBuf),
}

/// A folder's entries.
#[derive(Default)]
pub struct Folder {
    parent: u64,
    by_name: HashMap<OsString, Entry>,
    by_place: BTreeMap<u64, OsString>,
    next_place: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    node: u64,
    place: u64,
}

/// A node.
pub struct Node<F> {
    /// What it is.
    pub kind: Kind<F>,
    /// Permission bits.
    pub mode: u16,
    /// When it was last changed.
    pub modified: SystemTime,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
    /// Whether a folder names it.
    named: bool,
}

/// All nodes. `F` is a file's content.
pub struct Tree<F> {
    nodes: HashMap<u64, Node<F>>,
    next: u64,
}

impl<F> Tree<F> {
    /// A root without entries.
    pub fn new(now: SystemTime) -> Tree<F> {
        let root = Kind::Folder(Folder { parent: ROOT, ..Folder::default() });
        let mut tree = Tree { nodes: HashMap::new(), next: ROOT };
        let number = tree.add(root, FOLDER_MODE, now);
        tree.nodes.get_mut(&number).expect("the root was just added").named = true;
        tree
    }

    /// A node by its number.
    pub fn node(&self, number: u64) -> Result<&Node<F>, TreeError> {
        self.nodes.get(&number).ok_or(TreeError::NotFound)
    }

    /// A node by its number, to change it.
    pub fn node_mut(&mut self, number: u64) -> Result<&mut Node<F>, TreeError> {
        self.nodes.get_mut(&number).ok_or(TreeError::NotFound)
    }

    /// A file by its number.
    pub fn file(&self, number: u64) -> Result<Arc<F>, TreeError> {
        match &self.node(number)?.kind {
            Kind::File(file) => Ok(file.clone()),
            Kind::Folder(_) => Err(TreeError::IsAFolder),
            Kind::Link(_) => Err(TreeError::NotFound),
        }
    }

    /// The number of an entry.
    pub fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64, TreeError> {
        let entry = self.folder(folder)?.by_name.get(name).ok_or(TreeError::NotFound)?;
        Ok(entry.node)
    }

    /// Counts that the kernel was told of a node.
    pub fn remember(&mut self, number: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups += 1;
        }
    }

    /// Counts that the kernel forgot a node so many times; it ends where nothing names it.
    pub fn forget(&mut self, number: u64, times: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(times);
            self.end_unused(number);
        }
    }

    /// Adds a file; its content is made from its number.
    pub fn add_file(
        &mut self,
        folder: u64,
        name: &OsStr,
        now: SystemTime,
        content: impl FnOnce(u64) -> F,
    ) -> Result<u64, TreeError> {
        self.vacant(folder, name)?;
        let number = self.add(Kind::File(Arc::new(content(self.next))), FILE_MODE, now);
        self.link(folder, name, number, now)?;
        Ok(number)
    }

    /// Adds a folder.
    pub fn add_folder(
        &mut self,
        folder: u64,
        name: &OsStr,
        now: SystemTime,
    ) -> Result<u64, TreeError> {
        self.vacant(folder, name)?;
        let kind = Kind::Folder(Folder { parent: folder, ..Folder::default() });
        let number = self.add(kind, FOLDER_MODE, now);
        self.link(folder, name, number, now)?;
        Ok(number)
    }

    /// A folder by its path from the root, made where it is missing.
    pub fn folder_at(&mut self, path: &str, now: SystemTime) -> Result<u64, TreeError> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |folder, name| {
            match self.lookup(folder, OsStr::new(name)) {
                Err(TreeError::NotFound) => self.add_folder(folder, OsStr::new(name), now),
                found => found,
            }
        })
    }

    /// A symbolic link that no folder names: it ends when the kernel forgets it.
    pub fn add_passing_link(&mut self, target: PathBuf, now: SystemTime) -> u64 {
        self.add(Kind::Link(target), 0o777, now)
    }

    /// Removes a file's name.
    pub fn remove_file(
        &mut self,
        folder: u64,
        name: &OsStr,
        now: SystemTime,
    ) -> Result<(), TreeError> {
        let number = self.lookup(folder, name)?;
        if let Kind::Folder(_) = self.node(number)?.kind {
            return Err(TreeError::IsAFolder);
        }
        self.unlink(folder, name, now)
    }

    /// Removes an empty folder.
    pub fn remove_folder(
        &mut self,
        folder: u64,
        name: &OsStr,
        now: SystemTime,
    ) -> Result<(), TreeError> {
        let number = self.lookup(folder, name)?;
        if !self.folder(number)?.by_name.is_empty() {
            return Err(TreeError::NotEmpty);
        }
        self.unlink(folder, name, now)
    }

    /// Gives an entry another name, in place of what had it.
    pub fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        now: SystemTime,
    ) -> Result<(), TreeError> {
        let number = self.lookup(from.0, from.1)?;
        let is_folder = matches!(self.node(number)?.kind, Kind::Folder(_));
        match self.lookup(to.0, to.1) {
            Ok(replaced) if replaced == number => return Ok(()),
            Ok(_) if is_folder => self.remove_folder(to.0, to.1, now)?,
            Ok(_) => self.remove_file(to.0, to.1, now)?,
            Err(TreeError::NotFound) => {}
            Err(error) => return Err(error),
        }
        self.detach(from.0, from.1, now)?;
        self.link(to.0, to.1, number, now)?;
        if let Kind::Folder(folder) = &mut self.node_mut(number)?.kind {
            folder.parent = to.0;
        }
        Ok(())
    }

    /// A folder's entries after a place: place, number, name. Its own two come first, at the places
    /// 1 and 2.
    pub fn entries(
        &self,
        number: u64,
        after: u64,
    ) -> Result<impl Iterator<Item = (u64, u64, &OsStr)>, TreeError> {
        let folder = self.folder(number)?;
        let own = [(1, number, OsStr::new(".")), (2, folder.parent, OsStr::new(".."))];
        let others = folder.by_place.range(after.max(2) + 1..).filter_map(|(place, name)| {
            folder.by_name.get(name).map(|entry| (*place, entry.node, name.as_os_str()))
        });
        Ok(own.into_iter().filter(move |(place, ..)| *place > after).chain(others))
    }

    /// How many links a node has, as `stat` tells: a folder's own and its parent's, or one.
    pub fn links(node: &Node<F>) -> u32 {
        match (&node.kind, node.named) {
            (Kind::Folder(_), true) => 2,
            (Kind::Link(_), _) => 1,
            (_, named) => u32::from(named),
        }
    }

    fn folder(&self, number: u64) -> Result<&Folder, TreeError> {
        match &self.node(number)?.kind {
            Kind::Folder(folder) => Ok(folder),
            _ => Err(TreeError::NotAFolder),
        }
    }

    fn folder_mut(&mut self, number: u64, now: SystemTime) -> Result<&mut Folder, TreeError> {
        let node = self.node_mut(number)?;
        let Kind::Folder(folder) = &mut node.kind else {
            return Err(TreeError::NotAFolder);
        };
        node.modified = now;
        Ok(folder)
    }

    fn vacant(&self, folder: u64, name: &OsStr) -> Result<(), TreeError> {
        match self.lookup(folder, name) {
            Ok(_) => Err(TreeError::Exists),
            Err(TreeError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, kind: Kind<F>, mode: u16, modified: SystemTime) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, Node { kind, mode, modified, lookups: 0, named: false });
        number
    }

    fn link(
        &mut self,
        folder: u64,
        name: &OsStr,
        node: u64,
        now: SystemTime,
    ) -> Result<(), TreeError> {
        let folder = self.folder_mut(folder, now)?;
        folder.next_place = folder.next_place.max(2) + 1;
        let place = folder.next_place;
        folder.by_name.insert(name.to_owned(), Entry { node, place });
        folder.by_place.insert(place, name.to_owned());
        self.node_mut(node)?.named = true;
        Ok(())
    }

    fn detach(&mut self, folder: u64, name: &OsStr, now: SystemTime) -> Result<u64, TreeError> {
        let folder = self.folder_mut(folder, now)?;
        let entry = folder.by_name.remove(name).ok_or(TreeError::NotFound)?;
        folder.by_place.remove(&entry.place);
        Ok(entry.node)
    }

    fn unlink(&mut self, folder: u64, name: &OsStr, now: SystemTime) -> Result<(), TreeError> {
        let number = self.detach(folder, name, now)?;
        self.node_mut(number)?.named = false;
        self.end_unused(number);
        Ok(())
    }

    fn end_unused(&mut self, number: u64) {
        if self.nodes.get(&number).is_some_and(|node| !node.named && node.lookups == 0) {
            self.nodes.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn names(tree: &Tree<&'static str>, folder: u64, after: u64) -> Vec<String> {
        let entries = tree.entries(folder, after).expect("the folder exists");
        entries.map(|(_, _, name)| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_removed_file_lives_until_the_kernel_forgets_it() {
        let mut tree = Tree::new(NOW);
        let file = tree.add_file(ROOT, name("1"), NOW, |_| "old").expect("a new name");
        tree.remember(file);
        tree.remove_file(ROOT, name("1"), NOW).expect("it is there");
        let again = tree.add_file(ROOT, name("1"), NOW, |_| "new").expect("the name is free");
        assert_eq!(tree.file(file).map(|file| *file), Ok("old"));
        assert_eq!(tree.file(again).map(|file| *file), Ok("new"));
        tree.forget(file, 1);
        assert!(matches!(tree.file(file), Err(TreeError::NotFound)));
        assert_eq!(tree.lookup(ROOT, name("1")), Ok(again));
    }

    #[test]
    fn a_listing_goes_on_where_it_was_while_entries_are_removed() {
        let mut tree = Tree::new(NOW);
        for file in ["a", "b", "c", "d"] {
            tree.add_file(ROOT, name(file), NOW, |_| "").expect("a new name");
        }
        assert_eq!(names(&tree, ROOT, 0), [".", "..", "a", "b", "c", "d"]);
        let seen = tree.entries(ROOT, 0).expect("the root").nth(3).map(|(place, ..)| place);
        for file in ["a", "b"] {
            tree.remove_file(ROOT, name(file), NOW).expect("it is there");
        }
        assert_eq!(names(&tree, ROOT, seen.expect("b was listed")), ["c", "d"]);
    }

    #[test]
    fn a_rename_takes_the_place_of_what_had_the_name() {
        let mut tree = Tree::new(NOW);
        let folder = tree.folder_at("base/5", NOW).expect("folders are made");
        tree.add_file(folder, name("map"), NOW, |_| "old").expect("a new name");
        let new = tree.add_file(folder, name("map.tmp"), NOW, |_| "new").expect("a new name");
        tree.rename((folder, name("map.tmp")), (folder, name("map")), NOW).expect("renamed");
        assert_eq!(tree.lookup(folder, name("map")), Ok(new));
        assert_eq!(tree.lookup(folder, name("map.tmp")), Err(TreeError::NotFound));
        assert_eq!(names(&tree, folder, 2), ["map"]);
    }

    #[test]
    fn a_folder_with_entries_is_not_removed() {
        let mut tree: Tree<&str> = Tree::new(NOW);
        tree.folder_at("pg_tblspc/16384/PG_15", NOW).expect("folders are made");
        let tablespaces = tree.lookup(ROOT, name("pg_tblspc")).expect("it was made");
        let removed = tree.remove_folder(tablespaces, name("16384"), NOW);
        assert_eq!(removed, Err(TreeError::NotEmpty));
        let tablespace = tree.lookup(tablespaces, name("16384")).expect("it is still there");
        tree.remove_folder(tablespace, name("PG_15"), NOW).expect("it is empty");
        tree.remove_folder(tablespaces, name("16384"), NOW).expect("it is empty now");
    }
}
