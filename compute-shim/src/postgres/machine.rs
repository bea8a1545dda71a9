//! What this machine must have: each thing that it lacks is one sentence and the mend.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{User, geteuid};

use super::MAJOR;
use crate::{ShimError, fuse::Owner};

/// Where Debian puts the server's programs, which are not on its PATH.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql/15/bin";
/// The user that Postgres runs as where none is named: Debian's package makes it.
const USER: &str = "postgres";
/// The bit of `CAP_SYS_ADMIN`. Source: capability.h.
const CAP_SYS_ADMIN: u32 = 21;

/// What a compute uses of its machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The `postgres` program.
    pub postgres: PathBuf,
    /// The user that it runs as.
    pub user: String,
    /// The user's numbers.
    pub owner: Owner,
    /// Where it listens: a free port.
    pub listen: SocketAddr,
}

impl Machine {
    /// Looks at the machine.
    pub fn check(
        pg_bin: Option<&Path>,
        user: Option<&str>,
        listen: SocketAddr,
    ) -> Result<Machine, ShimError> {
        check_privileges()?;
        check_fuse()?;
        let postgres = find_postgres(pg_bin)?;
        check_major(&postgres)?;
        let (user, owner) = find_user(user.unwrap_or(USER))?;
        let listen = free_address(listen)?;
        Ok(Machine { postgres, user, owner, listen })
    }
}

fn lacks(what: impl Into<String>, mend: impl Into<String>) -> ShimError {
    ShimError::Precondition { what: what.into(), mend: mend.into() }
}

fn check_privileges() -> Result<(), ShimError> {
    if !geteuid().is_root() {
        return Err(lacks(
            "a compute mounts file systems and runs Postgres as another user, which needs root",
            "run it with sudo",
        ));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if capabilities.is_some_and(|mask| mask >> CAP_SYS_ADMIN & 1 == 0) {
        return Err(lacks(
            "this root may not mount file systems (no SYS_ADMIN)",
            "in a container, add docker's flags --device /dev/fuse --cap-add SYS_ADMIN \
             --security-opt apparmor=unconfined",
        ));
    }
    Ok(())
}

fn check_fuse() -> Result<(), ShimError> {
    const FLAGS: &str = "in a container, add docker's flags --device /dev/fuse --cap-add SYS_ADMIN; elsewhere, \
         run modprobe fuse";
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(lacks("/dev/fuse is missing", FLAGS))
        }
        Err(error) => Err(lacks(format!("/dev/fuse cannot be opened ({error})"), FLAGS)),
    }
}

/// The `postgres` program: in the folder that was named, in Debian's, on the PATH.
fn find_postgres(pg_bin: Option<&Path>) -> Result<PathBuf, ShimError> {
    if let Some(folder) = pg_bin {
        return program_in(folder).ok_or_else(|| {
            lacks(
                format!("{} has no program named postgres", folder.display()),
                "name the folder with Postgres 15's programs, such as /usr/lib/postgresql/15/bin",
            )
        });
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(PathBuf::from(DEBIAN_FOLDER)).chain(std::env::split_paths(&path));
    folders.into_iter().find_map(|folder| program_in(&folder)).ok_or_else(|| {
        lacks(
            format!("Postgres {MAJOR} is not installed: no postgres in {DEBIAN_FOLDER} or on PATH"),
            "run apt-get install postgresql-15, or name the folder with --pg-bin",
        )
    })
}

fn program_in(folder: &Path) -> Option<PathBuf> {
    let program = folder.join("postgres");
    let metadata = std::fs::metadata(&program).ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(program)
}

fn check_major(postgres: &Path) -> Result<(), ShimError> {
    let output = Command::new(postgres)
        .arg("--version")
        .output()
        .map_err(ShimError::io(format!("running {} --version", postgres.display())))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if major_of(&version) != Some(MAJOR) {
        return Err(lacks(
            format!("{} is {version:?}, not Postgres {MAJOR}", postgres.display()),
            "run apt-get install postgresql-15, or name its folder with --pg-bin",
        ));
    }
    Ok(())
}

/// The major of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The user of this name, or of this number, whether it has an account or not.
fn find_user(name: &str) -> Result<(String, Owner), ShimError> {
    if let Some(number) = name.parse().ok().filter(|number| *number > 0) {
        return Ok((name.to_owned(), Owner { uid: number, gid: number }));
    }
    let user = User::from_name(name)
        .map_err(|error| ShimError::io(format!("finding user {name}"))(error.into()))?
        .ok_or_else(|| {
            lacks(
                format!("there is no user {name} to run Postgres as"),
                "run apt-get install postgresql-15, which makes postgres, or name another user",
            )
        })?;
    if user.uid.is_root() {
        return Err(lacks(
            "Postgres does not run as root",
            "name an unprivileged user, such as postgres",
        ));
    }
    let owner = Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    Ok((user.name, owner))
}

/// The address with a port that nobody listens on. Another process may take it before Postgres
/// does; then Postgres says so.
fn free_address(listen: SocketAddr) -> Result<SocketAddr, ShimError> {
    let taken = |error: io::Error| {
        let port = listen.port();
        lacks(
            format!("{listen} cannot be listened on ({error})"),
            format!("stop what listens on port {port}, or choose another port (0: a free one)"),
        )
    };
    TcpListener::bind(listen).and_then(|listener| listener.local_addr()).map_err(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_is_read_from_what_postgres_says() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
        assert_eq!(major_of(debian), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 17beta1"), Some(17));
        assert_eq!(major_of("postgres"), None);
    }

    #[test]
    fn a_user_is_a_name_or_a_number() {
        let numbered = Owner { uid: 1_879_006_500, gid: 1_879_006_500 };
        assert_eq!(find_user("1879006500").expect("no account is needed").1, numbered);
        for refused in ["root", "0", "4294967296", "-1"] {
            assert!(find_user(refused).is_err(), "{refused} may run Postgres");
        }
    }

    #[test]
    fn a_taken_port_and_a_missing_program_are_said_with_their_mends() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let taken = listener.local_addr().expect("it has an address");
        let sentence = free_address(taken).expect_err("it is taken").to_string();
        assert!(sentence.contains("choose another port"), "{sentence}");
        let empty = tempfile::tempdir().expect("a folder");
        let sentence = find_postgres(Some(empty.path())).expect_err("none there").to_string();
        assert!(sentence.contains("name the folder"), "{sentence}");
        let sentence = find_user("no-such-user").expect_err("no such user").to_string();
        assert!(sentence.contains("there is no user no-such-user"), "{sentence}");
    }
}
