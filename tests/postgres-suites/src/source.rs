//! The tests' files: fetched, built and kept once for each machine, outside the clone.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    MINOR,
    apt::Apt,
    kept,
    programs::{install, is_here, succeed},
};

/// Debian's version of the source package.
const PACKAGE: &str = "postgresql-15=15.18-0+deb12u1";
const TARBALL: &str = "postgresql-15_15.18.orig.tar.bz2";
const TARBALL_SHA256: &str = "11df0df97fe3ea4ba9a791faaf39cee1d2fe571e78885b5b55d8517d27c323b4";
/// The archive is not taken at its word: what is downloaded must have the checksum above. So this works too where the
/// system is not Debian and has no key of Debian's.
const SOURCES: &str = "deb-src [trusted=yes] http://deb.debian.org/debian bookworm main\n";

/// The tests of every suite, on disk.
#[derive(Debug, Clone)]
pub struct Suites {
    folder: PathBuf,
}

impl Suites {
    /// Gets the tests, once: later calls, also of other processes, find them in [`Suites::folder`].
    /// The first call downloads 33 MB and takes half a minute of two cores.
    pub fn prepare() -> Result<Suites> {
        Suites::prepare_in(&env::temp_dir())
    }

    /// [`Suites::prepare`] with the tests below another folder, which the server's user must be able to read.
    pub fn prepare_in(cache: &Path) -> Result<Suites> {
        let folder = kept::folder(cache, &format!("offshoot-postgres-suites-{MINOR}"), |folder| {
            make(folder).context("preparing Postgres' regression suites")
        })?;
        Ok(Suites { folder })
    }

    /// Where the tests are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The core suite's `sql`, `expected`, `data` and schedule.
    pub(crate) fn core(&self) -> PathBuf {
        self.folder.join("regress")
    }

    pub(crate) fn core_schedule(&self) -> PathBuf {
        self.core().join("parallel_schedule")
    }

    /// The isolation suite's `specs`, `expected` and schedule.
    pub(crate) fn isolation(&self) -> PathBuf {
        self.folder.join("isolation")
    }

    /// A folder for each of the extensions.
    pub(crate) fn contrib(&self) -> PathBuf {
        self.folder.join("contrib")
    }

    /// The libraries whose functions the tests call.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.folder.join("lib")
    }
}

fn make(folder: &Path) -> Result<()> {
    if !["cc", "make", "perl", "bzip2"].into_iter().all(is_here) {
        install(&["--suites"])?;
    }
    let tarball = download(folder)?;
    let source = folder.join("source");
    fs::create_dir(&source)?;
    succeed(
        Command::new("tar")
            .arg("-xjf")
            .arg(&tarball)
            .arg("--strip-components=1")
            .current_dir(&source),
    )?;
    build(&source, &folder.join("lib"))?;
    for name in ["src/test/regress", "src/test/isolation", "contrib"] {
        let from = source.join(name);
        let to = folder.join(from.file_name().context("a folder's name")?);
        fs::rename(&from, to)?;
    }
    fs::remove_dir_all(source)?;
    fs::remove_dir_all(folder.join("apt"))?;
    Ok(())
}

fn download(folder: &Path) -> Result<PathBuf> {
    let apt = Apt::new(&folder.join("apt"), SOURCES)?;
    apt.get(&["source", "--download-only", PACKAGE])?;
    let folder = apt.folder();
    fs::write(folder.join("sums"), format!("{TARBALL_SHA256}  {TARBALL}\n"))?;
    succeed(Command::new("sha256sum").args(["--check", "sums"]).current_dir(folder))?;
    Ok(folder.join(TARBALL))
}

/// Builds what `make -C src/test/regress` would, but not all of Postgres before it.
fn build(source: &Path, libraries: &Path) -> Result<()> {
    // What is left out changes nothing in a module.
    let options = ["--quiet", "--without-readline", "--without-zlib"];
    succeed(Command::new("./configure").args(options).current_dir(source))?;
    let headers = ["-s", "-C", "src/backend", "generated-headers"];
    succeed(Command::new("make").args(headers).current_dir(source))?;
    fs::create_dir(libraries)?;
    for file in ["src/test/regress/regress.c", "contrib/spi/refint.c", "contrib/spi/autoinc.c"] {
        let file = source.join(file);
        let name = file.file_stem().context("a file's name")?;
        let mut cc = Command::new("cc");
        // The core suite expects the notices of a verbose refint.
        cc.args(["-shared", "-fPIC", "-O2", "-DREFINT_VERBOSE", "-I"])
            .arg(source.join("src/include"));
        succeed(cc.arg(&file).arg("-o").arg(libraries.join(name).with_extension("so")))?;
    }
    Ok(())
}
