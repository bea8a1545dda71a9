//! What a monitor reads at `GET /metrics`, in Prometheus' text format; `docs/monitoring.md` says
//! what each metric tells. Safekeepers in one process share their metrics, gauges by node.

use std::sync::LazyLock;

use access::{Denied, Refusals};
use prometheus::{
    Histogram, IntCounter, IntGaugeVec, TextEncoder, exponential_buckets, register_histogram,
    register_int_counter, register_int_gauge_vec,
};

use crate::keeper::Keeper;

/// The media type of the text format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// This crate's metrics.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    Metrics::register().expect("names and buckets are constants, and a test has registered them")
});

/// Everything that a safekeeper counts.
pub struct Metrics {
    /// The journal's fdatasync.
    pub fsync_seconds: Histogram,
    /// An entry's way to the disk.
    pub append_seconds: Histogram,
    /// What was written to the journal.
    pub appended_bytes: IntCounter,
    /// Rounds of offload that failed for a timeline.
    pub offload_failures: IntCounter,
    /// Those who were not let in.
    pub tokens_refused: Refusals,
    journal_bytes: IntGaugeVec,
    timelines: IntGaugeVec,
}

/// Counts and logs somebody who was not let in by this door.
pub fn note_refused(door: &'static str, denied: Denied) {
    METRICS.tokens_refused.note(door, denied);
}

impl Metrics {
    fn register() -> Result<Metrics, prometheus::Error> {
        // 20 µs to 5 s.
        let buckets = exponential_buckets(2e-5, 2.0, 19)?;
        Ok(Metrics {
            fsync_seconds: register_histogram!(
                "offshoot_safekeeper_fsync_seconds",
                "Time of the journal's fdatasync",
                buckets.clone()
            )?,
            append_seconds: register_histogram!(
                "offshoot_safekeeper_append_seconds",
                "Time from an entry's arrival at the journal until it is on disk",
                buckets
            )?,
            appended_bytes: register_int_counter!(
                "offshoot_safekeeper_appended_bytes_total",
                "Bytes written to the journal"
            )?,
            offload_failures: register_int_counter!(
                "offshoot_safekeeper_offload_failures_total",
                "Tries to offload a timeline's WAL that failed"
            )?,
            tokens_refused: Refusals::register(
                "offshoot_safekeeper_tokens_refused_total",
                &["wal", "http"],
            )?,
            journal_bytes: register_int_gauge_vec!(
                "offshoot_safekeeper_journal_bytes",
                "Bytes of the journal on disk",
                &["node"]
            )?,
            timelines: register_int_gauge_vec!(
                "offshoot_safekeeper_timelines",
                "Timelines that the safekeeper knows",
                &["node"]
            )?,
        })
    }

    /// Brings a safekeeper's gauges up to date.
    pub fn look(&self, keeper: &Keeper) {
        let node = keeper.me.node.to_string();
        let journal_bytes = i64::try_from(keeper.journal.disk_bytes()).unwrap_or(i64::MAX);
        self.journal_bytes.with_label_values(&[&node]).set(journal_bytes);
        self.timelines.with_label_values(&[&node]).set(keeper.timelines().len() as i64);
    }
}

/// The text of all metrics of this process.
pub fn text() -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&prometheus::gather())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../docs/monitoring.md");

    #[test]
    fn the_page_for_operators_and_what_is_exported_name_the_same_metrics() {
        for gauge in [&METRICS.journal_bytes, &METRICS.timelines] {
            gauge.with_label_values(&["1"]).set(1);
        }
        let text = text().expect("the registry is whole");
        let ours = |name: &&str| name.starts_with("offshoot_safekeeper_");
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let exported: BTreeSet<&str> = types.filter(ours).collect();
        let named: BTreeSet<&str> = PAGE.split('`').filter(ours).collect();
        assert_eq!(exported, named);
    }
}
