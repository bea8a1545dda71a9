//! What is made once for each machine and kept outside the clone.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The folder of this name in the cache: where it is not there, `make` fills it. Other processes that want it wait.
pub fn folder(cache: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = cache.join(name);
    let lock = File::create(folder.with_extension("lock"))
        .with_context(|| format!("{} cannot be written", cache.display()))?;
    lock.lock().with_context(|| format!("waiting for another process that makes {name}"))?;
    if !folder.exists() {
        let unfinished = tempfile::Builder::new().prefix(name).tempdir_in(cache)?;
        make(unfinished.path())?;
        // The server's user reads it too.
        fs::set_permissions(unfinished.path(), fs::Permissions::from_mode(0o755))?;
        fs::rename(unfinished.keep(), &folder)?;
    }
    Ok(folder)
}
