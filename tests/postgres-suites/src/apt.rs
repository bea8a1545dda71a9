//! Packages of Debian 12, fetched through apt with a sources list and state of its own: the machine's are neither read nor
//! changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::programs::{is_here, succeed};

/// A folder with apt's state in it; packages are downloaded there.
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Makes the folder, and asks what packages there are in these sources.
    pub fn new(folder: &Path, sources: &str) -> Result<Apt> {
        ensure!(is_here("apt-get"), "there is no apt-get here, which fetches Debian's packages");
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::write(folder.join("sources.list"), sources)
            .with_context(|| folder.display().to_string())?;
        let apt = Apt { folder: folder.to_owned() };
        apt.get(&["update"])?;
        Ok(apt)
    }

    /// Runs `apt-get` in the folder.
    pub fn get(&self, arguments: &[&str]) -> Result<()> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new("apt-get");
        command.current_dir(&self.folder).arg("-qq");
        command.arg("-o").arg(format!("Dir::Etc::SourceList={}", path("sources.list")));
        command.args(["-o", "Dir::Etc::SourceParts=/dev/null", "-o", "APT::Sandbox::User="]);
        command.arg("-o").arg(format!("Dir::State::Lists={}", path("lists")));
        command.arg("-o").arg(format!("Dir::Cache={}", path("cache")));
        succeed(command.args(arguments)).map(|_| ())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
