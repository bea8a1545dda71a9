//! The programs that the suites need, by name, with what to do where one is missing.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Where Debian's packages of Postgres 15 have their programs.
const DEBIAN: &str = "/usr/lib/postgresql/15";

/// `psql` and the like.
pub fn bin() -> PathBuf {
    Path::new(DEBIAN).join("bin")
}

/// `pg_regress`, which `postgresql-client-15` has for those who build extensions.
pub fn pg_regress() -> Result<PathBuf> {
    driver("regress/pg_regress")
}

/// `pg_isolation_regress`, with `isolationtester` beside it.
pub fn pg_isolation_regress() -> Result<PathBuf> {
    driver("isolation/pg_isolation_regress")
}

fn driver(name: &str) -> Result<PathBuf> {
    let path = Path::new(DEBIAN).join("lib/pgxs/src/test").join(name);
    ensure!(path.exists(), "{} is missing: install Debian's postgresql-client-15", path.display());
    Ok(path)
}

/// Fails with the packages to install where one of these programs is not on the path.
pub fn require(programs: &[(&str, &str)]) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_missing = |name: &str| !env::split_paths(&path).any(|folder| folder.join(name).exists());
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| is_missing(program))
        .map(|(_, package)| *package)
        .collect();
    ensure!(
        missing.is_empty(),
        "the suites need more programs: apt-get install {}",
        missing.join(" ")
    );
    Ok(())
}

/// Runs a program to its end; fails with what it said.
pub fn succeed(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {name}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{name}: {}\n{}{}",
        output.status,
        tail(&said),
        tail(&String::from_utf8_lossy(&output.stderr))
    );
    Ok(said)
}

/// The last lines, which say why.
fn tail(text: &str) -> String {
    const LINES_MAX: usize = 15;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().map(|line| format!("{line}\n")).collect()
}
