//! Which Postgres 15 runs: this machine's, or for the suites the very minor whose tests they are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    MINOR,
    apt::Apt,
    kept,
    programs::{self, succeed},
};

/// Where Debian's packages of Postgres 15 have their programs.
const DEBIAN: &str = "usr/lib/postgresql/15";
/// Debian 12's archive. apt verifies its signature with the machine's own keys.
const SOURCES: &str = "deb http://deb.debian.org/debian bookworm main\n";

/// The programs of a Postgres 15.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Has `bin`, and `lib` with Postgres' drivers of tests.
    folder: PathBuf,
}

impl Postgres {
    /// This machine's: of Debian's packages, or on the path. Where there is none it is installed (`.ci/install`), as root or
    /// through sudo.
    ///
    /// # Errors
    /// Where there is none and none can be installed.
    pub fn of_this_machine() -> Result<Postgres> {
        if let Some(found) = Postgres::find()? {
            return Ok(found);
        }
        programs::install(&[]).context("this machine has no Postgres 15")?;
        Postgres::find()?.context("this machine has no Postgres 15, also after .ci/install")
    }

    /// [`MINOR`]: this machine's where it is that one, else Debian's packages of it, unpacked in the temporary folder and
    /// installed nowhere.
    ///
    /// # Errors
    /// Where the packages cannot be had.
    pub fn of_the_suites() -> Result<Postgres> {
        // Its packages bring the libraries, the time zones and the user.
        let machines = Postgres::of_this_machine()?;
        let version = machines.version()?;
        if version == MINOR && machines.pg_regress().is_ok() {
            return Ok(machines);
        }
        let unpacked = kept::folder(&env::temp_dir(), &format!("offshoot-postgres-{MINOR}"), unpack)
            .with_context(|| {
                format!(
                    "the suites are {MINOR}'s, this machine has {version}, and Debian's packages of {MINOR} were not to be had"
                )
            })?;
        let fetched = Postgres { folder: unpacked.join(DEBIAN) };
        let version = fetched.version()?;
        ensure!(version == MINOR, "{} is Postgres {version}", fetched.folder.display());
        Ok(fetched)
    }

    fn find() -> Result<Option<Postgres>> {
        let debian = Postgres { folder: Path::new("/").join(DEBIAN) };
        if debian.program("postgres").exists() {
            return Ok(Some(debian));
        }
        let path = env::var_os("PATH").unwrap_or_default();
        for bin in env::split_paths(&path).filter(|bin| bin.join("postgres").exists()) {
            // A link may lead to where the libraries are.
            let program = fs::canonicalize(bin.join("postgres"))?;
            let Some(folder) = program.parent().and_then(Path::parent) else { continue };
            let found = Postgres { folder: folder.to_owned() };
            if found.version()?.starts_with("15.") {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The folder of `postgres`, `psql` and the like.
    pub fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// A program by its name.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// As `15.18`.
    pub fn version(&self) -> Result<String> {
        let said = succeed(Command::new(self.program("postgres")).arg("--version"))?;
        version(&said).with_context(|| format!("{} is no Postgres", self.folder.display()))
    }

    /// Runs tests of SQL.
    pub(crate) fn pg_regress(&self) -> Result<PathBuf> {
        self.driver("regress/pg_regress")
    }

    /// Runs tests of sessions beside each other; `isolationtester` is beside it.
    pub(crate) fn pg_isolation_regress(&self) -> Result<PathBuf> {
        self.driver("isolation/pg_isolation_regress")
    }

    /// `postgresql-client-15` has these for those who build extensions.
    fn driver(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join("lib/pgxs/src/test").join(name);
        if !path.exists() {
            bail!("{} is missing: install Debian's postgresql-client-15", path.display());
        }
        Ok(path)
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version(said: &str) -> Option<String> {
    Some(said.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?.to_owned())
}

/// The programs find their libraries and share files by where they are themselves, so that they need not be installed.
fn unpack(folder: &Path) -> Result<()> {
    let downloads = tempfile::tempdir()?;
    let apt = Apt::new(downloads.path(), SOURCES)?;
    for package in ["postgresql-15", "postgresql-client-15"] {
        apt.get(&["download", &format!("{package}={MINOR}-0+deb12u1")])?;
    }
    for entry in fs::read_dir(apt.folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "deb") {
            succeed(Command::new("dpkg-deb").arg("-x").arg(path).arg(folder))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_postgres_says_of_itself() {
        let said = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(version(said).as_deref(), Some("15.18"));
        assert_eq!(version("postgres (PostgreSQL) 15.18\n").as_deref(), Some("15.18"));
        assert_eq!(version("something else"), None);
    }
}
