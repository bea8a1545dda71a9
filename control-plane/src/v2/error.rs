//! Errors as the API says them: `{code, message, request_id}`.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::storage::StorageError;
use crate::{
    catalog,
    metering::quota::{Meter, State},
};

/// An answer that is none: its status, its code for programs and its sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The kind, for programs.
    pub code: &'static str,
    /// What is wrong, and the mend.
    pub message: String,
}

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct GeneralError {
    /// The kind, for programs.
    pub code: String,
    /// What is wrong, and the mend, for people.
    pub message: String,
    /// The request, as the log calls it; also in the header `x-request-id`.
    pub request_id: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into() }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
    }

    /// No key, or none that is known.
    pub fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// The path has no such method.
    pub fn method_not_allowed(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }

    /// The name is taken.
    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, "CONFLICT", message)
    }

    /// What is asked for breaks a rule.
    pub fn refused(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "REFUSED", message)
    }

    /// The project used up what it may.
    pub fn quota(state: &State) -> ApiError {
        let (status, code) = (StatusCode::UNPROCESSABLE_ENTITY, state.meter.code());
        ApiError::new(status, code, state.sentence())
    }

    /// Whether it is because the project used up what it may.
    pub fn is_quota(&self) -> bool {
        Meter::ALL.iter().any(|meter| meter.code() == self.code)
    }

    /// The body is above its bound.
    pub fn too_large(bytes_max: usize) -> ApiError {
        let message = format!("the body is longer than {bytes_max} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", message)
    }

    /// A compute does not come up, or its Postgres does not do what it is told.
    pub fn compute(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "COMPUTE_FAILED", message)
    }

    /// Something of this program's own is wrong.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
    }

    /// Something that is needed cannot be reached.
    pub fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }
}

impl IntoResponse for ApiError {
    /// The status alone; [`super::request::frame`] writes the body, which names the request.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<catalog::Error> for ApiError {
    fn from(error: catalog::Error) -> ApiError {
        let message = error.to_string();
        match error {
            catalog::Error::NotFound(_) => ApiError::not_found(message),
            catalog::Error::Exists(_) => ApiError::conflict(message),
            catalog::Error::Refused(_) => ApiError::refused(message),
            catalog::Error::Corrupt(_) => ApiError::internal(message),
            catalog::Error::Unavailable(_) => ApiError::unavailable(message),
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> ApiError {
        let message = error.to_string();
        match error {
            StorageError::Exists(_) => ApiError::conflict(message),
            StorageError::NotFound(_) => ApiError::not_found(message),
            StorageError::Refused(_) => ApiError::refused(message),
            StorageError::Unavailable(_) => ApiError::unavailable(message),
        }
    }
}

impl From<crate::Error> for ApiError {
    fn from(error: crate::Error) -> ApiError {
        let message = error.to_string();
        match error {
            crate::Error::NotFound(_) => ApiError::not_found(message),
            crate::Error::Invalid(_) => ApiError::invalid(message),
            crate::Error::Conflict(_) => ApiError::conflict(message),
            crate::Error::ComputeFailed { .. } => ApiError::compute(message),
            crate::Error::Unavailable { .. } => ApiError::unavailable(message),
            _ => ApiError::internal(message),
        }
    }
}
