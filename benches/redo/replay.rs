//! Our side: the same WAL, decoded and applied in order to pages in memory, by one thread.

use std::time::Instant;

use anyhow::Result;
use rustc_hash::FxHashSet;
use wal_format::{ControlFile, ControlState, Effect, Target, Version, effects};

use crate::{
    Took, compare, files::Files, in_memory::WalInMemory, in_order::InOrder, pages::Pages,
    wal::Recorded,
};

/// What one round took, and what it made.
pub struct Round {
    /// To load the WAL, and the pages that it changes, from their files.
    pub load: Took,
    /// To decode the WAL and to apply it to them.
    pub redo: Took,
    /// Pages that are those of the server.
    pub pages_equal: usize,
}

/// Replays the whole WAL once, and sees to it that the pages are those of the server. `first_touched` are the pages that are in memory
/// before.
pub fn run(
    recorded: &Recorded,
    wal: &mut WalInMemory,
    pages: &mut Pages,
    first_touched: &[(Target, bool)],
) -> Result<Round> {
    let control = std::fs::read(recorded.before().join("global/pg_control"))?;
    let control = ControlState::from_control_file(&ControlFile::decode(&control)?);
    pages.start_anew(Files::new(&recorded.before()));
    let load = timed(|| {
        wal.load_again(recorded)?;
        first_touched.iter().try_for_each(|(target, is_new)| pages.slot(*target, *is_new).map(drop))
    })?;
    let mut in_order = InOrder::new(control, pages);
    let redo = timed(|| wal.read(recorded.first(), |records| in_order.apply(records)))?;
    Ok(Round { load, redo, pages_equal: compare::with_server(pages, &recorded.after())? })
}

/// The pages that the WAL changes, as it comes to them, and whether each is made anew then.
pub fn first_touched(recorded: &Recorded, wal: &WalInMemory) -> Result<Vec<(Target, bool)>> {
    let (mut known, mut touched) = (FxHashSet::default(), Vec::new());
    wal.read(recorded.first(), |records| {
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

/// What this thread has used.
fn cpu_seconds() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
