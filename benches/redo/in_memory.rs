//! The WAL in memory, as a server has what it received.

use std::{fs::File, io::Read};

use anyhow::{Context, Result, bail};
use memmap2::{Advice, MmapMut, MmapOptions};
use wal_format::{Lsn, Records, Version, WalReader};

use crate::wal::{Recorded, SEGMENT_BYTES};

/// How much of it is fed to the reader at a time.
const PIECE_BYTES: usize = 256 << 10;
/// How many records are taken at a time.
const RECORDS_AT_ONCE: usize = 256;

/// All segments of a recorded WAL, side by side.
pub struct WalInMemory {
    memory: MmapMut,
    /// The position of the first byte.
    from: Lsn,
    /// Where the last record begins.
    last: Lsn,
}

impl WalInMemory {
    /// The WAL, read from its files.
    pub fn load(recorded: &Recorded) -> Result<WalInMemory> {
        let segment_bytes = u64::from(SEGMENT_BYTES);
        let from = Lsn(recorded.images().0 / segment_bytes * segment_bytes);
        let bytes = (recorded.last().0 + 1).next_multiple_of(segment_bytes) - from.0;
        let memory = MmapOptions::new().len(bytes as usize).map_anon()?;
        memory.advise(Advice::HugePage)?;
        let mut wal = WalInMemory { memory, from, last: recorded.last() };
        wal.load_again(recorded)?;
        Ok(wal)
    }

    /// Reads it from its files once more, to the same memory.
    pub fn load_again(&mut self, recorded: &Recorded) -> Result<()> {
        let mut at = self.from;
        for segment in self.memory.chunks_mut(SEGMENT_BYTES as usize) {
            let path = recorded.segment(at);
            let mut file = File::open(&path).with_context(|| path.display().to_string())?;
            file.read_exact(segment).with_context(|| path.display().to_string())?;
            at += segment.len() as u64;
        }
        Ok(())
    }

    /// Gives the records from `start` to the last one, some at a time.
    pub fn read(&self, start: Lsn, mut each: impl FnMut(Records) -> Result<()>) -> Result<()> {
        let mut reader = WalReader::new(Version::V15, SEGMENT_BYTES, start, None);
        for piece in self.memory[start.since(self.from) as usize..].chunks(PIECE_BYTES) {
            reader.feed(reader.fed_to(), piece)?;
            loop {
                let records = reader.next_records(RECORDS_AT_ONCE)?;
                if records.len() == 0 {
                    break;
                }
                each(records)?;
                if reader.last_record() >= Some(self.last) {
                    return Ok(());
                }
            }
        }
        bail!("the WAL ends before {}", self.last)
    }
}
