//! The module by which a backend can be given its client's own socket: put where Postgres finds it.
//!
//! A compute does without it where it cannot be loaded: the proxy asks each backend, and passes bytes on.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{FsFlags, statvfs};

/// The module, as the build script made it of the crate `handover`.
const MODULE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/handover.so"));
/// Its name in the compute's folder.
const NAME: &str = "handover.so";

/// Puts the module into a compute's folder; its path, for `LD_PRELOAD`, where Postgres can load it.
pub fn put(folder: &Path) -> Option<PathBuf> {
    let put = || -> io::Result<Result<PathBuf, &str>> {
        let path = folder.join(NAME);
        // What separates one module from the next.
        if path.as_os_str().as_encoded_bytes().iter().any(|byte| b" :".contains(byte)) {
            return Ok(Err("its path has a space or a colon in it"));
        }
        if statvfs(folder)?.flags().contains(FsFlags::ST_NOEXEC) {
            return Ok(Err("nothing is executed there: it is mounted with noexec"));
        }
        // A Postgres of before may have the old file mapped.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(&path, MODULE)?;
        Ok(Ok(path))
    };
    let reason = match put() {
        Ok(Ok(path)) => return Some(path),
        Ok(Err(reason)) => reason.to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        folder = %folder.display(), reason,
        "backends will not be given their clients' sockets: the proxy passes bytes on"
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_put_anew_and_only_where_it_can_be_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..2 {
            let path = put(folder.path()).expect("it can be loaded from here");
            assert_eq!(fs::read(path).expect("it is there"), MODULE);
        }
        let split = folder.path().join("a b");
        fs::create_dir(&split).expect("a folder");
        assert_eq!(put(&split), None, "it would be taken for two modules");
        assert_eq!(put(&folder.path().join("none")), None);
    }
}
