//! The mount of the relation files: `base/`, `global/` and `pg_tblspc/` under one root.
//!
//! Only this compute changes what is mounted, and only through the mount, so the kernel may keep
//! everything it knows for as long as it likes: names, attributes, pages. Its write-back cache
//! collects writes; the overlay holds what it gives back. The overlay is disposable, so fsync has
//! nothing to do and answers ENOSYS, after which the kernel stops asking; open and flush likewise.

mod filesystem;
mod mount;

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{Errno, FileAttr, FileType, INodeNo};
use parking_lot::{RwLock, RwLockWriteGuard};
use tokio::runtime::Handle;

use crate::{
    ShimError,
    overlay::{Backing, Changing, Origin, OverlayFile, PageSource},
    path::TABLESPACE_VERSION_FOLDER,
    tree::{Kind, Node, Tree, TreeError},
};

pub use self::mount::{FuseMount, mount};

/// How long the kernel may keep what it was told: nobody else changes it.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// For a symbolic link that becomes a folder: the kernel asks again.
const KEEP_NOT: Duration = Duration::ZERO;
/// The most bytes of one write request, and of one read.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way without a process waiting: read-ahead, write-back.
const BACKGROUND_MAX: u16 = 64;

/// Who the files belong to: the user that Postgres runs as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The relation files of a compute.
pub struct RelationFiles {
    tree: RwLock<Tree<OverlayFile>>,
    backing: Arc<Backing>,
    source: Arc<dyn PageSource>,
    owner: Owner,
    runtime: Handle,
}

impl RelationFiles {
    /// Nothing but the three folders.
    pub fn new(
        backing: Arc<Backing>,
        source: Arc<dyn PageSource>,
        owner: Owner,
        runtime: Handle,
    ) -> RelationFiles {
        let mut tree = Tree::new(SystemTime::now());
        for folder in ["base", "global", "pg_tblspc"] {
            tree.folder_at(folder, SystemTime::now()).expect("a new tree takes any folder");
        }
        RelationFiles { tree: RwLock::new(tree), backing, source, owner, runtime }
    }

    /// Makes a folder, and those above it.
    pub fn add_folder(&self, path: &str) -> Result<(), TreeError> {
        self.tree.write().folder_at(path, SystemTime::now()).map(|_| ())
    }

    /// Adds a relation's file that is the pageserver's until it is written to.
    pub fn add_relation_file(
        &self,
        folder: &str,
        name: &str,
        origin: Origin,
    ) -> Result<(), TreeError> {
        let now = SystemTime::now();
        let mut tree = self.tree.write();
        let folder = tree.folder_at(folder, now)?;
        tree.add_file(folder, OsStr::new(name), now, |number| {
            OverlayFile::new(number, Some(origin), self.backing.clone())
        })?;
        Ok(())
    }

    /// Adds a local file with this content, or adds to its end.
    pub fn append_local_file(&self, path: &str, content: &[u8]) -> Result<(), ShimError> {
        self.change_file(path, |file| file.try_write(file.length(), content))
    }

    /// Makes a file empty, or adds an empty one: nothing of it is the pageserver's any more.
    pub fn clear_file(&self, path: &str) -> Result<(), ShimError> {
        self.change_file(path, |file| file.try_resize(0))
    }

    /// Changes a file, made where it is missing, without the pageserver.
    fn change_file(
        &self,
        path: &str,
        change: impl FnOnce(&OverlayFile) -> io::Result<Changing>,
    ) -> Result<(), ShimError> {
        let failed = |error: io::Error| ShimError::io(format!("writing {path}"))(error);
        let file = self.file_at(path).map_err(|error| failed(io::Error::other(error)))?;
        match change(&file).map_err(failed)? {
            Changing::Done => Ok(()),
            Changing::Needs(_) => Err(failed(io::ErrorKind::AlreadyExists.into())),
        }
    }

    fn file_at(&self, path: &str) -> Result<Arc<OverlayFile>, TreeError> {
        let now = SystemTime::now();
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut tree = self.tree.write();
        let folder = tree.folder_at(folder, now)?;
        let number = match tree.lookup(folder, OsStr::new(name)) {
            Err(TreeError::NotFound) => tree.add_file(folder, OsStr::new(name), now, |number| {
                OverlayFile::new(number, None, self.backing.clone())
            })?,
            found => found?,
        };
        tree.file(number)
    }

    fn attributes(&self, number: u64, node: &Node<OverlayFile>) -> FileAttr {
        let (kind, size) = match &node.kind {
            Kind::Folder(_) => (FileType::Directory, 4096),
            Kind::File(file) => (FileType::RegularFile, file.length()),
            Kind::Link(target) => (FileType::Symlink, target.as_os_str().len() as u64),
        };
        let blocks = match &node.kind {
            Kind::File(file) => file.local_bytes() / 512,
            _ => 0,
        };
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks,
            atime: node.modified,
            mtime: node.modified,
            ctime: node.modified,
            crtime: node.modified,
            kind,
            perm: node.mode,
            nlink: Tree::links(node),
            uid: self.owner.uid,
            gid: self.owner.gid,
            rdev: 0,
            blksize: 8192,
            flags: 0,
        }
    }

    /// Counts that the kernel is told of a node, and says what it is told.
    fn tell(
        &self,
        tree: &mut RwLockWriteGuard<'_, Tree<OverlayFile>>,
        number: u64,
    ) -> Result<FileAttr, TreeError> {
        tree.remember(number);
        tree.node(number).map(|node| self.attributes(number, node))
    }

    /// `CREATE TABLESPACE` links `pg_tblspc/OID` to the location that the user gave. The files are
    /// the timeline's, not this machine's: the link becomes a folder of the mount. Postgres has just
    /// made a folder of its version at the location to see that no other tablespace has it; that
    /// one stays empty and is removed, so that the location can be used again.
    fn add_tablespace(
        &self,
        folder: u64,
        name: &OsStr,
        location: &Path,
    ) -> Result<FileAttr, TreeError> {
        let now = SystemTime::now();
        let mut tree = self.tree.write();
        let tablespace = tree.add_folder(folder, name, now)?;
        tree.add_folder(tablespace, OsStr::new(TABLESPACE_VERSION_FOLDER), now)?;
        if let Err(error) = std::fs::remove_dir(location.join(TABLESPACE_VERSION_FOLDER)) {
            tracing::warn!(location = %location.display(), %error, "tablespace's own folder stays");
        }
        let link = tree.add_passing_link(PathBuf::from(location), now);
        self.tell(&mut tree, link)
    }
}

/// An answer to the kernel for a failed local operation.
fn errno_of(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

impl From<TreeError> for Errno {
    fn from(error: TreeError) -> Errno {
        match error {
            TreeError::NotFound => Errno::ENOENT,
            TreeError::Exists => Errno::EEXIST,
            TreeError::NotAFolder => Errno::ENOTDIR,
            TreeError::IsAFolder => Errno::EISDIR,
            TreeError::NotEmpty => Errno::ENOTEMPTY,
        }
    }
}

#[cfg(test)]
mod tests;
