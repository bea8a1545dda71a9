//! The folder of `offshoot up`: who holds it, who may pass through it, and what is in it.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::User;

use crate::failure::Failure;

/// The layout of the folder; another one is refused.
const VERSION: &str = "offshoot data, layout 1\n";

/// The folder, held until this is dropped.
pub struct DataFolder {
    path: PathBuf,
    /// Locked: the kernel lets go of it with the process, however that ends.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder where it is missing, and takes it for this process alone.
    pub fn open(path: &Path, user: &User) -> Result<DataFolder, Failure> {
        let path = super::control_plane::absolute(path)?;
        let failed =
            |error: io::Error| Failure::new(format!("data folder {}: {error}", path.display()));
        fs::create_dir_all(&path).map_err(failed)?;
        check_version(&path)?;
        // The user that runs Postgres passes through to its compute; what is inside is closed.
        fs::set_permissions(&path, Permissions::from_mode(0o711)).map_err(failed)?;
        check_reachable(&path, user)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::conflict(format!(
                    "data folder {} is in use by another `offshoot up`: stop that one, or choose \
                     another folder with --data",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(DataFolder { path, _lock: lock })
    }

    /// A folder for one role, closed to all but root.
    pub fn private(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.path.join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(0o700)))
            .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
        Ok(folder)
    }

    /// A path inside, not made yet.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn check_version(path: &Path) -> Result<(), Failure> {
    let file = path.join("VERSION");
    let refused =
        |reason: String| Failure::new(format!("data folder {}: {reason}", path.display()));
    match fs::read_to_string(&file) {
        Ok(version) if version == VERSION => Ok(()),
        Ok(other) => Err(refused(format!(
            "its layout is {:?}, this program serves {:?}: use the version of offshoot that made \
             it, or another folder with --data",
            other.trim(),
            VERSION.trim()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(path).map_err(|error| refused(error.to_string()))?;
            if entries.next().is_some() {
                return Err(refused(
                    "it is not empty and was not made by offshoot: choose an empty folder with \
                     --data"
                        .to_owned(),
                ));
            }
            let written = File::create(&file).and_then(|mut file| {
                file.write_all(VERSION.as_bytes())?;
                file.sync_all()
            });
            written.map_err(|error| refused(error.to_string()))
        }
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Postgres must be able to pass through every folder above its own.
fn check_reachable(path: &Path, user: &User) -> Result<(), Failure> {
    for folder in path.ancestors() {
        let metadata = fs::metadata(folder)
            .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
        let bit = match () {
            () if metadata.uid() == user.uid.as_raw() => 0o100,
            () if metadata.gid() == user.gid.as_raw() => 0o010,
            () => 0o001,
        };
        if metadata.mode() & bit == 0 {
            return Err(Failure::new(format!(
                "user {} cannot pass through {}, so Postgres could not reach its files in {}: \
                 choose another folder with --data, or `chmod o+x {}`",
                user.name,
                folder.display(),
                path.display(),
                folder.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> User {
        User::from_uid(nix::unistd::Uid::effective()).expect("a lookup").expect("a user")
    }

    #[test]
    fn a_data_folder_of_another_version_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("VERSION"), "offshoot data, layout 9\n").expect("written");
        let failure = DataFolder::open(folder.path(), &me()).err().expect("refused");
        assert!(failure.to_string().contains("layout 9"), "{failure}");
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("letter"), "dear").expect("written");
        let failure = DataFolder::open(folder.path(), &me()).err().expect("refused");
        assert!(failure.to_string().contains("not made by offshoot"), "{failure}");
    }

    #[test]
    fn a_data_folder_is_held_by_one_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = DataFolder::open(folder.path(), &me()).expect("opened");
        let failure = DataFolder::open(folder.path(), &me()).err().expect("refused");
        assert!(failure.to_string().contains("in use"), "{failure}");
        drop(held);
        assert!(DataFolder::open(folder.path(), &me()).is_ok());
    }

    #[test]
    fn a_folder_that_postgres_cannot_pass_through_is_named() {
        let outer = tempfile::tempdir().expect("a folder");
        fs::set_permissions(outer.path(), Permissions::from_mode(0o700)).expect("closed");
        let nobody = User { uid: 65534.into(), gid: 65534.into(), ..me() };
        let failure = DataFolder::open(&outer.path().join("data"), &nobody).err();
        let failure = failure.expect("refused").to_string();
        assert!(failure.contains("cannot pass through"), "{failure}");
    }
}
