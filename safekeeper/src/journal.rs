//! The journal: one log for all timelines, one fdatasync for all that waits.
//!
//! The format and its rules stand in `docs/formats/journal.md`. Invariants:
//! * What was submitted is written in the order of submission, and answered in that order, after fdatasync.
//! * A segment is on disk before the next one begins.
//! * A file goes only after a mark that does not need it is on disk.

mod entry;
mod replay;
mod scan;
mod segment;
mod spare;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use protocol::{Identity, NodeId, TenantTimeline};

pub use entry::{Entry, WalEntry};
pub use replay::{RecoveredTimeline, cut_end, cut_start};
pub use segment::{Extent, Segment};
pub use state::TimelineState;

use crate::Error;
use segment::{disk, sync_folder};
use spare::Spare;
use writer::Writer;

/// Bytes of a segment.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whose journal it is.
    pub node: NodeId,
    /// The disk's identity where a journal begins; one that exists keeps its own.
    pub identity: Identity,
    /// [`SEGMENT_BYTES`], or less in tests.
    pub segment_bytes: u64,
    /// fdatasync, or a test's account of it.
    pub sync: fn(&File) -> std::io::Result<()>,
}

/// Where an entry was written.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its segment.
    pub segment: Arc<Segment>,
    /// Its first byte there.
    pub offset: u64,
}

/// What is called when an entry is on disk, by the journal's thread: it must be quick.
pub type Done = Box<dyn FnOnce(Placed) + Send>;

/// An entry on its way.
struct Submission {
    entry: Entry,
    at: Instant,
    done: Done,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Submission>,
    is_closed: bool,
}

/// What was done since the process began.
#[derive(Default, Debug)]
struct Stats {
    entries: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
}

/// What the thread and the callers share.
struct Shared {
    queue: Mutex<Queue>,
    submitted: Condvar,
    segments: Mutex<VecDeque<Arc<Segment>>>,
    oldest: AtomicU64,
    spare: Spare,
    stats: Stats,
}

/// The open journal. Dropped, it writes what was submitted and ends its thread.
pub struct Journal {
    shared: Arc<Shared>,
    identity: Identity,
    segment_bytes: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
    lock: File,
}

/// A journal that was opened, and what it holds.
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    /// Whether nothing was there: the identity is new.
    pub is_new: bool,
    /// The timelines.
    pub timelines: HashMap<TenantTimeline, RecoveredTimeline>,
}

/// Counters for those who watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct JournalStatus {
    /// Entries written since the process began.
    pub entries: u64,
    /// Bytes written since the process began.
    pub bytes_written: u64,
    /// Calls of fdatasync since the process began.
    pub syncs: u64,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Files.
    pub segments: usize,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one. Damage that no crash explains is [`Error::Journal`].
    pub fn open(folder: &Path, options: Options) -> Result<Opened, Error> {
        std::fs::create_dir_all(folder).map_err(disk("create", folder))?;
        let lock = lock(folder)?;
        let journal_folder = folder.join("journal");
        std::fs::create_dir_all(&journal_folder).map_err(disk("create", &journal_folder))?;
        sync_folder(folder)?;
        let scanned = scan::scan(&journal_folder, options.segment_bytes)?;
        let is_new = scanned.is_none();
        let mut timelines = HashMap::new();
        let (shared, writer) = match scanned {
            Some(mut scanned) => {
                if scanned.node != options.node {
                    return Err(Error::OtherNode { path: folder.to_owned(), node: scanned.node });
                }
                timelines = std::mem::take(&mut scanned.timelines);
                continue_journal(&journal_folder, options, scanned)?
            }
            None => begin_journal(&journal_folder, options)?,
        };
        let identity = writer.options.identity;
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(|| writer.run()).map_err(disk("start the thread of", folder))?;
        let journal = Journal {
            shared,
            identity,
            segment_bytes: options.segment_bytes,
            thread: Mutex::new(Some(thread)),
            lock,
        };
        Ok(Opened { journal, is_new, timelines })
    }

    /// Puts a damaged journal aside, and with it the identity. The one that was put aside before it goes.
    pub fn give_up(folder: &Path) -> Result<PathBuf, Error> {
        let (journal, damaged) = (folder.join("journal"), folder.join("journal.damaged"));
        match std::fs::remove_dir_all(&damaged) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(disk("remove", &damaged)(error));
            }
            _ => {}
        }
        std::fs::rename(&journal, &damaged).map_err(disk("rename", &journal))?;
        sync_folder(folder)?;
        Ok(damaged)
    }

    /// The disk's identity.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Sends an entry on its way; `done` is called when it is on disk, after that of all earlier ones. After
    /// [`Journal::close`] the entry is dropped, and `done` with it.
    pub fn submit(&self, entry: Entry, done: Done) {
        let mut queue = self.shared.queue.lock();
        if !queue.is_closed {
            queue.waiting.push(Submission { entry, at: Instant::now(), done });
            self.shared.submitted.notify_one();
        }
    }

    /// Writes what was submitted, ends the thread, and lets the folder go.
    pub fn close(&self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.submitted.notify_one();
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        // What an entry carries may be the last that holds the journal: then this is the thread itself.
        if thread.thread().id() != std::thread::current().id() {
            // It aborts the process where it fails; it does not panic.
            let _ = thread.join();
        }
        // The lock ends with the process at the latest.
        let _ = self.lock.unlock();
    }

    /// The number of the oldest file, and of the one that is written.
    pub fn segments(&self) -> (u64, u64) {
        let segments = self.shared.segments.lock();
        let number = |segment: Option<&Arc<Segment>>| segment.map_or(0, |segment| segment.number);
        (number(segments.front()), number(segments.back()))
    }

    /// Bytes of all files.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.segments.lock().len() as u64 * self.segment_bytes
    }

    /// Removes the files before `oldest`, which nothing needs any more.
    pub fn remove_before(&self, oldest: u64) {
        let oldest = oldest.min(self.segments().1);
        self.shared.oldest.fetch_max(oldest, Ordering::Relaxed);
        let shared = Arc::downgrade(&self.shared);
        let done = Box::new(move |_| {
            if let Some(shared) = shared.upgrade() {
                shared.remove_before(oldest);
            }
        });
        self.submit(Entry::Mark { oldest }, done);
    }

    /// Counters.
    pub fn status(&self) -> JournalStatus {
        let stats = &self.shared.stats;
        let segments = self.shared.segments.lock().len();
        JournalStatus {
            entries: stats.entries.load(Ordering::Relaxed),
            bytes_written: stats.bytes.load(Ordering::Relaxed),
            syncs: stats.syncs.load(Ordering::Relaxed),
            disk_bytes: segments as u64 * self.segment_bytes,
            segments,
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn new(folder: &Path, options: Options, segments: Vec<Arc<Segment>>) -> Arc<Shared> {
        let oldest = segments.first().map_or(1, |segment| segment.number);
        Arc::new(Shared {
            queue: Mutex::default(),
            submitted: Condvar::new(),
            segments: Mutex::new(segments.into()),
            oldest: AtomicU64::new(oldest),
            spare: Spare::new(folder, options.segment_bytes),
            stats: Stats::default(),
        })
    }

    /// A file that somebody still reads is not used again: its content would change under the reader.
    fn remove_before(&self, oldest: u64) {
        let mut segments = self.segments.lock();
        while segments.front().is_some_and(|segment| segment.number < oldest) {
            let Some(segment) = segments.pop_front() else { break };
            let removed = match Arc::strong_count(&segment) {
                1 => self.spare.recycle(&segment),
                _ => Ok(false),
            };
            let removed = match removed {
                Ok(false) => std::fs::remove_file(segment.path()),
                other => other.map(|_| ()),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, segment = segment.number, "a journal segment could not be removed");
            }
        }
    }
}

fn begin_journal(folder: &Path, options: Options) -> Result<(Arc<Shared>, Writer), Error> {
    let shared = Shared::new(folder, options, Vec::new());
    let path = Segment::path_in(folder, 1);
    let file = shared.spare.take(&path).map_err(disk("create", &path))?;
    let mut writer = Writer {
        shared: Arc::clone(&shared),
        options,
        folder: folder.to_owned(),
        segment: Arc::new(Segment::of_file(1, path.clone(), file)),
        position: 0,
        sequence: 0,
        synced: 0,
        is_marked: true,
    };
    writer.begin_segment().map_err(disk("write", &path))?;
    Ok((shared, writer))
}

fn continue_journal(
    folder: &Path,
    options: Options,
    scanned: scan::Scanned,
) -> Result<(Arc<Shared>, Writer), Error> {
    let Some(segment) = scanned.segments.last().map(Arc::clone) else {
        return begin_journal(folder, options);
    };
    let mut file = segment.file();
    file.seek(SeekFrom::Start(scanned.position)).map_err(disk("seek in", segment.path()))?;
    let writer = Writer {
        shared: Shared::new(folder, options, scanned.segments),
        options: Options { identity: scanned.identity, ..options },
        folder: folder.to_owned(),
        segment,
        position: scanned.position,
        sequence: scanned.next_sequence,
        synced: scanned.next_sequence,
        is_marked: false,
    };
    Ok((Arc::clone(&writer.shared), writer))
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(disk("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse(folder.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(disk("lock", &path)(source)),
    }
}
