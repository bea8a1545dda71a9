//! What the kernel asks of the mount, and how it is answered.
//!
//! What needs no page is answered on the thread that took the request; what needs one is answered
//! by a task that waits for it, so that a slow page holds up nobody else.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, sync::Arc, time::SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::{BACKGROUND_MAX, KEEP, KEEP_NOT, REQUEST_BYTES_MAX, RelationFiles, errno_of};
use crate::{
    ShimError,
    overlay::{Changing, Fetch, OverlayFile, Reading},
    tree::{FILE_MODE, Kind, TreeError},
};

/// Numbers are never used again, so that one generation is enough.
const GENERATION: Generation = Generation(0);
/// The number that stands for no node at all.
const NOTHING: u64 = 0;

impl RelationFiles {
    fn reply_entry(&self, told: Result<fuser::FileAttr, TreeError>, reply: ReplyEntry) {
        match told {
            Ok(attributes) => reply.entry(&KEEP, &attributes, GENERATION),
            Err(error) => reply.error(error.into()),
        }
    }

    fn file(&self, number: INodeNo) -> Result<Arc<OverlayFile>, TreeError> {
        self.tree.read().file(number.0)
    }

    fn reply_attributes(&self, number: INodeNo, reply: ReplyAttr) {
        let tree = self.tree.read();
        match tree.node(number.0) {
            Ok(node) => reply.attr(&KEEP, &self.attributes(number.0, node)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn read_later(
        &self,
        file: Arc<OverlayFile>,
        range: (u64, usize),
        fetch: Fetch,
        reply: ReplyData,
    ) {
        let source = self.source.clone();
        self.runtime.spawn(async move {
            let (offset, size) = range;
            match file.read(&*source, offset, size).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(failed(fetch, &error)),
            }
        });
    }
}

/// Reports a page that could not be had, and answers EIO, which Postgres reports as a failed read.
fn failed(fetch: Fetch, error: &ShimError) -> Errno {
    let Fetch { fork, first, count, .. } = fetch;
    tracing::error!(%fork, first, count, %error, "pages could not be read");
    match error {
        ShimError::Io { source, .. } => errno_of(source),
        _ => Errno::EIO,
    }
}

impl Filesystem for RelationFiles {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_WRITEBACK_CACHE | InitFlags::FUSE_PARALLEL_DIROPS;
        config
            .add_capabilities(wanted)
            .map_err(|lacking| io::Error::other(format!("the kernel's FUSE lacks {lacking:?}")))?;
        // Each falls back to the nearest value that the kernel takes.
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.set_max_readahead(REQUEST_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = self.tree.write();
        let told = match tree.lookup(parent.0, name) {
            // A node without a number: the kernel keeps in mind that there is nothing. Postgres asks
            // again and again for forks that a relation does not have.
            Err(TreeError::NotFound) => {
                tree.node(parent.0).map(|parent| self.attributes(NOTHING, parent))
            }
            found => found.and_then(|number| self.tell(&mut tree, number)),
        };
        drop(tree);
        self.reply_entry(told, reply);
    }

    fn forget(&self, _request: &Request, number: INodeNo, times: u64) {
        self.tree.write().forget(number.0, times);
    }

    fn getattr(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.reply_attributes(number, reply);
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _attributes_changed: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        {
            let mut tree = self.tree.write();
            let node = match tree.node_mut(number.0) {
                Ok(node) => node,
                Err(error) => return reply.error(error.into()),
            };
            if let Some(mode) = mode {
                node.mode = (mode & 0o7777) as u16;
            }
            node.modified = match modified {
                Some(TimeOrNow::SpecificTime(time)) => time,
                Some(TimeOrNow::Now) => SystemTime::now(),
                None if size.is_some() => SystemTime::now(),
                None => node.modified,
            };
        }
        let Some(size) = size else {
            return self.reply_attributes(number, reply);
        };
        let file = match self.file(number) {
            Ok(file) => file,
            Err(error) => return reply.error(error.into()),
        };
        match file.try_resize(size) {
            Ok(Changing::Done) => self.reply_attributes(number, reply),
            Ok(Changing::Needs(fetch)) => {
                // Postgres cuts whole pages, so this is rare.
                let source = self.source.clone();
                match self.runtime.block_on(file.resize(&*source, size)) {
                    Ok(()) => self.reply_attributes(number, reply),
                    Err(error) => reply.error(failed(fetch, &error)),
                }
            }
            Err(error) => reply.error(errno_of(&error)),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match self.tree.read().node(number.0).map(|node| &node.kind) {
            Ok(Kind::Link(target)) => reply.data(target.as_os_str().as_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut tree = self.tree.write();
        let told = tree
            .add_folder(parent.0, name, SystemTime::now())
            .and_then(|number| self.tell(&mut tree, number));
        drop(tree);
        self.reply_entry(told, reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.tree.write().remove_file(parent.0, name, SystemTime::now());
        reply_empty(removed, reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.tree.write().remove_folder(parent.0, name, SystemTime::now());
        reply_empty(removed, reply);
    }

    fn symlink(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        match self.add_tablespace(parent.0, name, target) {
            Ok(attributes) => {
                reply.entry(&KEEP_NOT, &attributes, GENERATION);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        let renamed = self.tree.write().rename(from, to, SystemTime::now());
        reply_empty(renamed, reply);
    }

    fn open(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let now = SystemTime::now();
        let mut tree = self.tree.write();
        let told = tree
            .add_file(parent.0, name, now, |number| {
                OverlayFile::new(number, None, self.backing.clone())
            })
            .and_then(|number| {
                let mode = (mode & !umask & 0o7777) as u16;
                tree.node_mut(number)?.mode = if mode == 0 { FILE_MODE } else { mode };
                self.tell(&mut tree, number)
            });
        drop(tree);
        match told {
            Ok(attributes) => reply.created(
                &KEEP,
                &attributes,
                GENERATION,
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.file(number) {
            Ok(file) => file,
            Err(error) => return reply.error(error.into()),
        };
        match file.try_read(offset, size as usize) {
            Ok(Reading::Ready(bytes)) => reply.data(&bytes),
            Ok(Reading::Needs(fetch)) => {
                self.read_later(file, (offset, size as usize), fetch, reply);
            }
            Err(error) => reply.error(errno_of(&error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let file = match self.file(number) {
            Ok(file) => file,
            Err(error) => return reply.error(error.into()),
        };
        // One request is at most `REQUEST_BYTES_MAX` long.
        let written = data.len() as u32;
        match file.try_write(offset, data) {
            Ok(Changing::Done) => reply.written(written),
            Ok(Changing::Needs(fetch)) => {
                let (source, data) = (self.source.clone(), data.to_vec());
                self.runtime.spawn(async move {
                    match file.write(&*source, offset, &data).await {
                        Ok(()) => reply.written(written),
                        Err(error) => reply.error(failed(fetch, &error)),
                    }
                });
            }
            Err(error) => reply.error(errno_of(&error)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = self.tree.read();
        let entries = match tree.entries(number.0, offset) {
            Ok(entries) => entries,
            Err(error) => return reply.error(error.into()),
        };
        for (place, entry, name) in entries {
            let kind = match tree.node(entry).map(|node| &node.kind) {
                Ok(Kind::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(entry), place, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        match nix::sys::statvfs::statvfs(self.backing.folder()) {
            Ok(disk) => reply.statfs(
                disk.blocks(),
                disk.blocks_free(),
                disk.blocks_available(),
                disk.files(),
                disk.files_free(),
                disk.block_size() as u32,
                disk.name_max() as u32,
                disk.fragment_size() as u32,
            ),
            Err(error) => reply.error(Errno::from_i32(error as i32)),
        }
    }

    fn getxattr(
        &self,
        _request: &Request,
        _number: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _number: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

fn reply_empty(done: Result<(), TreeError>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}
