//! A stock Postgres that recovers a base directory from a WAL archive, and stops at one LSN after the other.
//!
//! Each state comes from one replay without a stop in it: from a directory that is clean at a shutdown checkpoint, so that no page of it
//! is newer than where replay begins. (Postgres' own replay over newer pages is safe, but it leaves other visibility maps and commit
//! timestamps than a replay from the beginning.) At the LSN the server ends recovery: that writes every page, SLRU and two-phase file,
//! and a checkpoint with the counters as they stand. The settings that `pg_control` copies are learnt before, by a replay of their own
//! that shuts down where it should stop: the end of recovery would replace them by the server's own, if those were others.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use wal_format::{ClusterState, ControlFile, Lsn, WalSettings};

use crate::{
    harness::free_port,
    stock::{Stock, copy},
    stock_state::{StockState, read_control},
    wal::Stop,
};

/// How long a server may take to reach its target.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(180);

/// The standby, and the folder where it leaves the states that it stopped at.
pub struct Standby {
    stock: Stock,
    archive: PathBuf,
    port: u16,
    /// The directory at the last shutdown checkpoint.
    clean: PathBuf,
    /// The settings as of the last record that changed them, and where that ends.
    settings: Option<(Lsn, WalSettings)>,
    /// Tablespaces' locations.
    locations: BTreeMap<u32, PathBuf>,
    /// The state before: most of its files are the next one's too.
    last: PathBuf,
}

impl Standby {
    /// A standby of `base`, which is stopped cleanly, with its WAL in `archive`.
    pub fn new(stock: Stock, base: &Path, archive: PathBuf) -> Result<Standby> {
        let clean = stock.path("clean");
        copy(base, &clean)?;
        fs::write(clean.join("recovery.signal"), "")?;
        remove_wal(&clean)?;
        Ok(Standby {
            stock,
            archive,
            port: free_port(),
            clean,
            settings: None,
            locations: BTreeMap::new(),
            last: base.to_owned(),
        })
    }

    /// The state at this stop. Stops come in the order of the WAL, and all shutdown checkpoints are among them.
    pub fn advance(&mut self, to: Stop) -> Result<StockState> {
        let settings = self.settings_at(to)?;
        let root = self.stock.path(&format!("at-{:016X}", to.end.0));
        copy(&self.clean, &root)?;
        let control = self.finish(&root, to, &settings)?;
        ensure!(control.settings == settings, "the settings changed at the end of recovery");
        remove_wal(&root)?;
        share_files(&self.last, &root)?;
        self.last.clone_from(&root);
        if to.is_shutdown {
            self.replay(&self.clean.clone(), to)?;
            remove_wal(&self.clean)?;
            let control = read_control(&self.clean)?;
            ensure!(control.checkpoint == to.start, "the standby is not clean at {}", to.end);
        }
        let mut tablespaces = Vec::new();
        for entry in fs::read_dir(root.join("pg_tblspc"))? {
            let oid: u32 = entry?.file_name().to_string_lossy().parse()?;
            let location = self.locations.get(&oid).context("a tablespace without a location")?;
            tablespaces.push((oid, location.display().to_string()));
        }
        tablespaces.sort_unstable();
        Ok(StockState { root, control, tablespaces })
    }

    fn settings_at(&mut self, to: Stop) -> Result<WalSettings> {
        if let Some((since, settings)) = self.settings
            && since == to.settings_since
        {
            return Ok(settings);
        }
        let data = self.stock.path("settings");
        copy(&self.clean, &data)?;
        self.replay(&data, to)?;
        let settings = read_control(&data)?.settings;
        fs::remove_dir_all(data)?;
        self.settings = Some((to.settings_since, settings));
        Ok(settings)
    }

    /// Replays to the stop, and shuts down.
    fn replay(&mut self, data: &Path, to: Stop) -> Result<()> {
        let log = self.stock.path("replay.log");
        let roomy = ["max_prepared_transactions", "max_connections", "max_worker_processes"];
        let mut settings: Vec<_> = roomy.map(|name| (name, "200".to_owned())).to_vec();
        settings.extend(self.recovery_settings());
        // The record that begins at the target is replayed.
        settings.push(("recovery_target_lsn", to.start.to_string()));
        settings.push(("recovery_target_action", "shutdown".to_owned()));
        let mut server = self.stock.start(data, &settings, &log)?;
        let began = Instant::now();
        while server.try_wait()?.is_none() {
            if began.elapsed() > RECOVERY_TIME_MAX {
                stop(&mut server)?;
                bail!("the standby did not reach {}:\n{}", to.end, fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = fs::read_to_string(&log)?;
        let stopped = format!("recovery stopping after WAL location (LSN) \"{}\"", to.start);
        let state = read_control(data)?.state;
        ensure!(
            said.contains(&stopped) && state == ClusterState::ShutdownInRecovery,
            "the standby did not stop at {}:\n{said}",
            to.end
        );
        self.own_tablespaces(data)
    }

    /// Replays to the stop and ends recovery, with the settings that the WAL says, so that none is changed.
    fn finish(&mut self, data: &Path, to: Stop, settings: &WalSettings) -> Result<ControlFile> {
        let log = self.stock.path("finish.log");
        let mut all = vec![
            ("max_connections", settings.max_connections.to_string()),
            ("max_worker_processes", settings.max_worker_processes.to_string()),
            ("max_wal_senders", settings.max_wal_senders.to_string()),
            ("max_prepared_transactions", settings.max_prepared_transactions.to_string()),
            ("max_locks_per_transaction", settings.max_locks_per_transaction.to_string()),
            ("track_commit_timestamp", settings.track_commit_timestamp.to_string()),
            ("wal_log_hints", settings.wal_log_hints.to_string()),
            ("wal_level", wal_level(settings.wal_level)?.to_owned()),
        ];
        all.extend(self.recovery_settings());
        if !to.is_last {
            all.push(("recovery_target_lsn", to.end.to_string()));
            all.push(("recovery_target_inclusive", "off".to_owned()));
            all.push(("recovery_target_action", "promote".to_owned()));
        }
        let mut server = self.stock.start(data, &all, &log)?;
        let began = Instant::now();
        let control = loop {
            let ended = server.try_wait()?;
            // It may be read while it is written.
            match read_control(data) {
                Ok(control) if control.state == ClusterState::Production => break control,
                _ if ended.is_some() || began.elapsed() > RECOVERY_TIME_MAX => {
                    stop(&mut server)?;
                    bail!("recovery did not end at {}:\n{}", to.end, fs::read_to_string(&log)?);
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stop(&mut server)?;
        let redo = control.checkpoint_copy.redo;
        // At a page's start its header comes first.
        let is_there = redo == to.end || to.end.page_offset() == 0 && redo.page_start() == to.end;
        ensure!(is_there, "recovery ended at {redo}, not {}", to.end);
        self.own_tablespaces(data)?;
        Ok(control)
    }

    fn recovery_settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("listen_addresses", String::new()),
            // Nobody connects, but a server without a socket does not start.
            ("unix_socket_directories", self.stock.path("").display().to_string()),
            ("port", self.port.to_string()),
            ("shared_buffers", "128MB".to_owned()),
            ("fsync", "off".to_owned()),
            ("autovacuum", "off".to_owned()),
            ("hot_standby", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            // Tablespaces of stopped directories are folders of theirs, not links.
            ("allow_in_place_tablespaces", "on".to_owned()),
            ("restore_command", format!("cp {}/%f %p", self.archive.display())),
            ("recovery_target_timeline", "1".to_owned()),
        ]
    }

    /// Moves what replay put at the locations of new tablespaces into the data directory: the next replay finds them empty.
    fn own_tablespaces(&mut self, data: &Path) -> Result<()> {
        for entry in fs::read_dir(data.join("pg_tblspc"))? {
            let entry = entry?;
            if !entry.file_type()?.is_symlink() {
                continue;
            }
            let link = entry.path();
            let location = fs::read_link(&link)?;
            fs::remove_file(&link)?;
            copy(&location, &link)?;
            for versioned in fs::read_dir(&location)? {
                fs::remove_dir_all(versioned?.path())?;
            }
            self.locations.insert(entry.file_name().to_string_lossy().parse()?, location);
        }
        Ok(())
    }
}

fn wal_level(number: i32) -> Result<&'static str> {
    let names = ["minimal", "replica", "logical"];
    let name = usize::try_from(number).ok().and_then(|number| names.get(number));
    name.copied().with_context(|| format!("there is no wal_level {number}"))
}

/// Ends a server at once, as a crash would; it has written all that is looked at.
fn stop(server: &mut Child) -> Result<()> {
    if server.try_wait()?.is_none() {
        kill(Pid::from_raw(server.id() as i32), Signal::SIGQUIT)?;
        server.wait()?;
    }
    Ok(())
}

/// Removes a stopped directory's WAL, which is in the archive.
fn remove_wal(data: &Path) -> Result<()> {
    for entry in fs::read_dir(data.join("pg_wal"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Lets two stopped directories share the files that no server has changed since they were copied.
fn share_files(with: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (file, twin) = (entry.path(), with.join(entry.file_name()));
        let (of_file, of_twin) = (entry.metadata()?, fs::metadata(&twin).ok());
        let Some(of_twin) = of_twin else { continue };
        if of_file.is_dir() {
            share_files(&twin, &file)?;
        } else if of_file.len() == of_twin.len() && of_file.modified()? == of_twin.modified()? {
            fs::remove_file(&file)?;
            fs::hard_link(&twin, &file)?;
        }
    }
    Ok(())
}
