//! The yardstick: stock Postgres' crash recovery of the same WAL from the same files.
//!
//! The files are those of a clean stop, and `pg_control` says that the server was running: so recovery begins at that stop's checkpoint
//! and replays all of the WAL. Its time is what it logs itself, from "redo starts" to "redo done": no fsync, no checkpoint.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, bail};
use wal_format::{ClusterState, ControlFile};

use super::{Took, server::Server, wal::Recorded};

/// In favour of recovery: nothing is synced, every page that is touched stays in memory, and the background writer keeps still.
/// `wal_recycle=off` leaves the WAL's files to the next round.
pub const SETTINGS: [&str; 8] = [
    "fsync=off",
    "full_page_writes=off",
    "wal_recycle=off",
    "shared_buffers=2GB",
    "bgwriter_lru_maxpages=0",
    "max_wal_size=100GB",
    "max_connections=50",
    "listen_addresses=",
];

/// How long recovery may take.
const LONGEST: Duration = Duration::from_secs(600);
/// How often its log is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Recovers once.
pub fn run(recorded: &Recorded) -> Result<Took> {
    let data = recorded.scratch();
    recorded.copy_with_wal(&data)?;
    let control = data.join("global/pg_control");
    let mut file = ControlFile::decode(&fs::read(&control)?)?;
    file.state = ClusterState::Production;
    fs::write(&control, file.encode())?;

    let mut settings: Vec<String> =
        SETTINGS.into_iter().flat_map(|setting| ["-c".to_owned(), setting.to_owned()]).collect();
    settings.extend(["-c".to_owned(), format!("unix_socket_directories={}", data.display())]);
    let server = Server::start(&data, &data, &settings, false)?;
    let took = wait_for_redo(&data.join("log"))?;
    drop(server);
    fs::remove_dir_all(&data)?;
    Ok(took)
}

/// Waits for `redo done at 0/… system usage: CPU: user: 3.03 s, system: 0.50 s, elapsed: 3.55 s`.
fn wait_for_redo(log: &std::path::Path) -> Result<Took> {
    let began = std::time::Instant::now();
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        let done = text.lines().find(|line| line.contains("redo done at"));
        // The line may be half written yet.
        if let Some(line) = done.filter(|_| text.ends_with('\n')) {
            let seconds = |name: &str| -> Result<f64> {
                let (_, rest) = line.split_once(name).with_context(|| line.to_owned())?;
                let value = rest.split(' ').next().unwrap_or_default();
                value.parse().with_context(|| line.to_owned())
            };
            let cpu_seconds = seconds("user: ")? + seconds("system: ")?;
            return Ok(Took { seconds: seconds("elapsed: ")?, cpu_seconds });
        }
        if began.elapsed() > LONGEST || text.contains("FATAL") {
            bail!("no recovery:\n{text}");
        }
        thread::sleep(LOOK);
    }
}
