//! What the pageserver is doing.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::Api;
use crate::{cache::CacheStatus, wal_receiver::ReceiverStatus};

pub(super) async fn show(State(api): State<Api>) -> Json<Value> {
    let timelines = api.tenants.loaded().into_iter().map(|timeline| {
        let id = timeline.id();
        let written = timeline.bytes_written();
        json!({
            "tenant_id": id.tenant,
            "timeline_id": id.timeline,
            "last_record_lsn": timeline.last_record_lsn(),
            "remote_consistent_lsn": timeline.remote_consistent_lsn(),
            "term": timeline.term(),
            "runs": timeline.runs(),
            "is_merged": timeline.is_merged(),
            "waits_for_merges": timeline.is_behind(),
            "written_bytes": {
                "wal": written.wal,
                "flushed": written.flushed,
                "merged": written.merged,
            },
            "ingest": ingest(api.receivers.status(id)),
        })
    });
    let timelines: Vec<Value> = timelines.collect();
    Json(json!({
        "pageserver": api.tenants.place(),
        "version": env!("CARGO_PKG_VERSION"),
        "cache": cache(&api.tenants.cache_status()),
        "open_layers": {
            "bytes": api.tenants.open_layers().bytes(),
            "bytes_max": api.tenants.open_layers().bytes_max(),
        },
        "timelines": timelines,
    }))
}

fn cache(status: &CacheStatus) -> Value {
    let disk = status.disk.as_ref().map(|disk| {
        json!({
            "bytes_max": disk.bytes_max,
            "damaged": disk.damaged,
            "given_up": disk.given_up,
        })
    });
    json!({
        "memory_bytes": status.memory_bytes,
        "memory_bytes_max": status.memory_bytes_max,
        "disk": disk,
    })
}

fn ingest(status: Option<ReceiverStatus>) -> Value {
    match status {
        Some(ReceiverStatus::Streaming { safekeeper, commit_lsn }) => json!({
            "state": "streaming",
            "safekeeper": safekeeper,
            "commit_lsn": commit_lsn,
        }),
        Some(ReceiverStatus::Waiting { reason }) => json!({ "state": "waiting", "reason": reason }),
        Some(ReceiverStatus::Stopped(reason)) => {
            json!({ "state": "stopped", "reason": reason.to_string() })
        }
        Some(ReceiverStatus::Ended) | None => json!({ "state": "idle" }),
    }
}
