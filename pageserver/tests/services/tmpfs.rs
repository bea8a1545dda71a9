//! A disk that a test can fill.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use tempfile::TempDir;

/// A file system of its own in memory, unmounted when it is dropped.
pub struct Tmpfs {
    folder: PathBuf,
    _own: Option<TempDir>,
}

impl Tmpfs {
    /// In a new folder.
    pub fn new(bytes: u64) -> Result<Tmpfs> {
        let folder = TempDir::new()?;
        let mut mounted = Tmpfs::over(folder.path(), bytes)?;
        mounted._own = Some(folder);
        Ok(mounted)
    }

    /// Over a folder that is there.
    pub fn over(folder: &Path, bytes: u64) -> Result<Tmpfs> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(folder);
        ensure!(mount.status()?.success(), "{mount:?}");
        Ok(Tmpfs { folder: folder.to_owned(), _own: None })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Files of a pageserver that is ending may be open still.
        if let Err(error) = Command::new("umount").arg("--lazy").arg(&self.folder).status() {
            eprintln!("{} is mounted still: {error}", self.folder.display());
        }
    }
}
