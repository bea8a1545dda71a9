//! `GET /metrics`, for Prometheus.

use axum::{extract::State, http::header::CONTENT_TYPE, response::IntoResponse};

use super::{Api, error::ApiError};
use crate::metrics;

pub(super) async fn show(State(api): State<Api>) -> Result<impl IntoResponse, ApiError> {
    let text = metrics::text(&api.tenants)?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}
