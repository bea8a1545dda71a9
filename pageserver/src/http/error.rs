//! Errors as the admin API says them.

use axum::{
    Json,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{error::Error, manifest::Place, template::ImportError};

/// An answer that is none: its status, its code for programs and its sentence for people.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// Where to ask instead.
    pageserver: Option<Box<Place>>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: String) -> ApiError {
        ApiError { status, code, message, pageserver: None }
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message.into())
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", message.into())
    }

    /// There is no such path. The code is another than for a thing that is not there: who asks with
    /// a token that is not taken hears this, and must not believe that the thing is gone.
    pub fn no_path(path: &str) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "no_such_path", format!("there is nothing at {path}"))
    }

    /// What it is asked of is not known any more.
    pub fn gone(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::GONE, "gone", message.into())
    }

    /// The path has no such method.
    pub fn method_not_allowed(method: &Method, path: &str) -> ApiError {
        let message = format!("{method} is not possible at {path}");
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// The body is above its bound.
    pub fn too_large(bytes_max: usize) -> ApiError {
        let message = format!("the body is longer than {bytes_max} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// Something that is needed cannot be reached.
    pub fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message.into())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        let message = error.to_string();
        match error {
            Error::Moved { to, .. } => {
                let moved = ApiError::new(StatusCode::MISDIRECTED_REQUEST, "moved", message);
                ApiError { pageserver: Some(to), ..moved }
            }
            Error::NotFound(_) => ApiError::not_found(message),
            Error::Exists(_) => ApiError::new(StatusCode::CONFLICT, "exists", message),
            Error::Invalid(_) => ApiError::bad_request(message),
            Error::Gone { .. } | Error::GoneTime { .. } => ApiError::gone(message),
            Error::NotYet { .. } => ApiError::new(StatusCode::CONFLICT, "not_yet", message),
            Error::TermFenced { .. }
            | Error::Fenced { .. }
            | Error::Unavailable(_)
            | Error::ShuttingDown => ApiError::unavailable(message),
            Error::Corrupt { .. }
            | Error::Missing { .. }
            | Error::Redo { .. }
            | Error::IngestStopped(_) => {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "corrupt", message)
            }
        }
    }
}

impl From<ImportError> for ApiError {
    fn from(error: ImportError) -> ApiError {
        match error {
            ImportError::Store(error) => error.into(),
            refused => ApiError::bad_request(refused.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "code": self.code, "message": self.message });
        if let Some(place) = self.pageserver {
            body["pageserver"] = json!(*place);
        }
        (self.status, Json(body)).into_response()
    }
}
