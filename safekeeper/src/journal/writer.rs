//! The journal's thread: takes all that waits, writes it, calls fdatasync once, lets the answers go.

use std::fs::File;
use std::io::{IoSlice, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::entry::{self, Entry, Place};
use super::segment::{Segment, sync_folder};
use super::{Options, Placed, Shared, Submission};
use crate::metrics::METRICS;

/// The journal is idle when nothing came for this long; then a mark says that all before it is on disk.
const IDLE: Duration = Duration::from_millis(50);
/// One fdatasync covers at most about this much, so that the first of many answers does not wait for the last.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The thread's own state.
pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub options: Options,
    pub folder: PathBuf,
    pub segment: Arc<Segment>,
    /// Where the next entry goes in the segment.
    pub position: u64,
    /// The next entry's number.
    pub sequence: u64,
    /// Entries below this number are on disk.
    pub synced: u64,
    /// Whether the last entry is a mark, or another that says no less.
    pub is_marked: bool,
}

impl Writer {
    /// Runs until the journal is closed and all that was submitted is on disk. A disk that fails ends the process:
    /// nothing is known of what it holds any more, and an answer would be a guess.
    pub fn run(mut self) {
        loop {
            let batch = self.next_batch();
            let outcome = match batch {
                Batch::Entries(batch) => self.write_batch(batch),
                Batch::Idle => self.write_mark(),
                Batch::Closed => match self.write_mark().and_then(|()| self.sync()) {
                    Ok(()) => return,
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = outcome {
                tracing::error!(%error, folder = %self.folder.display(), "the journal's disk failed; the process ends");
                std::process::abort();
            }
        }
    }

    fn next_batch(&self) -> Batch {
        let mut queue = self.shared.queue.lock();
        loop {
            if !queue.waiting.is_empty() {
                let count = batch_length(&queue.waiting);
                return Batch::Entries(queue.waiting.drain(..count).collect());
            }
            if queue.is_closed {
                return Batch::Closed;
            }
            if self.is_marked {
                self.shared.submitted.wait(&mut queue);
            } else if self.shared.submitted.wait_for(&mut queue, IDLE).timed_out() {
                return Batch::Idle;
            }
        }
    }

    fn write_batch(&mut self, batch: Vec<Submission>) -> std::io::Result<()> {
        let mut written = Vec::with_capacity(batch.len());
        let mut parts = Parts::default();
        for Submission { entry, at, done } in batch {
            if self.position + entry::padded(entry.payload_bytes()) as u64
                > self.options.segment_bytes
            {
                parts.write(self.segment.file())?;
                self.next_segment()?;
            }
            let placed = self.place(&entry, &mut parts);
            written.push((done, at, placed));
        }
        parts.write(self.segment.file())?;
        self.sync()?;
        self.is_marked = false;
        self.shared.stats.entries.fetch_add(written.len() as u64, Ordering::Relaxed);
        for (done, at, placed) in written {
            METRICS.append_seconds.observe(at.elapsed().as_secs_f64());
            done(placed);
        }
        Ok(())
    }

    /// The mark itself need not be on disk: torn, it is cut, and says nothing.
    fn write_mark(&mut self) -> std::io::Result<()> {
        let mark = Entry::Mark { oldest: self.shared.oldest.load(Ordering::Relaxed) };
        let length = entry::padded(mark.payload_bytes()) as u64;
        if !self.is_marked && self.position + length <= self.options.segment_bytes {
            let mut parts = Parts::default();
            self.place(&mark, &mut parts);
            parts.write(self.segment.file())?;
        }
        self.is_marked = true;
        Ok(())
    }

    /// Gives the entry the next number and place.
    fn place(&mut self, entry: &Entry, parts: &mut Parts) -> Placed {
        let place =
            Place { segment: self.segment.number, sequence: self.sequence, synced: self.synced };
        let (head, wal) = entry.encode(place);
        let offset = self.position;
        let length = head.len() + wal.len();
        let padded = length.next_multiple_of(8);
        assert!(offset + padded as u64 <= self.options.segment_bytes, "an entry fits a segment");
        self.position += padded as u64;
        self.sequence += 1;
        self.shared.stats.bytes.fetch_add(padded as u64, Ordering::Relaxed);
        METRICS.appended_bytes.inc_by(padded as u64);
        parts.0.push((head, wal, padded - length));
        Placed { segment: Arc::clone(&self.segment), offset }
    }

    fn sync(&mut self) -> std::io::Result<()> {
        let timer = METRICS.fsync_seconds.start_timer();
        (self.options.sync)(self.segment.file())?;
        timer.observe_duration();
        self.synced = self.sequence;
        self.shared.stats.syncs.fetch_add(1, Ordering::Relaxed);
        if self.position * 2 > self.options.segment_bytes {
            self.shared.spare.prepare();
        }
        Ok(())
    }

    /// Ends the segment and begins the next one, both on disk.
    fn next_segment(&mut self) -> std::io::Result<()> {
        self.sync()?;
        let number = self.segment.number + 1;
        let path = Segment::path_in(&self.folder, number);
        let file = self.shared.spare.take(&path)?;
        self.segment = Arc::new(Segment::of_file(number, path, file));
        self.begin_segment()
    }

    /// Writes the first entry of a segment, alone: later entries say that it is on disk.
    pub fn begin_segment(&mut self) -> std::io::Result<()> {
        self.position = 0;
        self.segment.file().seek(SeekFrom::Start(0))?;
        let oldest = self.shared.oldest.load(Ordering::Relaxed);
        let first =
            Entry::Segment { node: self.options.node, identity: self.options.identity, oldest };
        let mut parts = Parts::default();
        self.place(&first, &mut parts);
        parts.write(self.segment.file())?;
        self.segment.file().sync_all()?;
        self.sync()?;
        sync_folder(&self.folder).map_err(std::io::Error::other)?;
        self.shared.segments.lock().push_back(Arc::clone(&self.segment));
        Ok(())
    }
}

enum Batch {
    Entries(Vec<Submission>),
    Idle,
    Closed,
}

fn batch_length(waiting: &[Submission]) -> usize {
    let mut bytes = 0;
    let until = waiting.iter().position(|submission| {
        let is_full = bytes >= BATCH_BYTES_MAX;
        bytes += submission.entry.payload_bytes();
        is_full
    });
    until.unwrap_or(waiting.len())
}

/// What is to be written: heads, WAL that is not copied, and the bytes of the gaps.
#[derive(Default)]
struct Parts(Vec<(Vec<u8>, Bytes, usize)>);

impl Parts {
    fn write(&mut self, mut file: &File) -> std::io::Result<()> {
        let gap = [0; 8];
        let mut slices = Vec::with_capacity(self.0.len() * 3);
        for (head, wal, gap_bytes) in &self.0 {
            slices.extend([
                IoSlice::new(head),
                IoSlice::new(wal),
                IoSlice::new(&gap[..*gap_bytes]),
            ]);
        }
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(bytes) => IoSlice::advance_slices(&mut left, bytes),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.0.clear();
        Ok(())
    }
}
