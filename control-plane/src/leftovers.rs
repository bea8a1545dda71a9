//! The end of a compute's folder: the processes that still work in it, what is mounted below it, and
//! all that was in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long killed processes may take to be gone: one that waits for a dead mount is woken by the
/// kernel, but not at once.
const WORKERS_END_MAX: Duration = Duration::from_secs(10);

/// Kills the processes that work below `folder`, unmounts everything below it, the innermost first,
/// then removes it. Lazily: a mount whose server is dead may still be held open by a process that
/// is about to end.
pub(crate) fn clear(folder: &Path) -> io::Result<()> {
    kill_workers(folder)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for mountpoint in below(&mounts, folder) {
        umount2(&mountpoint, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_dir_all(folder) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A postmaster and its children have the data directory as their working directory. Where their
/// shim is gone, nothing that they do can count any more, and they hold the port.
fn kill_workers(folder: &Path) -> io::Result<()> {
    let deadline = Instant::now() + WORKERS_END_MAX;
    loop {
        let workers = workers(folder)?;
        if workers.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let count = workers.len();
            return Err(io::Error::other(format!("{count} processes in it do not end")));
        }
        for worker in workers {
            // ESRCH: it has ended meanwhile, which is what is wanted.
            let _gone = kill(worker, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn workers(folder: &Path) -> io::Result<Vec<Pid>> {
    let works_there = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw);
    Ok(fs::read_dir("/proc")?.flatten().filter(works_there).filter_map(number).collect())
}

/// The mount points of a `mountinfo` that lie below `folder`, the latest first.
fn below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|mountpoint| mountpoint.starts_with(folder))
        .collect();
    found.reverse();
    found
}

/// Space, tab, newline and backslash stand in `mountinfo` as three octal digits.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder_are_found_innermost_first() {
        let mountinfo = "\
            36 35 98:0 / /data rw - ext4 /dev/a rw\n\
            37 36 0:51 / /data/c\\0401/fuse rw - fuse.offshoot offshoot rw\n\
            38 36 0:51 /base /data/c\\0401/pgdata/base rw - fuse.offshoot offshoot rw\n\
            39 36 0:52 / /data/c\\0402/fuse rw - fuse.offshoot offshoot rw\n";
        let found = below(mountinfo, Path::new("/data/c 1"));
        let expected = ["/data/c 1/pgdata/base", "/data/c 1/fuse"].map(PathBuf::from);
        assert_eq!(found, expected);
    }
}
