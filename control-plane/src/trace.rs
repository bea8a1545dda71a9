//! A cold start taken apart: what each stage took, from the first question to the first client that is in.
//!
//! The compute measures its own stages; around them are the control plane's, which wakes it, and the
//! proxy's, which needs the role's verifier from the new Postgres before it lets anybody in.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Stages;

/// The most stages that are noted.
const STAGES_MAX: usize = 32;

/// The stage after which a client is in, and nothing more belongs to the start.
pub(crate) const LAST: &str = "proxy: log in";

/// A part of a start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stage {
    /// Whose it is, and what is done.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// The stages of a compute's last start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    stages: Vec<Stage>,
    is_open: bool,
}

impl Trace {
    /// A start begins.
    pub(crate) fn begin() -> Trace {
        Trace { stages: Vec::new(), is_open: true }
    }

    /// Notes a stage. Of a crowd that waits for one start the first counts, and nobody after a client
    /// is in.
    pub(crate) fn note(&mut self, name: &str, took: Duration) {
        let is_known = self.stages.iter().any(|stage| stage.name == name);
        if !self.is_open || is_known || self.stages.len() >= STAGES_MAX {
            return;
        }
        self.stages.push(Stage { name: name.to_owned(), ms: took.as_secs_f64() * 1e3 });
        self.is_open = name != LAST;
    }

    /// Notes what a compute says of its start, which took so long as its parent sees it: what the
    /// stages do not account for is the process itself.
    pub(crate) fn note_compute(&mut self, stages: &Stages, order: &[String], took: Duration) {
        let known: f64 = stages.values().sum();
        let process = Duration::from_secs_f64((took.as_secs_f64() - known / 1e3).max(0.0));
        self.note("control plane: run the compute", process);
        for (name, ms) in order.iter().filter_map(|name| stages.get_key_value(name)) {
            self.note(&format!("compute: {name}"), Duration::from_secs_f64((ms / 1e3).max(0.0)));
        }
    }

    /// The stages, in the order in which they ended.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.stages.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_in_their_order_until_a_client_is_in() {
        let names = |trace: &Trace| -> Vec<String> {
            trace.stages().into_iter().map(|stage| stage.name).collect()
        };
        let mut trace = Trace::default();
        trace.note("proxy: ask for the verifier", Duration::from_millis(1));
        assert!(names(&trace).is_empty(), "nothing starts");

        let mut trace = Trace::begin();
        trace.note("control plane: look up", Duration::from_millis(2));
        let stages = Stages::from([("elect".to_owned(), 5.0), ("connect".to_owned(), 3.0)]);
        let order = ["connect", "elect", "unknown"].map(str::to_owned);
        trace.note_compute(&stages, &order, Duration::from_millis(10));
        for _ in 0..2 {
            trace.note("proxy: ask for the verifier", Duration::from_millis(1));
        }
        trace.note(LAST, Duration::from_millis(1));
        trace.note("proxy: something else", Duration::from_millis(1));
        let expected = [
            "control plane: look up",
            "control plane: run the compute",
            "compute: connect",
            "compute: elect",
            "proxy: ask for the verifier",
            LAST,
        ];
        assert_eq!(names(&trace), expected);
        let process = trace.stages().get(1).map(|stage| stage.ms.round());
        assert_eq!(process, Some(2.0), "10 ms but for the 8 that the compute knows of");
    }
}
