//! Mounting the relation files, and unmounting them.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use fuser::{BackgroundSession, Session};

use super::{REQUEST_BYTES_MAX, RelationFiles};
use crate::{ShimError, mounts};

/// Threads that take the kernel's requests.
const THREADS: usize = 4;

/// The mounted relation files.
pub struct FuseMount {
    mountpoint: PathBuf,
    session: BackgroundSession,
}

/// Mounts the files on an empty folder.
pub fn mount(files: RelationFiles, mountpoint: &Path) -> Result<FuseMount, ShimError> {
    let config = mounts::fuse_config(THREADS);
    let failed = || ShimError::io(format!("mounting {}", mountpoint.display()));
    let session =
        Session::new(files, mountpoint, &config).and_then(Session::spawn).map_err(failed())?;
    raise_read_ahead(mountpoint);
    Ok(FuseMount { mountpoint: mountpoint.to_owned(), session })
}

impl FuseMount {
    /// Unmounts; lazily where something still has a file open.
    pub fn unmount(self) -> Result<(), ShimError> {
        mounts::end_session(self.session, &self.mountpoint)
    }
}

/// Read-ahead is what makes a cold sequential scan fast: one request fetches so much. It is an
/// improvement, not a condition: where `/sys` is read-only the kernel's own value stays.
fn raise_read_ahead(mountpoint: &Path) {
    let raised = std::fs::metadata(mountpoint).and_then(|root| {
        let device = root.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        std::fs::write(setting, (REQUEST_BYTES_MAX >> 10).to_string())
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "read-ahead could not be raised: cold scans will be slower");
    }
}
