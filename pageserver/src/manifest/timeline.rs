//! What is known of a timeline in the object store.

use protocol::{BranchPoint, Term};
use serde::{Deserialize, Serialize};

use super::{Body, NoChange};
use crate::layer::name::LayerSummary;

/// A timeline's layers. A timeline without a manifest has none of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimelineManifest {
    /// The last record that is in layers; the timeline's origin where it has none.
    pub last_record: BranchPoint,
    /// The highest term seen.
    pub term: Term,
    /// The layers, by rising LSN.
    pub layers: Vec<LayerSummary>,
}

impl Body for TimelineManifest {
    type Change = NoChange;

    fn since(&self, _before: &TimelineManifest) -> Option<NoChange> {
        None
    }

    fn apply(&mut self, change: NoChange) {
        match change {}
    }
}
