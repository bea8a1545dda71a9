//! A cleanly stopped data directory: what must be true of it, and what it says of itself.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use protocol::{BranchPoint, TimelineOrigin};
use wal_format::{
    ClusterState, ControlFile, Geometry, PAGE_BYTES, RELATION_SEGMENT_BLOCKS, Segment, Version,
    WAL_PAGE_BYTES, WalReader,
};

use super::error::ImportError;

/// What 15 calls its majors here; a second one is a second entry.
const SERVED: &str = "15";
/// Bytes read of the WAL at the last checkpoint: its record takes 114, and at most two page
/// headers.
const CHECKPOINT_READ_BYTES: usize = 2 * 8192;
/// Postgres' own number of a timeline that was never promoted. Ours never are.
const POSTGRES_TIMELINE: u32 = 1;
/// Files that make Postgres recover at its next start.
const RECOVERY_FILES: [&str; 3] = ["recovery.signal", "standby.signal", "backup_label"];

/// A data directory that was found fit to become a template.
///
/// Nothing runs in it, it was stopped cleanly, its `pg_control` and the checkpoint record that
/// ends its WAL are valid, and it has no prepared transaction.
#[derive(Debug)]
pub struct Cluster {
    pub(super) root: PathBuf,
    pub(super) version: Version,
    pub(super) control: ControlFile,
    pub(super) control_bytes: Bytes,
    origin: TimelineOrigin,
}

impl Cluster {
    /// Checks the data directory.
    pub fn open(root: &Path) -> Result<Cluster, ImportError> {
        let version = read_version(root)?;
        refuse_running(root)?;
        if let Some(file) = RECOVERY_FILES.into_iter().find(|file| root.join(file).exists()) {
            return Err(ImportError::InRecovery { file });
        }
        let control_bytes = read(&root.join("global/pg_control"))?;
        let control = ControlFile::decode(&control_bytes)
            .map_err(|error| ImportError::ControlFile(error.to_string()))?;
        check_control(version, &control)?;
        if let Some(file) = list(&root.join("pg_twophase"))?.into_iter().next() {
            return Err(ImportError::PreparedTransaction(file.path()));
        }
        let point = read_checkpoint(root, &control)?;
        let origin = TimelineOrigin {
            point,
            system_id: control.system_id,
            segment_bytes: control.geometry.wal_segment_bytes,
            major: version.major(),
        };
        Ok(Cluster { root: root.to_owned(), version, control, control_bytes, origin })
    }

    /// Where the template's timeline begins: at the end of the shutdown checkpoint.
    pub fn origin(&self) -> TimelineOrigin {
        self.origin
    }

    /// Whether the cluster's pages carry checksums.
    pub fn has_checksums(&self) -> bool {
        self.control.has_page_checksums()
    }
}

fn read_version(root: &Path) -> Result<Version, ImportError> {
    let path = root.join("PG_VERSION");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImportError::NotADataDirectory(root.to_owned()));
        }
        Err(reason) => return Err(ImportError::Unreadable { path, reason }),
    };
    let found = text.trim().to_owned();
    let version = found.parse().ok().and_then(Version::from_major);
    version.ok_or(ImportError::UnknownMajor { found, served: SERVED })
}

/// A cluster that was stopped cleanly, of the version that `PG_VERSION` says, built like Debian's.
fn check_control(version: Version, control: &ControlFile) -> Result<(), ImportError> {
    if control.state != ClusterState::Shutdown {
        return Err(ImportError::NotCleanlyStopped { state: state_name(control.state) });
    }
    let Geometry { page_bytes, wal_page_bytes, relation_segment_blocks, .. } = control.geometry;
    let served = control.version == version
        && page_bytes as usize == PAGE_BYTES
        && u64::from(wal_page_bytes) == WAL_PAGE_BYTES
        && relation_segment_blocks == RELATION_SEGMENT_BLOCKS;
    if !served {
        let reason = format!(
            "Postgres {} with pages of {page_bytes}, WAL pages of {wal_page_bytes} bytes and \
             files of {relation_segment_blocks} pages is not what Debian's is built with",
            control.version.major()
        );
        return Err(ImportError::ControlFile(reason));
    }
    let timeline = control.checkpoint_copy.timeline_id;
    if timeline != POSTGRES_TIMELINE {
        return Err(ImportError::Promoted { timeline });
    }
    Ok(())
}

/// A `postmaster.pid` whose process lives means a server; one whose process is gone was left
/// behind, and `pg_control` tells in what state.
fn refuse_running(root: &Path) -> Result<(), ImportError> {
    let path = root.join("postmaster.pid");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(reason) => return Err(ImportError::Unreadable { path, reason }),
    };
    let first = text.lines().next().unwrap_or_default().trim();
    let Some(pid) = first.parse::<u32>().ok().filter(|&pid| pid > 0) else {
        return Err(ImportError::DamagedFile { path, reason: "it names no process".to_owned() });
    };
    if Path::new("/proc").join(pid.to_string()).exists() {
        return Err(ImportError::Running { pid });
    }
    Ok(())
}

/// The end of the shutdown checkpoint that `pg_control` points at, read from the WAL itself: only
/// the record knows whether a page header lies within it.
fn read_checkpoint(root: &Path, control: &ControlFile) -> Result<BranchPoint, ImportError> {
    let at = control.checkpoint;
    let segment_bytes = control.geometry.wal_segment_bytes;
    let mut reader = WalReader::new(control.version, segment_bytes, at, None);
    let mut path = PathBuf::new();
    // The record may go on in the next segment.
    for _ in 0..2 {
        let begin = reader.fed_to();
        path = root.join("pg_wal").join(
            Segment::containing(POSTGRES_TIMELINE, begin, segment_bytes).file_name(segment_bytes),
        );
        let failed = |reason: String| ImportError::Checkpoint { at, path: path.clone(), reason };
        let mut bytes = vec![0; CHECKPOINT_READ_BYTES];
        let offset = begin.segment_offset(u64::from(segment_bytes));
        let file = fs::File::open(&path).map_err(|error| failed(error.to_string()))?;
        let read = file.read_at(&mut bytes, offset).map_err(|error| failed(error.to_string()))?;
        reader.feed(begin, &bytes[..read]).map_err(|error| failed(error.to_string()))?;
        match reader.next_record().map_err(|error| failed(error.to_string()))? {
            Some(record) if record.start == at => {
                return Ok(BranchPoint { lsn: record.end, last_record: record.start });
            }
            Some(record) => {
                return Err(failed(format!("the record there begins at {}", record.start)));
            }
            None => {}
        }
    }
    Err(ImportError::Checkpoint { at, path, reason: "the record is not complete".to_owned() })
}

/// A state in `pg_controldata`'s words (pg_controldata.c: `dbState`).
fn state_name(state: ClusterState) -> &'static str {
    match state {
        ClusterState::Startup => "starting up",
        ClusterState::Shutdown => "shut down",
        ClusterState::ShutdownInRecovery => "shut down in recovery",
        ClusterState::ShuttingDown => "shutting down",
        ClusterState::CrashRecovery => "in crash recovery",
        ClusterState::ArchiveRecovery => "in archive recovery",
        ClusterState::Production => "in production",
    }
}

/// The whole of a small file.
pub(super) fn read(path: &Path) -> Result<Bytes, ImportError> {
    let path = path.to_owned();
    fs::read(&path).map(Bytes::from).map_err(|reason| ImportError::Unreadable { path, reason })
}

/// A folder's entries, in the order of their names.
pub(super) fn list(folder: &Path) -> Result<Vec<fs::DirEntry>, ImportError> {
    let unreadable = |reason| ImportError::Unreadable { path: folder.to_owned(), reason };
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}
