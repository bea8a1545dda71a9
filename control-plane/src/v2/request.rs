//! What is read of a request, and what every answer has: an id, and errors in one form.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderValue, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{
    context::Context,
    error::{ApiError, GeneralError},
};
use crate::catalog::ids;

/// The longest body.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// The header that names a request, so that it can be tried again.
const RETRY_KEY: &str = "idempotency-key";
/// The longest of those.
const RETRY_KEY_BYTES_MAX: usize = 200;

/// A JSON body. An empty one is `{}`: clients send none where nothing must be said.
pub(super) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, ApiError> {
        let bytes = read(request, state).await?;
        let body: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let body = serde_json::from_slice(body);
        body.map(Body).map_err(|error| ApiError::invalid(format!("the body: {error}")))
    }
}

/// A JSON body, and what makes its request the same as another one.
pub(super) struct Retried<T> {
    /// The body.
    pub body: T,
    /// The request's own key, and what it asks for.
    pub key: Option<(String, [u8; 32])>,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Retried<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Retried<T>, ApiError> {
        let key = match request.headers().get(RETRY_KEY).map(HeaderValue::to_str) {
            None => None,
            Some(Ok(key)) if (1..=RETRY_KEY_BYTES_MAX).contains(&key.len()) => Some(key.to_owned()),
            Some(_) => {
                return Err(ApiError::invalid(format!(
                    "an Idempotency-Key has 1 to {RETRY_KEY_BYTES_MAX} printable ASCII letters"
                )));
            }
        };
        let place = format!("{} {}\n", request.method(), request.uri().path());
        let bytes = read(request, state).await?;
        let asked = Sha256::new().chain_update(place).chain_update(&bytes).finalize();
        let body: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let body = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body: {error}")))?;
        Ok(Retried { body, key: key.map(|key| (key, asked.into())) })
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<axum::body::Bytes, ApiError> {
    axum::body::Bytes::from_request(request, state).await.map_err(|rejection| {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(BODY_BYTES_MAX),
            _ => ApiError::invalid(rejection.body_text()),
        }
    })
}

/// What stands behind the `?` of a path.
pub(super) struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, ApiError> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        let invalid = |rejection: axum::extract::rejection::QueryRejection| {
            ApiError::invalid(rejection.body_text())
        };
        query.map(|axum::extract::Query(query)| Query(query)).map_err(invalid)
    }
}

/// The parts of a path.
pub(super) struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, ApiError> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        let invalid = |rejection: axum::extract::rejection::PathRejection| {
            ApiError::invalid(rejection.body_text())
        };
        path.map(|axum::extract::Path(path)| Path(path)).map_err(invalid)
    }
}

/// Gives every request an id, and every error its body.
pub(super) async fn frame(
    State(context): State<Arc<Context>>,
    request: Request,
    next: Next,
) -> Response {
    context.calm.disturb();
    let request_id = ids::operation(&mut rand::rng());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        if error.status.is_server_error() {
            tracing::warn!(%request_id, %method, path, error = error.message, "request failed");
        }
        let body = GeneralError {
            code: error.code.to_owned(),
            message: error.message,
            request_id: request_id.clone(),
        };
        response = (error.status, Json(body)).into_response();
    }
    // A UUID is a header's value.
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}
