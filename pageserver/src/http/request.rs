//! What requests carry: bodies, names, and work that outlives its client.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::StatusCode,
    response::IntoResponse,
};
use protocol::TenantId;
use serde::de::DeserializeOwned;

use super::{BODY_BYTES_MAX, error::ApiError};
use crate::tenants::NAME_BYTES_MAX;

/// A JSON body, whatever its content type says.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(unreadable)?;
        let body = serde_json::from_slice(&bytes);
        body.map(Body).map_err(|error| ApiError::bad_request(format!("the body: {error}")))
    }
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    let message = rejection.to_string();
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(BODY_BYTES_MAX),
        _ => ApiError::bad_request(message),
    }
}

/// A name for something new.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), ApiError> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(known) {
        return Err(ApiError::bad_request(format!(
            "{name:?} is no name for a {what}: 1 to {NAME_BYTES_MAX} of a-z, 0-9, _ and - were \
             expected"
        )));
    }
    if name.parse::<TenantId>().is_ok() {
        return Err(ApiError::bad_request(format!(
            "{name:?} is no name for a {what}: it looks like an id"
        )));
    }
    Ok(())
}

/// Does something to its end, also where the client hangs up: a manifest that was written must be
/// known in memory too.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(_) => Err(ApiError::unavailable("the request was broken off")),
    }
}
