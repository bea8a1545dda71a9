//! Counting and logging those who were not let in.

use prometheus::{IntCounterVec, register_int_counter_vec};

use crate::Denied;

/// A process' count of those who were not let in, by door and reason.
pub struct Refusals(IntCounterVec);

impl Refusals {
    /// Registers the counter with a zero for each door and reason: a rate needs the zero before the
    /// first event. Fails where the name is taken.
    pub fn register(name: &str, doors: &[&str]) -> Result<Refusals, prometheus::Error> {
        let what = "Connections and requests that were not let in, by door and reason";
        let counter = register_int_counter_vec!(name, what, &["door", "reason"])?;
        for door in doors {
            for denied in Denied::ALL {
                counter.with_label_values(&[*door, denied.label()]);
            }
        }
        Ok(Refusals(counter))
    }

    /// Counts and logs somebody who was not let in by this door. The token itself is told to nobody.
    pub fn note(&self, door: &'static str, denied: Denied) {
        self.0.with_label_values(&[door, denied.label()]).inc();
        tracing::warn!(door, reason = %denied, "somebody was not let in");
    }
}
