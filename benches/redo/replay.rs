//! Our side: the same WAL, read, decoded and applied in order to pages in memory, by one thread.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    time::Instant,
};

use anyhow::{Context, Result};
use rustc_hash::FxHashSet;
use wal_format::{
    ControlFile, ControlState, Effect, Lsn, Records, Target, Version, WalReader, effects,
};

use crate::{
    Took, compare,
    files::Files,
    in_order::InOrder,
    pages::Pages,
    wal::{Recorded, SEGMENT_BYTES},
};

/// How much of a segment is read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// How many records are taken at a time.
const RECORDS_AT_ONCE: usize = 256;

/// What one round took, and what it made.
pub struct Round {
    /// To load the pages that the WAL changes from their files.
    pub load: Took,
    /// To read the WAL, to decode it and to apply it to them.
    pub redo: Took,
    /// Pages that are those of the server.
    pub pages_equal: usize,
}

/// Replays the whole WAL once, and sees to it that the pages are those of the server. `first_touched` are the pages that are in memory
/// before.
pub fn run(
    recorded: &Recorded,
    pages: &mut Pages,
    first_touched: &[(Target, bool)],
) -> Result<Round> {
    let control = std::fs::read(recorded.before().join("global/pg_control"))?;
    let control = ControlState::from_control_file(&ControlFile::decode(&control)?);
    pages.start_anew(Files::new(&recorded.before()));
    let load = timed(|| {
        first_touched.iter().try_for_each(|(target, is_new)| pages.slot(*target, *is_new).map(drop))
    })?;
    let mut in_order = InOrder::new(control, pages);
    let redo = timed(|| read(recorded, recorded.first(), |records| in_order.apply(records)))?;
    Ok(Round { load, redo, pages_equal: compare::with_server(pages, &recorded.after())? })
}

/// The pages that the WAL changes, as it comes to them, and whether each is made anew then.
pub fn first_touched(recorded: &Recorded) -> Result<Vec<(Target, bool)>> {
    let (mut known, mut touched) = (FxHashSet::default(), Vec::new());
    read(recorded, recorded.first(), |records| {
        for lent in records {
            let record = lent.decode(Version::V15)?;
            for effect in effects(Version::V15, &record)? {
                if let Effect::Touch { target, will_init } = effect
                    && known.insert(target)
                {
                    touched.push((target, will_init));
                }
            }
        }
        Ok(())
    })?;
    Ok(touched)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Took> {
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    work()?;
    Ok(Took { seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds()? - cpu })
}

/// Reads the records from `start` to the last one, some at a time.
pub fn read(
    recorded: &Recorded,
    start: Lsn,
    mut each: impl FnMut(Records) -> Result<()>,
) -> Result<()> {
    let mut reader = WalReader::new(Version::V15, SEGMENT_BYTES, start, None);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let at = reader.fed_to();
        let path = recorded.segment(at);
        let mut segment = File::open(&path).with_context(|| path.display().to_string())?;
        segment.seek(SeekFrom::Start(at.0 % u64::from(SEGMENT_BYTES)))?;
        loop {
            let count = segment.read(&mut piece)?;
            if count == 0 {
                break;
            }
            reader.feed(reader.fed_to(), &piece[..count])?;
            loop {
                let records = reader.next_records(RECORDS_AT_ONCE)?;
                if records.len() == 0 {
                    break;
                }
                each(records)?;
                if reader.last_record() >= Some(recorded.last()) {
                    return Ok(());
                }
            }
        }
    }
}

/// What this thread has used.
fn cpu_seconds() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
