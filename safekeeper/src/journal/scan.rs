//! Reads a journal that was left: finds its end, cuts a torn tail, and tells it from damage.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use protocol::{Identity, NodeId, TenantTimeline};

use super::entry::{self, Entry, EntryError, Place};
use super::replay::{RecoveredTimeline, Replay};
use super::segment::{Segment, disk, sync_folder};
use crate::Error;

/// Zeros are written in pieces of this size.
const ZEROS_BYTES: usize = 1 << 20;

/// What was found.
#[derive(Debug)]
pub struct Scanned {
    /// Whose journal it is.
    pub node: NodeId,
    /// Its disk.
    pub identity: Identity,
    /// The files, oldest first; the last is written on.
    pub segments: Vec<Arc<Segment>>,
    /// Where in the last segment.
    pub position: u64,
    /// The next entry's number.
    pub next_sequence: u64,
    /// What it holds.
    pub timelines: HashMap<TenantTimeline, RecoveredTimeline>,
}

/// Where the entries of a segment end.
#[derive(Clone, Copy, Debug)]
struct End {
    offset: usize,
    /// The number that the missing entry has.
    sequence: u64,
}

/// The scan so far.
#[derive(Default)]
struct Scan {
    replay: Replay,
    owner: Option<(NodeId, Identity)>,
    oldest: u64,
}

/// Reads all segments in the folder; `None` where nothing was ever written.
pub fn scan(folder: &Path, segment_bytes: u64) -> Result<Option<Scanned>, Error> {
    let mut numbers = segment_numbers(folder)?;
    let mut scan = Scan::default();
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    let mut end: Option<End> = None;
    drop_stillborn(folder, &mut numbers)?;
    for number in numbers {
        let segment = Arc::new(Segment::open(folder, number)?);
        if let Some(last) = segments.last().filter(|last| last.number + 1 != number) {
            return Err(damage(last.number, 0, format!("segment {} is missing", last.number + 1)));
        }
        let before = end.zip(segments.last().map(|last| last.number));
        let bytes = read_segment(&segment)?;
        end = Some(scan.segment(&segment, &bytes, before)?);
        segments.push(segment);
    }
    let (Some(last), Some(end), Some((node, identity))) = (segments.last(), end, scan.owner) else {
        return Ok(None);
    };
    cut(last, end, segment_bytes)?;
    let first = segments.first().map_or(last.number, |first| first.number);
    if first > scan.oldest {
        return Err(damage(first, 0, format!("segment {} is missing", scan.oldest)));
    }
    let timelines = scan.replay.finish();
    let timelines = timelines.map_err(|error| damage(last.number, 0, error.to_string()))?;
    let (position, next_sequence) = (end.offset as u64, end.sequence);
    Ok(Some(Scanned { node, identity, segments, position, next_sequence, timelines }))
}

impl Scan {
    /// Takes all entries of a segment. `before` is where the entries of the segment before it end.
    fn segment(
        &mut self,
        segment: &Arc<Segment>,
        bytes: &Bytes,
        before: Option<(End, u64)>,
    ) -> Result<End, Error> {
        let mut end = End { offset: 0, sequence: before.map_or(0, |(end, _)| end.sequence) };
        loop {
            let (entry, place, length) =
                match Entry::decode(&bytes.slice(end.offset.min(bytes.len())..)) {
                    Ok(found) if found.1.segment == segment.number => found,
                    Ok(_) | Err(EntryError::Absent) => break,
                    Err(EntryError::Senseless(reason)) => {
                        return Err(damage(segment.number, end.offset, reason));
                    }
                };
            let is_first = end.offset == 0;
            if is_first != matches!(entry, Entry::Segment { .. }) {
                let reason = "a segment's first entry, and no other, names it".to_owned();
                return Err(damage(segment.number, end.offset, reason));
            }
            if place.sequence != end.sequence && !(is_first && before.is_none()) {
                // Inside a segment, an entry of another number is as good as none: what was there is gone.
                match before.filter(|_| is_first) {
                    Some((before, number)) => return Err(missing(number, before)),
                    None => break,
                }
            }
            self.note(&entry, segment.number)?;
            self.replay
                .entry(entry, segment, end.offset as u64)
                .map_err(|error| damage(segment.number, end.offset, error.to_string()))?;
            end = End { offset: end.offset + length, sequence: place.sequence + 1 };
        }
        match (end.offset, before) {
            (0, Some(_)) | (0, None) => Err(missing(segment.number, end)),
            _ if later_entries(bytes, end, segment.number).any(|it| it.synced > end.sequence) => {
                Err(missing(segment.number, end))
            }
            _ => Ok(end),
        }
    }

    fn note(&mut self, entry: &Entry, segment: u64) -> Result<(), Error> {
        match *entry {
            Entry::Segment { node, identity, oldest } => {
                if self.owner.is_some_and(|owner| owner != (node, identity)) {
                    let reason = format!("it belongs to safekeeper {node} with disk {identity}");
                    return Err(damage(segment, 0, reason));
                }
                self.owner = Some((node, identity));
                self.oldest = oldest;
            }
            Entry::Mark { oldest } => self.oldest = oldest,
            Entry::State(..) | Entry::Forget(_) | Entry::Wal(..) => {}
        }
        Ok(())
    }
}

/// Drops the newest segment where not even its first entry is whole: the process ended while it was made. Later
/// entries in it would say that the first one was on disk; then it stays, and is found to be damaged.
fn drop_stillborn(folder: &Path, numbers: &mut Vec<u64>) -> Result<(), Error> {
    let Some(&number) = numbers.last() else {
        return Ok(());
    };
    let segment = Segment::open(folder, number)?;
    let bytes = read_segment(&segment)?;
    let begins = |place: Place| place.segment == number;
    let nothing = End { offset: 0, sequence: 0 };
    if entry::check(&bytes).is_ok_and(|(place, _)| begins(place))
        || later_entries(&bytes, nothing, number).next().is_some()
    {
        return Ok(());
    }
    numbers.pop();
    std::fs::remove_file(segment.path()).map_err(disk("remove", segment.path()))?;
    sync_folder(folder)
}

/// The entries of this segment that lie behind the end.
fn later_entries(bytes: &Bytes, end: End, segment: u64) -> impl Iterator<Item = Place> {
    (end.offset..bytes.len()).step_by(8).filter_map(move |offset| {
        let place = entry::check(&bytes[offset..]).ok()?.0;
        (place.segment == segment && place.sequence >= end.sequence).then_some(place)
    })
}

/// Overwrites what lies behind the end with zeros, so that no stale entry can ever continue the log.
fn cut(segment: &Segment, end: End, segment_bytes: u64) -> Result<(), Error> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut offset = end.offset as u64;
    while offset < segment_bytes {
        let bytes = (segment_bytes - offset).min(ZEROS_BYTES as u64) as usize;
        segment
            .file()
            .write_all_at(&zeros[..bytes], offset)
            .map_err(disk("write", segment.path()))?;
        offset += bytes as u64;
    }
    segment.file().sync_all().map_err(disk("fsync", segment.path()))
}

fn read_segment(segment: &Segment) -> Result<Bytes, Error> {
    std::fs::read(segment.path()).map(Bytes::from).map_err(disk("read", segment.path()))
}

fn segment_numbers(folder: &Path) -> Result<Vec<u64>, Error> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder).map_err(disk("list", folder))? {
        let name = file.map_err(disk("list", folder))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".segment"));
        numbers.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn missing(segment: u64, end: End) -> Error {
    let reason = format!("entry {} was on disk and is not there any more", end.sequence);
    damage(segment, end.offset, reason)
}

fn damage(segment: u64, offset: usize, reason: String) -> Error {
    Error::Journal { segment, offset: offset as u64, reason }
}
