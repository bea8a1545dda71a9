//! What a monitor reads at `GET /metrics`, in Prometheus' text format; `docs/monitoring.md` says
//! what each metric tells.

use std::sync::LazyLock;

use access::{Denied, Refusals};
use prometheus::{
    Histogram, IntCounter, IntGauge, IntGaugeVec, TextEncoder, exponential_buckets,
    register_histogram, register_int_counter, register_int_gauge, register_int_gauge_vec,
};

/// The media type of the text format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// This crate's metrics.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    Metrics::register().expect("names and buckets are constants, and a test has registered them")
});

/// Everything that the control plane counts.
pub struct Metrics {
    /// Computes that were started, until they accept connections.
    pub start_seconds: Histogram,
    /// Computes that did not come up.
    pub start_failures: IntCounter,
    /// Computes that were stopped because nobody used them.
    pub suspends: IntCounter,
    /// Clients that the proxy serves.
    pub proxy_connections: IntGauge,
    /// Clients whose sockets were given to their backends.
    pub proxy_handed_over: IntCounter,
    /// Clients that the proxy refused.
    pub proxy_refused: IntCounter,
    /// Those who were not let in.
    pub tokens_refused: Refusals,
    /// Whether each region answers.
    pub region_answers: IntGaugeVec,
    computes: IntGauge,
}

/// Counts and logs somebody who was not let in by this door.
pub fn note_refused(door: &'static str, denied: Denied) {
    METRICS.tokens_refused.note(door, denied);
}

impl Metrics {
    fn register() -> Result<Metrics, prometheus::Error> {
        Ok(Metrics {
            start_seconds: register_histogram!(
                "offshoot_control_plane_start_seconds",
                "Time from the request to start a compute until it accepts connections",
                // 10 ms to 82 s.
                exponential_buckets(0.01, 2.0, 14)?
            )?,
            start_failures: register_int_counter!(
                "offshoot_control_plane_start_failures_total",
                "Computes that did not come up"
            )?,
            suspends: register_int_counter!(
                "offshoot_control_plane_suspends_total",
                "Computes that were stopped because nobody used them"
            )?,
            proxy_connections: register_int_gauge!(
                "offshoot_control_plane_proxy_connections",
                "Connections that the proxy has"
            )?,
            proxy_handed_over: register_int_counter!(
                "offshoot_control_plane_proxy_handed_over_total",
                "Connections whose sockets were given to their backends"
            )?,
            proxy_refused: register_int_counter!(
                "offshoot_control_plane_proxy_refused_total",
                "Connections that the proxy refused"
            )?,
            tokens_refused: Refusals::register(
                "offshoot_control_plane_tokens_refused_total",
                &["http"],
            )?,
            region_answers: register_int_gauge_vec!(
                "offshoot_control_plane_region_answers",
                "Whether a pageserver of the region answers: 1, or 0",
                &["region"]
            )?,
            computes: register_int_gauge!("offshoot_control_plane_computes", "Computes that run")?,
        })
    }
}

/// The text of all metrics of this process; so many computes run now.
pub fn text(computes: usize) -> Result<String, prometheus::Error> {
    METRICS.computes.set(computes as i64);
    TextEncoder::new().encode_to_string(&prometheus::gather())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../docs/monitoring.md");

    #[test]
    fn the_page_for_operators_and_what_is_exported_name_the_same_metrics() {
        METRICS.region_answers.with_label_values(&["local"]).set(1);
        let text = text(1).expect("the registry is whole");
        let ours = |name: &&str| name.starts_with("offshoot_control_plane_");
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let exported: BTreeSet<&str> = types.filter(ours).collect();
        let named: BTreeSet<&str> = PAGE.split('`').filter(ours).collect();
        assert_eq!(exported, named);
    }
}
