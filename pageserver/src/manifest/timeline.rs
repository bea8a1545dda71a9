//! What is known of a timeline in the object store.

use protocol::{BranchPoint, Term};
use serde::{Deserialize, Serialize};
use wal_format::Lsn;

use super::{Body, NoChange};
use crate::{
    layer::name::LayerSummary,
    metering::{Given, LogicalSize},
    timeline::Retained,
};

/// A timeline's layers. A timeline without a manifest has none of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimelineManifest {
    /// The last record that is in layers; the timeline's origin where it has none.
    pub last_record: BranchPoint,
    /// The generation of the tenant's owner that wrote it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// The highest term seen.
    pub term: Term,
    /// What can be read of it, and is not dropped.
    #[serde(default, skip_serializing_if = "Retained::is_everything")]
    pub retained: Retained,
    /// The cutoff that is about to be: no branch is made below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<Lsn>,
    /// How large it was when that was last measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_size: Option<LogicalSize>,
    /// What computes were given of it.
    #[serde(flatten)]
    pub given: Given,
    /// The layers, by rising LSN, those of one range of LSNs by rising key.
    pub layers: Vec<LayerSummary>,
}

impl TimelineManifest {
    /// That of a timeline which begins at this point, and has no layers.
    pub fn begin(point: BranchPoint) -> TimelineManifest {
        TimelineManifest {
            last_record: point,
            generation: 0,
            term: Term::default(),
            retained: Retained::default(),
            announced: None,
            logical_size: None,
            given: Given::default(),
            layers: Vec::new(),
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
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
