//! `pg_wal` as a file system: ordinary files, but what is written to a segment goes to the quorum
//! too, and its fsync is the quorum's answer.
//!
//! Invariants:
//! - An fsync of a segment is answered only when a quorum has flushed every record that was complete
//!   before it in *any* segment; likewise a write with `O_DSYNC` or `O_SYNC`.
//! - Once the proposer is at its end (fenced, broken, shut down) every write and fsync of a segment
//!   answers EIO, also those that wait.
//! - The kernel caches no writes; it may cache what it read, because only this mount writes.
//!
//! The backing files are disposable: they are never synced.

mod tree;

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use crate::{
    ShimError,
    commit_waiters::Outcome,
    mounts,
    wal_proposer::{Shared, WriteFailed},
};
use tree::{Meaning, Node, Tree};

/// The kernel need not ask again: only this mount changes anything.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// The longest write in one request.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// One answers while others write or read; a held fsync takes none.
const THREADS: usize = 4;

/// The mount of `pg_wal`. Unmounted by [`WalMount::unmount`], or when dropped.
pub struct WalMount {
    mountpoint: PathBuf,
    session: Option<BackgroundSession>,
}

impl WalMount {
    /// Unmounts; lazily where something still has a file open.
    pub fn unmount(mut self) -> Result<(), ShimError> {
        let session = self.session.take();
        session.map_or(Ok(()), |session| mounts::end_session(session, &self.mountpoint))
    }
}

/// Mounts the folder that [`WalProposer::start_at`](crate::WalProposer::start_at) laid out.
pub(crate) fn mount(
    shared: Arc<Shared>,
    mountpoint: &Path,
    uid: u32,
    gid: u32,
) -> Result<WalMount, ShimError> {
    let folder = &shared.config.wal_folder;
    let doing = format!("read {}", folder.display());
    let segment_bytes = shared.config.origin.segment_bytes;
    let tree = Tree::scan(folder, segment_bytes).map_err(ShimError::io(doing))?;
    let wal = WalFs {
        shared,
        uid,
        gid,
        tree: Mutex::new(tree),
        files: Mutex::default(),
        folders: Mutex::default(),
        next_handle: AtomicU64::new(1),
    };
    let config = mounts::fuse_config(THREADS);
    let session = fuser::spawn_mount(wal, mountpoint, &config)
        .map_err(ShimError::io(format!("mount {}", mountpoint.display())))?;
    Ok(WalMount { mountpoint: mountpoint.to_owned(), session: Some(session) })
}

/// An open file.
struct OpenFile {
    node: Arc<Node>,
    file: File,
}

/// What is in a folder, as it was when its listing began: offsets stay right while files go.
type Listing = Arc<Vec<(u64, bool, OsString)>>;

struct WalFs {
    shared: Arc<Shared>,
    uid: u32,
    gid: u32,
    /// Held while a name changes here and in the backing folder.
    tree: Mutex<Tree>,
    files: Mutex<HashMap<u64, Arc<OpenFile>>>,
    folders: Mutex<HashMap<u64, Listing>>,
    next_handle: AtomicU64,
}

type Answer<T> = Result<T, Errno>;

impl WalFs {
    fn attr(&self, ino: u64, metadata: &fs::Metadata) -> FileAttr {
        let is_folder = metadata.is_dir();
        let changed = SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
        FileAttr {
            ino: INodeNo(ino),
            size: metadata.len(),
            blocks: metadata.blocks(),
            atime: metadata.accessed().unwrap_or(changed),
            mtime: metadata.modified().unwrap_or(changed),
            ctime: changed,
            crtime: changed,
            kind: if is_folder { FileType::Directory } else { FileType::RegularFile },
            perm: (metadata.mode() & 0o7777) as u16,
            nlink: if is_folder { 2 } else { 1 },
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 8192,
            flags: 0,
        }
    }

    /// Attributes by number: of the named file, or of one that is only open any more.
    fn attr_of(&self, ino: u64) -> Answer<FileAttr> {
        let path = self.tree.lock().path(ino);
        let metadata = match path {
            Some(path) => fs::symlink_metadata(path)?,
            None => self.open_file_of(ino)?.file.metadata()?,
        };
        Ok(self.attr(ino, &metadata))
    }

    fn open_file_of(&self, ino: u64) -> Answer<Arc<OpenFile>> {
        let files = self.files.lock();
        files.values().find(|open| open.node.ino == ino).cloned().ok_or(Errno::ENOENT)
    }

    fn file(&self, handle: FileHandle) -> Answer<Arc<OpenFile>> {
        self.files.lock().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn keep(&self, node: Arc<Node>, file: File) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.files.lock().insert(handle, Arc::new(OpenFile { node, file }));
        FileHandle(handle)
    }

    /// The entry of a node that the kernel is about to be told of.
    fn entry(&self, tree: &Tree, node: &Node) -> Answer<FileAttr> {
        let path = tree.path(node.ino).ok_or(Errno::ENOENT)?;
        let attr = self.attr(node.ino, &fs::symlink_metadata(path)?);
        tree.told(node);
        Ok(attr)
    }

    fn create_file(&self, parent: u64, name: &OsStr, mode: u32) -> Answer<(FileAttr, FileHandle)> {
        let mut tree = self.tree.lock();
        if tree.meaning(parent, name) == Meaning::Foreign {
            return Err(self.refuse_foreign(name));
        }
        let path = tree.path_of(parent, name).ok_or(Errno::ENOENT)?;
        let options = File::options().read(true).write(true).create_new(true).mode(mode).to_owned();
        let file = options.open(path)?;
        let node = tree.insert(parent, name, false);
        let attr = self.attr(node.ino, &file.metadata()?);
        tree.told(&node);
        drop(tree);
        Ok((attr, self.keep(node, file)))
    }

    fn rename_file(&self, from: (u64, &OsStr), to: (u64, &OsStr), keep: bool) -> Answer<()> {
        let mut tree = self.tree.lock();
        if tree.meaning(to.0, to.1) == Meaning::Foreign {
            return Err(self.refuse_foreign(to.1));
        }
        if keep && tree.child(to.0, to.1).is_some() {
            return Err(Errno::EEXIST);
        }
        let old = tree.path_of(from.0, from.1).ok_or(Errno::ENOENT)?;
        let new = tree.path_of(to.0, to.1).ok_or(Errno::ENOENT)?;
        fs::rename(old, new)?;
        tree.rename(from, to);
        Ok(())
    }

    fn refuse_foreign(&self, name: &OsStr) -> Errno {
        let timeline = self.shared.config.timeline;
        tracing::error!(
            %timeline,
            ?name,
            "postgres was promoted to a timeline of its own: its WAL would reach no safekeeper"
        );
        Errno::EPERM
    }

    fn remove_name(&self, parent: u64, name: &OsStr, is_folder: bool) -> Answer<()> {
        let mut tree = self.tree.lock();
        let path = tree.path_of(parent, name).ok_or(Errno::ENOENT)?;
        if is_folder {
            fs::remove_dir(path)?
        } else {
            fs::remove_file(path)?
        }
        tree.remove(parent, name);
        Ok(())
    }

    fn set_size(&self, ino: u64, size: u64) -> Answer<()> {
        let (path, node) = {
            let tree = self.tree.lock();
            (tree.path(ino), tree.node(ino).ok_or(Errno::ENOENT)?)
        };
        // WAL is never cut off: what was sent stays, and what Postgres takes back it overwrites.
        if node.segment().is_some() && size < u64::from(self.shared.config.origin.segment_bytes) {
            return Err(Errno::EPERM);
        }
        match path {
            Some(path) => File::options().write(true).open(path)?.set_len(size)?,
            None => self.open_file_of(ino)?.file.set_len(size)?,
        }
        Ok(())
    }

    fn set_mode(&self, ino: u64, mode: u32) -> Answer<()> {
        let path = self.tree.lock().path(ino).ok_or(Errno::ENOENT)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))?)
    }

    fn write_to(&self, open: &OpenFile, offset: u64, data: &[u8]) -> Answer<()> {
        let Some(segment) = open.node.segment() else {
            return Ok(open.file.write_all_at(data, offset)?);
        };
        self.shared.write(&open.file, segment, offset, data).map_err(|failed| match failed {
            WriteFailed::Io(error) => Errno::from(error),
            WriteFailed::Over => Errno::EIO,
            WriteFailed::Refused(_) => {
                let timeline = self.shared.config.timeline;
                tracing::error!(%timeline, why = %failed, "this compute fenced itself");
                Errno::EIO
            }
        })
    }

    fn list(&self, ino: u64, handle: FileHandle, anew: bool) -> Answer<Listing> {
        let mut folders = self.folders.lock();
        if let Some(listing) = folders.get(&handle.0).filter(|_| !anew) {
            return Ok(listing.clone());
        }
        let mut list = vec![(ino, true, OsString::from(".")), (ino, true, OsString::from(".."))];
        list.extend(self.tree.lock().list(ino).ok_or(Errno::ENOTDIR)?);
        let listing = Arc::new(list);
        folders.insert(handle.0, listing.clone());
        Ok(listing)
    }
}

fn failed(outcome: Outcome) -> Option<Errno> {
    (outcome == Outcome::Failed).then_some(Errno::EIO)
}

impl Filesystem for WalFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A kernel that knows only less says how much; it is content then.
        if let Err(most) = config.set_max_write(WRITE_BYTES_MAX) {
            let _ = config.set_max_write(most);
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = self.tree.lock();
        let found = tree.child(parent.0, name).ok_or(Errno::ENOENT);
        match found.and_then(|node| self.entry(&tree, &node)) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.tree.lock().forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr_of(ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    // Owners and times are not kept: the files are Postgres' as long as they exist.
    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = size
            .map_or(Ok(()), |size| self.set_size(ino.0, size))
            .and_then(|()| mode.map_or(Ok(()), |mode| self.set_mode(ino.0, mode)))
            .and_then(|()| self.attr_of(ino.0));
        match set {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mut tree = self.tree.lock();
        let made = tree.path_of(parent.0, name).ok_or(Errno::ENOENT).and_then(|path| {
            fs::DirBuilder::new().mode(mode & !umask).create(path)?;
            let node = tree.insert(parent.0, name, true);
            self.entry(&tree, &node)
        });
        match made {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.remove_name(parent.0, name, false), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.remove_name(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let keep = flags.contains(RenameFlags::RENAME_NOREPLACE);
        answer(self.rename_file((parent.0, name), (newparent.0, newname), keep), reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = || -> Answer<FileHandle> {
            let tree = self.tree.lock();
            let node = tree.node(ino.0).ok_or(Errno::ENOENT)?;
            let path = tree.path(ino.0).ok_or(Errno::ENOENT)?;
            // Write-only files are read too: what is rewritten is compared.
            let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
            let file = File::options().read(true).write(write).open(path)?;
            drop(tree);
            Ok(self.keep(node, file))
        };
        match opened() {
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create_file(parent.0, name, mode & !umask & 0o7777) {
            Ok((attr, handle)) => {
                reply.created(&TTL, &attr, Generation(0), handle, FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || -> Answer<Vec<u8>> {
            let open = self.file(fh)?;
            let mut data = vec![0; size as usize];
            let mut filled = 0;
            while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match open.file.read_at(rest, offset + filled as u64)? {
                    0 => break,
                    more => filled += more,
                }
            }
            data.truncate(filled);
            Ok(data)
        };
        match read() {
            Ok(data) => reply.data(&data),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let size = data.len() as u32;
        let open = match self.file(fh) {
            Ok(open) => open,
            Err(errno) => return reply.error(errno),
        };
        if let Err(errno) = self.write_to(&open, offset, data) {
            return reply.error(errno);
        }
        // `O_SYNC` holds the bit of `O_DSYNC`.
        if flags.0 & libc::O_DSYNC == 0 || open.node.segment().is_none() {
            return reply.written(size);
        }
        let answer = move |outcome| match failed(outcome) {
            Some(errno) => reply.error(errno),
            None => reply.written(size),
        };
        self.shared.wait_until_committed(Box::new(answer));
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        // The kernel asks once, and then no more.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.lock().remove(&fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        match self.file(fh) {
            Ok(open) if open.node.segment().is_some() => {
                let answer = move |outcome| match failed(outcome) {
                    Some(errno) => reply.error(errno),
                    None => reply.ok(),
                };
                self.shared.wait_until_committed(Box::new(answer));
            }
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = match self.list(ino.0, fh, offset == 0) {
            Ok(listing) => listing,
            Err(errno) => return reply.error(errno),
        };
        for (index, (ino, is_folder, name)) in (1..).zip(listing.iter()).skip(offset as usize) {
            let kind = if *is_folder { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(*ino), index, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.folders.lock().remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // Names are not kept beyond this compute's life.
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match nix::sys::statvfs::statvfs(&self.shared.config.wal_folder) {
            Ok(stat) => reply.statfs(
                stat.blocks(),
                stat.blocks_free(),
                stat.blocks_available(),
                stat.files(),
                stat.files_free(),
                stat.block_size() as u32,
                stat.name_max() as u32,
                stat.fragment_size() as u32,
            ),
            Err(errno) => reply.error(Errno::from_i32(errno as i32)),
        }
    }

    fn getxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // Anything but growth would take written WAL away.
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let grown = self.file(fh).and_then(|open| {
            let size = open.file.metadata()?.len();
            Ok(open.file.set_len(size.max(offset.saturating_add(length)))?)
        });
        answer(grown, reply);
    }
}

fn answer(outcome: Answer<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

#[cfg(test)]
mod tests;
