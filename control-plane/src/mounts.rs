//! The end of a compute's folder: what was left mounted below it, and all that was in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};

/// Unmounts everything below `folder`, the innermost first, then removes it. Lazily: a mount whose
/// server is dead may still be held open by a Postgres process that is about to end.
pub(crate) fn clear(folder: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for mountpoint in below(&mounts, folder) {
        umount2(&mountpoint, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_dir_all(folder) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
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
