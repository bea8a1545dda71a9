//! The status over HTTP, for people and monitors: `GET /v1/status`, `GET /v1/timelines`, `GET /metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use protocol::quorum::TimelineStatus;
use protocol::{Identity, NodeId, TenantTimeline};
use serde::Serialize;

use crate::journal::JournalStatus;
use crate::keeper::Keeper;
use crate::metrics::{self, METRICS};

#[derive(Serialize)]
struct Status {
    node: NodeId,
    identity: Identity,
    /// Whether another disk of the same node took this one's place.
    is_replaced: bool,
    timelines: usize,
    journal: JournalStatus,
}

#[derive(Serialize)]
struct NamedStatus {
    tenant_id: protocol::TenantId,
    timeline_id: protocol::TimelineId,
    is_member: bool,
    #[serde(flatten)]
    status: TimelineStatus,
}

fn routes() -> [(&'static str, MethodRouter<Arc<Keeper>>); 3] {
    [("/v1/status", get(status)), ("/v1/timelines", get(timelines)), ("/metrics", get(metrics))]
}

/// Every path that there is.
pub fn paths() -> Vec<&'static str> {
    routes().map(|(path, _)| path).to_vec()
}

/// The routes, for operators.
pub fn router(keeper: Arc<Keeper>) -> Router {
    let guard = keeper.guard.clone();
    let empty = Router::new();
    let routes = routes().into_iter().fold(empty, |all, (path, answer)| all.route(path, answer));
    let routes = routes.with_state(keeper);
    access::http::operators_only(routes, guard, "http", |_| StatusCode::NOT_FOUND.into_response())
}

async fn status(State(keeper): State<Arc<Keeper>>) -> Json<Status> {
    Json(Status {
        node: keeper.me.node,
        identity: keeper.me.identity,
        is_replaced: keeper.is_replaced.load(std::sync::atomic::Ordering::Relaxed),
        timelines: keeper.timelines().len(),
        journal: keeper.journal.status(),
    })
}

async fn metrics(State(keeper): State<Arc<Keeper>>) -> Response {
    METRICS.look(&keeper);
    match metrics::text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn timelines(State(keeper): State<Arc<Keeper>>) -> Json<Vec<NamedStatus>> {
    let mut all = Vec::new();
    for timeline in keeper.timelines() {
        let TenantTimeline { tenant, timeline: timeline_id } = timeline.id;
        let is_member = timeline.membership().1;
        if let Ok(status) = timeline.status().await {
            all.push(NamedStatus { tenant_id: tenant, timeline_id, is_member, status });
        }
    }
    all.sort_by_key(|it| (it.tenant_id, it.timeline_id));
    Json(all)
}
