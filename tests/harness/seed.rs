//! An object store that holds the default template, made once for a test binary by the first
//! `offshoot up`, and copied for each cluster: initdb is slow, a copy is not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use tokio::sync::OnceCell;

use super::{Process, ports::free_address};

static SEED: OnceCell<PathBuf> = OnceCell::const_new();

/// The object store's folder.
pub async fn seed() -> anyhow::Result<&'static Path> {
    let made = SEED.get_or_try_init(async || make()).await?;
    Ok(made.as_path())
}

fn make() -> anyhow::Result<PathBuf> {
    let folder = super::cluster::folder()?;
    let data = folder.path().join("data");
    let mut up = Process::spawn(&up_arguments(&data), &folder.path().join("up.log"))?;
    up.wait_for_line("\"ready\"")?;
    let status = up.stop()?;
    ensure!(status.success(), "up ended with {status}:\n{}", up.log());
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seed-{}", std::process::id()));
    // Of an earlier process with the same number.
    let _none = fs::remove_dir_all(&kept);
    copy(&data.join("store"), &kept)?;
    remove_abandoned(&kept)?;
    Ok(kept)
}

/// `offshoot up` with everything on ports of its own.
pub fn up_arguments(data: &Path) -> Vec<String> {
    let safekeepers: Vec<String> = (0..3).map(|_| free_address().to_string()).collect();
    let options = [
        ("--data", data.display().to_string()),
        ("--http", free_address().to_string()),
        ("--pageserver-http", free_address().to_string()),
        ("--pageserver", free_address().to_string()),
        ("--safekeepers", safekeepers.join(",")),
        ("--compute-ports", super::cluster::compute_ports()),
    ];
    let mut arguments = vec!["--json".to_owned(), "up".to_owned()];
    arguments.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    arguments
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

/// Removes the seeds of processes that live no more.
fn remove_abandoned(own: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(pid) = name.strip_prefix("seed-") else { continue };
        if path != own && !Path::new("/proc").join(pid).exists() {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}
