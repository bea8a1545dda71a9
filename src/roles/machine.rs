//! What this machine must have before a compute can run on it; each lack is a sentence with the
//! mend.

use std::path::Path;

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Uid, User},
};

use crate::failure::Failure;

/// The kernel's door to FUSE.
const FUSE_DEVICE: &str = "/dev/fuse";

/// Checks that this process may mount: it is root, and FUSE is there.
pub fn check() -> Result<(), Failure> {
    if !Uid::effective().is_root() {
        return Err(Failure::new(
            "a compute mounts file systems, which needs root: run this with sudo (Postgres itself \
             runs as an unprivileged user)",
        ));
    }
    if !Path::new(FUSE_DEVICE).exists() {
        return Err(Failure::new(format!(
            "there is no {FUSE_DEVICE}: load the module with `modprobe fuse`, or start the \
             container with --device {FUSE_DEVICE} --cap-add SYS_ADMIN"
        )));
    }
    Ok(())
}

/// Takes as many open files as the machine gives to this process: each client of the proxy needs two,
/// and 1,024 are the usual first offer.
pub fn take_open_files() {
    let taken = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = taken {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
}

/// The user that runs Postgres.
pub fn user(name: &str) -> Result<User, Failure> {
    let found = User::from_name(name)
        .map_err(|error| Failure::new(format!("user {name} cannot be looked up: {error}")))?;
    let user = found.ok_or_else(|| {
        Failure::new(format!(
            "there is no user {name} to run Postgres as: install Postgres 15 (Debian: apt-get \
             install postgresql-15), or name another user with --user"
        ))
    })?;
    if user.uid.is_root() {
        return Err(Failure::new("Postgres refuses to run as root: name another user with --user"));
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_machine_gives() {
        let limits = || getrlimit(Resource::RLIMIT_NOFILE).expect("a process has limits");
        let (_, most) = limits();
        setrlimit(Resource::RLIMIT_NOFILE, most / 2, most).expect("less may always be asked for");
        take_open_files();
        assert_eq!(limits(), (most, most));
    }
}
