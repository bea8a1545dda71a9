//! What bounds a pageserver.

use std::time::Duration;

/// After so long a timeline that nobody uses leaves memory. Loading it again costs two requests of
/// the object store, and a connection to a safekeeper.
const UNLOAD_AFTER: Duration = Duration::from_secs(300);
/// The longest time between two looks whether timelines that nobody loads have something to do.
/// A pageserver that has just started reads two small objects for each tenant and each timeline,
/// and lists two folders: 60 requests a second for 300,000 tenants of one branch. Afterwards a
/// survey is of those that were written since.
const SURVEY_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// What a pageserver takes where nothing is said.
const MEMORY_BYTES: u64 = 1 << 30;

/// How the memory of the process is divided. What is left, an eighth, is for connections, receivers
/// and the timelines themselves, some 10 KiB each; of a timeline with hot pages up to 1 MiB more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// For parts of layers that were read: a half.
    pub cache: u64,
    /// For layers that are not in the object store yet: a quarter.
    pub open_layers: u64,
    /// For merges: an eighth.
    pub merges: u64,
}

impl Memory {
    /// Divides so many bytes.
    pub fn divide(bytes: u64) -> Memory {
        Memory { cache: bytes / 2, open_layers: bytes / 4, merges: bytes / 8 }
    }
}

/// The bounds beside the cache's; [`Limits::default`] where nothing is said.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a timeline stays in memory that nobody uses.
    pub unload_after: Duration,
    /// The most bytes of memory of layers that are not in the object store yet, of all timelines.
    pub open_layers_bytes_max: usize,
    /// The memory that merges have; one goes on even where it is less than that takes.
    pub merge_bytes_max: usize,
    /// How often timelines that nobody loads are looked at.
    pub survey_interval: Duration,
}

impl Limits {
    /// The bounds of a process that has this memory.
    pub fn of(memory: Memory) -> Limits {
        let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        Limits {
            unload_after: UNLOAD_AFTER,
            open_layers_bytes_max: bytes(memory.open_layers),
            merge_bytes_max: bytes(memory.merges),
            survey_interval: SURVEY_INTERVAL,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::of(Memory::divide(MEMORY_BYTES))
    }
}
