//! Where Postgres' programs are.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// The majors that are served, and Debian's folder of each.
const FOLDERS: [&str; 1] = ["/usr/lib/postgresql/15/bin"];

/// Finds a program of Postgres: in the folder that was named, or else in Debian's folder, or on
/// PATH. Debian's comes first because its `psql` on PATH is a wrapper that looks for clusters.
pub fn find(program: &str, named: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = match named {
        Some(folder) => vec![folder.to_owned()],
        None => FOLDERS.iter().map(PathBuf::from).chain(env::split_paths(&path)).collect(),
    };
    let found = folders.iter().map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| match named {
        Some(folder) => Failure::new(format!(
            "there is no {program} in {}; --pg-bin names the folder with Postgres 15's programs",
            folder.display()
        )),
        None => Failure::new(format!(
            "{program} was not found: install Postgres 15 (Debian: apt-get install postgresql-15) \
             or say where it is with --pg-bin"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_mend() {
        let folder = Path::new("/nonexistent");
        let failure = find("initdb", Some(folder)).expect_err("nothing is there");
        assert!(failure.to_string().contains("--pg-bin"), "{failure}");
        let failure = find("no-such-program", None).expect_err("nothing is there");
        assert!(failure.to_string().contains("apt-get install"), "{failure}");
    }
}
