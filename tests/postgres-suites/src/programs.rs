//! Programs of this machine: whether they are here, how they are installed, how they are run.

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// What installs what a build and the tests need.
const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/install");

/// Whether a program is on the path.
pub fn is_here(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(name).exists())
}

/// Installs what this machine lacks, as root or through sudo.
pub fn install(options: &[&str]) -> Result<()> {
    ensure!(Path::new(INSTALL).exists(), "{INSTALL}, which installs it, is gone");
    succeed(Command::new(INSTALL).args(options)).map(|_| ())
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
