//! What a monitor reads at `GET /metrics`, in Prometheus' text format. `docs/monitoring.md` says
//! what each metric tells.
//!
//! All roles of one process share one registry: each names its metrics after itself.

use std::sync::LazyLock;

use access::{Denied, Refusals};
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntGauge, TextEncoder, exponential_buckets,
    register_histogram, register_histogram_vec, register_int_counter, register_int_counter_vec,
    register_int_gauge,
};

use crate::{error::Error, tenants::Tenants};

/// The media type of the text format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// This crate's metrics.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::register);

/// Everything that the pageserver counts.
pub struct Metrics {
    /// Page requests, by what they ask for.
    pub page_request_seconds: HistogramVec,
    /// Base backups, to their last byte.
    pub base_backup_seconds: Histogram,
    /// Pages that were given out.
    pub pages_read: IntCounter,
    /// WAL that was applied.
    pub ingested_bytes: IntCounter,
    /// Frozen layers, until a manifest names them.
    pub flush_seconds: Histogram,
    /// Flushes that failed and are tried again.
    pub flush_failures: IntCounter,
    /// Layers written to the object store.
    pub uploaded_bytes: IntCounter,
    /// Operations of the object store, by operation and outcome.
    pub object_store_seconds: HistogramVec,
    /// Reads that were asked a second time.
    pub hedged_reads: IntCounter,
    /// Parts of layers that were found in memory.
    pub parts_from_memory: IntCounter,
    /// Parts of layers that were read from the cache's disk.
    pub parts_from_disk: IntCounter,
    /// Parts of layers that were read from the object store.
    pub parts_from_store: IntCounter,
    cache_bytes: IntGauge,
    cache_damaged_parts: IntGauge,
    cache_disks_given_up: IntGauge,
    /// Timelines that left memory because nobody used them.
    pub unloaded_timelines: IntCounter,
    /// Tenants of which a survey read the manifests.
    pub surveyed_tenants: IntCounter,
    /// Timelines that a survey loaded, because there was something to do.
    pub surveyed_timelines: IntCounter,
    /// Times that ingest waited because open layers filled their memory.
    pub memory_waits: IntCounter,
    timelines: IntGauge,
    /// Those who were not let in.
    pub tokens_refused: Refusals,
    memory_layer_bytes: IntGauge,
    unflushed_bytes: IntGauge,
    fenced_timelines: IntGauge,
}

/// Counts and logs somebody who was not let in by this door.
pub(crate) fn note_refused(door: &'static str, denied: Denied) {
    METRICS.tokens_refused.note(door, denied);
}

impl Metrics {
    fn register() -> Metrics {
        let metrics = Metrics::try_register()
            .expect("names and buckets are constants, and a test has registered them");
        // Exported from the start: a rate needs the zero before the first event.
        for request in ["range", "batch", "relations", "renew"] {
            metrics.page_request_seconds.with_label_values(&[request]);
        }
        for operation in ["put", "put_multipart", "get", "get_ranges", "list", "copy"] {
            for outcome in ["answered", "failed"] {
                metrics.object_store_seconds.with_label_values(&[operation, outcome]);
            }
        }
        metrics
    }

    fn try_register() -> Result<Metrics, prometheus::Error> {
        // 50 µs to 13 s; 1 ms to 262 s.
        let (short, long) =
            (exponential_buckets(5e-5, 2.0, 19)?, exponential_buckets(1e-3, 2.0, 19)?);
        let parts = register_int_counter_vec!(
            "offshoot_pageserver_layer_parts_total",
            "Blocks and tables of contents of layers, by where they were found",
            &["from"]
        )?;
        Ok(Metrics {
            tokens_refused: Refusals::register(
                "offshoot_pageserver_tokens_refused_total",
                &["pages", "http"],
            )?,
            page_request_seconds: register_histogram_vec!(
                "offshoot_pageserver_page_request_seconds",
                "Time from a page request's arrival to its answer, the wait for ingest included",
                &["request"],
                short.clone()
            )?,
            base_backup_seconds: register_histogram!(
                "offshoot_pageserver_base_backup_seconds",
                "Time from a base backup's request to its last byte",
                long.clone()
            )?,
            pages_read: register_int_counter!(
                "offshoot_pageserver_pages_read_total",
                "Pages given to computes"
            )?,
            ingested_bytes: register_int_counter!(
                "offshoot_pageserver_ingested_bytes_total",
                "WAL applied to timelines"
            )?,
            flush_seconds: register_histogram!(
                "offshoot_pageserver_flush_seconds",
                "Time to write a frozen layer and the manifest that names it, tries included",
                long.clone()
            )?,
            flush_failures: register_int_counter!(
                "offshoot_pageserver_flush_failures_total",
                "Flushes that failed and are tried again"
            )?,
            uploaded_bytes: register_int_counter!(
                "offshoot_pageserver_uploaded_bytes_total",
                "Bytes of layers put into the object store"
            )?,
            object_store_seconds: register_histogram_vec!(
                "offshoot_object_store_request_seconds",
                "Time of an object store operation, its tries included",
                &["operation", "outcome"],
                long
            )?,
            hedged_reads: register_int_counter!(
                "offshoot_object_store_hedged_reads_total",
                "Reads of the object store that were slow and asked a second time"
            )?,
            parts_from_memory: parts.with_label_values(&["memory"]),
            parts_from_disk: parts.with_label_values(&["disk"]),
            parts_from_store: parts.with_label_values(&["store"]),
            cache_bytes: register_int_gauge!(
                "offshoot_pageserver_cache_memory_bytes",
                "Memory of parts of layers that were read"
            )?,
            cache_damaged_parts: register_int_gauge!(
                "offshoot_pageserver_cache_damaged_parts",
                "Parts on the cache's disk that were not as they were written, since the start"
            )?,
            cache_disks_given_up: register_int_gauge!(
                "offshoot_pageserver_cache_disks_given_up",
                "1 where the cache's disk failed and is not used any more"
            )?,
            unloaded_timelines: register_int_counter!(
                "offshoot_pageserver_unloaded_timelines_total",
                "Timelines that left memory because nobody used them"
            )?,
            surveyed_tenants: register_int_counter!(
                "offshoot_pageserver_surveyed_tenants_total",
                "Tenants whose manifests were read to see whether what nobody loads has work"
            )?,
            surveyed_timelines: register_int_counter!(
                "offshoot_pageserver_surveyed_timelines_total",
                "Timelines that nobody used and that were loaded because there was work"
            )?,
            memory_waits: register_int_counter!(
                "offshoot_pageserver_memory_waits_total",
                "Times that ingest of a timeline waited for memory of open layers"
            )?,
            timelines: register_int_gauge!(
                "offshoot_pageserver_loaded_timelines",
                "Timelines in memory"
            )?,
            memory_layer_bytes: register_int_gauge!(
                "offshoot_pageserver_memory_layer_bytes",
                "Memory of layers that are not in the object store yet"
            )?,
            unflushed_bytes: register_int_gauge!(
                "offshoot_pageserver_unflushed_wal_bytes",
                "WAL that was applied and is not in layers in the object store yet"
            )?,
            fenced_timelines: register_int_gauge!(
                "offshoot_pageserver_stopped_timelines",
                "Timelines that take no more WAL, because another pageserver has them"
            )?,
        })
    }

    /// Begins to time a request.
    pub fn time_request(&self, request: &str) -> prometheus::HistogramTimer {
        self.page_request_seconds.with_label_values(&[request]).start_timer()
    }
}

/// The text of all metrics of this process, with the gauges as they are now.
pub fn text(tenants: &Tenants) -> Result<String, Error> {
    let (mut timelines, mut memory, mut unflushed, mut fenced) = (0, 0, 0, 0);
    for timeline in tenants.loaded() {
        timelines += 1;
        memory += timeline.memory_bytes();
        let stored = timeline.remote_consistent_lsn();
        unflushed += timeline.last_record_lsn().0.saturating_sub(stored.0);
        fenced += i64::from(timeline.is_fenced());
    }
    let cache = tenants.cache_status();
    METRICS.cache_bytes.set(cache.memory_bytes as i64);
    let damaged = cache.disk.as_ref().map_or(0, |disk| disk.damaged);
    METRICS.cache_damaged_parts.set(damaged as i64);
    let is_given_up = cache.disk.is_some_and(|disk| disk.given_up.is_some());
    METRICS.cache_disks_given_up.set(i64::from(is_given_up));
    METRICS.timelines.set(timelines);
    METRICS.memory_layer_bytes.set(memory as i64);
    METRICS.unflushed_bytes.set(unflushed as i64);
    METRICS.fenced_timelines.set(fenced);
    TextEncoder::new()
        .encode_to_string(&prometheus::gather())
        .map_err(|error| Error::Unavailable(format!("the metrics cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::simulation::World;

    const PAGE: &str = include_str!("../../docs/monitoring.md");

    #[tokio::test]
    async fn the_page_for_operators_and_what_is_exported_name_the_same_metrics() {
        let text = text(&World::new(0).tenants).expect("the registry is whole");
        let ours = |name: &&str| {
            name.starts_with("offshoot_pageserver_") || name.starts_with("offshoot_object_store_")
        };
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let exported: BTreeSet<&str> = types.filter(ours).collect();
        let named: BTreeSet<&str> = PAGE.split('`').filter(ours).collect();
        assert_eq!(exported, named);
    }
}
