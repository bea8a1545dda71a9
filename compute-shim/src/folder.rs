//! A compute's folder: what is in it, whose it is, and what an earlier run left behind.
//!
//! Everything in it is disposable. One compute at a time has it, by a lock that the kernel gives
//! back when the process ends, however it ends; so whoever holds the lock may stop and unmount
//! whatever else is found in the folder.

use std::{
    fs::{self, DirBuilder, File, Metadata, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::{ShimError, fuse::Owner, mounts};

/// The name of the lock, which also says that the folder is a compute's.
const LOCK: &str = "offshoot-compute.lock";
/// How long processes of an earlier run have to end before they are killed.
const LEFTOVER_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest name of a Unix socket (`sun_path` less the NUL).
const SOCKET_NAME_BYTES_MAX: usize = 107;

/// The folders that every data directory has. Source: initdb.c, `subdirs`.
const DATA_FOLDERS: [&str; 21] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// A compute's folder, held by this process.
pub struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder, made where it is missing, and ends what an earlier run left in it.
    pub fn take(path: &Path) -> Result<Folder, ShimError> {
        let failed = |what: &str| ShimError::io(format!("{what} {}", path.display()));
        std::fs::create_dir_all(path).map_err(failed("making"))?;
        let root = path.canonicalize().map_err(failed("finding"))?;
        let lock_file = root.join(LOCK);
        let mut entries = std::fs::read_dir(&root).map_err(failed("reading"))?;
        if !lock_file.exists() && entries.next().is_some() {
            return Err(ShimError::Precondition {
                what: format!("{} is not empty, and no compute's folder", root.display()),
                mend: "name an empty or a new folder: its content would be thrown away".to_owned(),
            });
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_file)
            .map_err(failed("locking"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ShimError::Precondition {
                    what: format!("{} is in use by another compute", root.display()),
                    mend: "stop that one, or name another folder".to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed("locking")(error)),
        }
        let folder = Folder { root, _lock: lock };
        folder.sweep()?;
        Ok(folder)
    }

    /// Ends processes and mounts that are left in the folder.
    pub fn sweep(&self) -> Result<(), ShimError> {
        end_processes_in(&self.data());
        mounts::detach_all_under(&self.root)
    }

    /// Makes the folder's parts anew: whatever they held is thrown away.
    pub fn empty(&self, owner: Owner) -> Result<(), ShimError> {
        set_mode(&self.root, 0o711)?;
        for folder in [self.data(), self.mountpoint(), self.overlay(), self.wal(), self.sockets()] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ShimError::io(format!("emptying {}", folder.display()))(error));
                }
                _ => make(&folder)?,
            }
        }
        for name in DATA_FOLDERS {
            let folder = self.data().join(name);
            if !folder.exists() {
                make(&folder)?;
            }
            own(&folder, owner)?;
        }
        own(&self.data(), owner)?;
        // It stays closed to all others: Postgres trusts whoever comes through it.
        own(&self.sockets(), owner)
    }

    /// Writes a file of the data directory.
    pub fn write(&self, name: &str, content: &[u8], owner: Owner) -> Result<(), ShimError> {
        let file = self.data().join(name);
        std::fs::write(&file, content)
            .map_err(ShimError::io(format!("writing {}", file.display())))?;
        set_mode(&file, 0o600)?;
        own(&file, owner)
    }

    /// Refuses a folder that the user who runs Postgres cannot enter, or whose sockets' names
    /// would be too long.
    pub fn check(&self, user: &str, owner: Owner) -> Result<(), ShimError> {
        let closed = self.root.ancestors().skip(1).find(|folder| {
            std::fs::metadata(folder).is_ok_and(|metadata| !may_enter(&metadata, owner))
        });
        if let Some(closed) = closed {
            let closed = closed.display();
            return Err(ShimError::Precondition {
                what: format!("the user {user}, who runs Postgres, cannot enter {closed}"),
                mend: format!("name a folder that it can reach, or run chmod o+x {closed}"),
            });
        }
        let socket = self.sockets().join(".s.PGSQL.65535");
        if socket.as_os_str().len() > SOCKET_NAME_BYTES_MAX {
            return Err(ShimError::Precondition {
                what: format!("{} is too long a name for a Unix socket", socket.display()),
                mend: "name a folder with a shorter path".to_owned(),
            });
        }
        Ok(())
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Where the relation files are mounted, to be bound into the data directory.
    pub fn mountpoint(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// The overlay's local files.
    pub fn overlay(&self) -> PathBuf {
        self.root.join("overlay")
    }

    /// The files behind `pg_wal`.
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// The folder of Postgres' Unix socket.
    pub fn sockets(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// What Postgres says; kept over starts.
    pub fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }
}

/// Gives a file or folder to the user who runs Postgres.
pub fn own(path: &Path, owner: Owner) -> Result<(), ShimError> {
    std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))
        .map_err(ShimError::io(format!("giving {} to user {}", path.display(), owner.uid)))
}

/// Gives a folder and all that is in it to Postgres: its user may have been another. Links are not
/// followed.
pub fn give(folder: &Path, owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Some(owner.uid), Some(owner.gid));
    lchown(folder, uid, gid)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => give(&entry.path(), owner)?,
            false => lchown(entry.path(), uid, gid)?,
        }
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), ShimError> {
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .map_err(ShimError::io(format!("making {}", folder.display())))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ShimError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(ShimError::io(format!("setting the mode of {}", path.display())))
}

fn may_enter(folder: &Metadata, owner: Owner) -> bool {
    let bit = match () {
        () if folder.uid() == owner.uid => 0o100,
        () if folder.gid() == owner.gid => 0o010,
        () => 0o001,
    };
    owner.uid == 0 || folder.mode() & bit != 0
}

/// Ends all processes that work in a data directory: a postmaster and its children change into
/// theirs. A postmaster that is asked to quit takes its children with it.
fn end_processes_in(data: &Path) {
    let begun = Instant::now();
    loop {
        let leftover = processes_in(data);
        if leftover.is_empty() {
            return;
        }
        let signal = match begun.elapsed() < LEFTOVER_TIME_MAX {
            true => Signal::SIGQUIT,
            false => Signal::SIGKILL,
        };
        tracing::info!(processes = leftover.len(), %signal, "ending processes that were left behind");
        for process in leftover {
            // A process that ended meanwhile is what is wanted.
            let _ = nix::sys::signal::kill(process, signal);
        }
        if begun.elapsed() > 2 * LEFTOVER_TIME_MAX {
            tracing::error!(data = %data.display(), "processes do not end");
            return;
        }
        sleep(Duration::from_millis(100));
    }
}

fn processes_in(data: &Path) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let number = |name: std::ffi::OsString| name.to_str()?.parse().ok().map(Pid::from_raw);
    processes
        .flatten()
        .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
        .filter_map(|entry| number(entry.file_name()))
        .collect()
}
