//! The kernel's mounts: how ours are made, binding, unmounting, and finding what an earlier run left behind.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags},
};

use crate::ShimError;

/// How long a mount that is in use is waited for, before it is taken out of the tree while it is.
const BUSY_TIME_MAX: Duration = Duration::from_secs(3);
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Shown as the source and in the type of every mount.
const NAME: &str = "offshoot";

/// How this engine's file systems are mounted. In `/proc/mounts` they are of the type
/// `fuse.offshoot`: the kernel takes the subtype as an option, fuser's own option for it is for
/// fusermount only. Postgres runs as another user than the one who mounts.
pub fn fuse_config(threads: usize) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(NAME.to_owned()),
        MountOption::CUSTOM(format!("subtype={NAME}")),
        MountOption::RW,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(threads);
    config.clone_fd = true;
    config
}

/// Makes `source` visible at `target` too.
pub fn bind(source: &Path, target: &Path) -> Result<(), ShimError> {
    let none: Option<&str> = None;
    nix::mount::mount(Some(source), target, none, MsFlags::MS_BIND, none).map_err(|error| {
        let (source, target) = (source.display(), target.display());
        ShimError::io(format!("binding {source} to {target}"))(error.into())
    })
}

/// Unmounts what is mounted here last; nothing mounted is no error. What stays in use is detached.
pub fn unmount(mountpoint: &Path) -> Result<(), ShimError> {
    let deadline = Instant::now() + BUSY_TIME_MAX;
    loop {
        let flags = match Instant::now() < deadline {
            true => MntFlags::UMOUNT_NOFOLLOW,
            false => MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
        };
        match nix::mount::umount2(mountpoint, flags) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => sleep(BUSY_PAUSE),
            Err(error) => {
                let what = format!("unmounting {}", mountpoint.display());
                return Err(ShimError::io(what)(error.into()));
            }
        }
    }
}

/// Unmounts a file system of ours and ends the threads that served it.
pub fn end_session(session: BackgroundSession, mountpoint: &Path) -> Result<(), ShimError> {
    unmount(mountpoint)?;
    // The session would unmount as well, and finds that it is done.
    let _ = session.umount_and_join();
    Ok(())
}

/// Detaches every mount in this folder that an earlier run left behind, innermost first.
pub fn detach_all_under(folder: &Path) -> Result<(), ShimError> {
    let table = std::fs::read("/proc/self/mountinfo")
        .map_err(ShimError::io("reading /proc/self/mountinfo"))?;
    // A later mount may lie in or on an earlier one, never the other way round.
    for mountpoint in mountpoints_under(folder, &table).into_iter().rev() {
        tracing::info!(mountpoint = %mountpoint.display(), "detaching a mount that was left behind");
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        match nix::mount::umount2(&mountpoint, flags) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => {
                let what = format!("detaching {}", mountpoint.display());
                return Err(ShimError::io(what)(error.into()));
            }
        }
    }
    Ok(())
}

/// The mountpoints in a folder, in the order they were mounted. Source: `proc_pid_mountinfo(5)`:
/// the fifth field, with space, tab, newline and backslash in octal.
fn mountpoints_under(folder: &Path, table: &[u8]) -> Vec<PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|path| path.starts_with(folder) && path.as_path() != folder)
        .collect()
}

fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if *byte == b'\\' => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_a_folder_are_found_by_name_and_in_order() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n\
            90 22 0:50 / /srv/a\\040b/mnt rw,nosuid shared:1 - fuse.offshoot offshoot rw\n\
            91 22 0:50 /base /srv/a\\040b/data/base rw - fuse.offshoot offshoot rw\n\
            92 22 0:51 / /srv/a\\040bc rw - tmpfs tmpfs rw\n";
        let found = mountpoints_under(Path::new("/srv/a b"), table);
        assert_eq!(found, [Path::new("/srv/a b/mnt"), Path::new("/srv/a b/data/base")]);
    }
}
