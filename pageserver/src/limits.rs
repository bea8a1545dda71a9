//! What bounds a pageserver, beside its cache.

use std::time::Duration;

/// After so long a timeline that nobody uses leaves memory. Loading it again costs two requests of
/// the object store, and a connection to a safekeeper.
const UNLOAD_AFTER: Duration = Duration::from_secs(300);

/// The bounds; [`Limits::default`] where nothing is said.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a timeline stays in memory that nobody uses.
    pub unload_after: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { unload_after: UNLOAD_AFTER }
    }
}
