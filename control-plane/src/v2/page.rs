//! Lists that come in pages.

use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;

/// The longest page.
const LIMIT_MAX: u32 = 1000;
/// How long a page is where nothing is said.
const LIMIT_DEFAULT: u32 = 100;

/// Where a page ends.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cursor {
    /// To be sent for the next page; empty after an empty page.
    pub cursor: String,
}

/// Where a page ends, of a list that says whether there is a next one.
#[derive(Debug, Serialize, ToSchema)]
pub struct NextPage {
    /// To be sent as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// By what the list is sorted.
    pub sort_by: String,
    /// Which way: `ASC` or `DESC`.
    pub sort_order: String,
}

/// How long a page may be.
pub(super) fn page_limit(asked: Option<u32>) -> Result<usize, ApiError> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit as usize),
        other => Err(ApiError::invalid(format!("limit is 1 to {LIMIT_MAX}, not {other}"))),
    }
}
