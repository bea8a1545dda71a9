//! The clients, as npm and PyPI have them, below `target/tmp`.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context;

use crate::run;

const NEONCTL: &str = "neonctl@5.0.1";
const API_CLIENT: &str = "@neondatabase/api-client@2.7.3";
const PYTHON_CLIENT: &str = "neon-api==0.3.0";
/// The npm package that brings a node, where the machine's is older than neonctl wants.
const NODE: &str = "node@22";
/// The oldest that neonctl runs on.
const NODE_MIN: (u32, u32) = (20, 19);

/// Node, and the folder that has the packages.
pub struct JavaScript {
    pub node: PathBuf,
    pub folder: PathBuf,
}

impl JavaScript {
    /// neonctl's program.
    pub fn neonctl(&self) -> PathBuf {
        self.folder.join("node_modules/neonctl/bin/cli.js")
    }
}

fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("neon-clients").join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Two tests want the same packages: one installs them, the other finds them.
fn alone(folder: &std::path::Path) -> anyhow::Result<fs::File> {
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// neonctl and the JavaScript client.
pub fn javascript() -> anyhow::Result<JavaScript> {
    let folder = folder("javascript")?;
    let _lock = alone(&folder)?;
    let own = is_new_enough("node");
    let mut packages = vec![NEONCTL, API_CLIENT];
    if !own {
        packages.push(NODE);
    }
    let wanted = packages.join(" ");
    let marker = folder.join("installed");
    if fs::read_to_string(&marker).ok().as_deref() != Some(&wanted) {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).args(&packages);
        run(&mut npm).context("npm is needed: .ci/install --tests installs it")?;
        fs::write(&marker, &wanted)?;
    }
    let node = match own {
        true => PathBuf::from("node"),
        false => folder.join("node_modules/node/bin/node"),
    };
    Ok(JavaScript { node, folder })
}

fn is_new_enough(node: &str) -> bool {
    let Ok(said) = run(Command::new(node).arg("--version")) else { return false };
    let mut parts = said.trim().trim_start_matches('v').split('.').map(|part| part.parse().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= NODE_MIN,
        _ => false,
    }
}

/// A Python that has the Python client.
pub fn python() -> anyhow::Result<PathBuf> {
    let folder = folder("python")?;
    let _lock = alone(&folder)?;
    let python = folder.join("venv/bin/python");
    let marker = folder.join("installed");
    if fs::read_to_string(&marker).ok().as_deref() != Some(PYTHON_CLIENT) {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))
            .context("Python's venv is needed: .ci/install --tests installs it")?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PYTHON_CLIENT]))?;
        fs::write(&marker, PYTHON_CLIENT)?;
    }
    Ok(python)
}
