//! What an endpoint's Postgres logged, the newest lines first and without passwords.
//!
//! A cursor names the file and the place in it where a page's oldest line begins: a log that a newer
//! compute began has other cursors.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    context::Context,
    endpoints::find,
    error::{ApiError, GeneralError},
    page::{Cursor, page_limit},
    request::{Path, Query},
    secrets::secrets,
};

/// How much of the log is read for one page. A longer line is cut.
const PAGE_BYTES_MAX: u64 = 256 << 10;
/// How much before a page is looked at for a password that ends in it.
const CONTEXT_BYTES: u64 = 4 << 10;

/// Which lines.
#[derive(Deserialize, IntoParams)]
pub struct LogQuery {
    /// Where the page before ended.
    cursor: Option<String>,
    /// At most so many: 1 to 1000, 100 where nothing is said.
    limit: Option<u32>,
}

/// Lines of a log.
#[derive(Serialize, ToSchema)]
pub struct LogPage {
    /// The newest first.
    lines: Vec<String>,
    /// Where the page ends; empty where the log begins.
    pagination: Cursor,
}

/// Show what an endpoint's Postgres logged since its compute was last started. Passwords in statements
/// are left out.
#[utoipa::path(get, path = "/projects/{project_id}/endpoints/{endpoint_id}/logs",
    tag = "endpoints", params(("project_id" = String, Path), ("endpoint_id" = String, Path), LogQuery),
    responses((status = 200, body = LogPage), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Json<LogPage>, ApiError> {
    let limit = page_limit(query.limit)?;
    let cursor = match query.cursor.as_deref() {
        None | Some("") => None,
        Some(cursor) => Some(Place::parse(cursor)?),
    };
    let (row, branch) = find(&context, project, id).await?;
    let files = context.postgres_logs(&row, &branch).await?;
    let read = tokio::task::spawn_blocking(move || {
        let Some(file) = open_first(&files)? else { return Ok(None) };
        read(file, cursor).map(Some)
    });
    let read = read.await.map_err(|_| ApiError::unavailable("the control plane ends"))?;
    let (lines, cursor) = match read? {
        Some(window) => window.page(limit),
        None => (Vec::new(), String::new()),
    };
    Ok(Json(LogPage { lines, pagination: Cursor { cursor } }))
}

/// A place in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    file: u64,
    offset: u64,
}

impl Place {
    fn parse(cursor: &str) -> Result<Place, ApiError> {
        let place = || {
            let (file, offset) = cursor.split_once('-')?;
            Some(Place { file: file.parse().ok()?, offset: offset.parse().ok()? })
        };
        place().ok_or_else(|| ApiError::invalid(format!("{cursor:?} is not a cursor of this list")))
    }
}

fn open_first(files: &[PathBuf]) -> Result<Option<File>, ApiError> {
    for file in files {
        match File::open(file) {
            Ok(file) => return Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    Ok(None)
}

fn unreadable(error: &io::Error) -> ApiError {
    ApiError::internal(format!("the log cannot be read: {error}"))
}

/// What is before a place, as far as it is read; the end of the file where no place is said.
fn read(mut file: File, end: Option<Place>) -> Result<Window, ApiError> {
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    let end = match end {
        None => metadata.len(),
        Some(Place { file, offset }) if file == metadata.ino() && offset <= metadata.len() => {
            offset
        }
        Some(_) => {
            return Err(ApiError::refused(
                "the log was begun anew since: ask again without a cursor",
            ));
        }
    };
    let begin = end.saturating_sub(PAGE_BYTES_MAX + CONTEXT_BYTES);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(begin))
        .and_then(|_| file.take(end - begin).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    Ok(Window { file: metadata.ino(), begin, bytes })
}

/// A part of a log, to the end of a line.
struct Window {
    /// The file's number.
    file: u64,
    /// Where in it the part begins.
    begin: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Its last lines, the newest first, and the cursor for what is before them.
    fn page(&self, limit: usize) -> (Vec<String>, String) {
        let hidden = secrets(&self.bytes);
        // What is before belongs to another page, but for where the log itself begins.
        let first = if self.begin == 0 { 0 } else { CONTEXT_BYTES as usize };
        let mut end = self.bytes.len();
        let mut lines = Vec::new();
        while end > first && lines.len() < limit {
            let text = self.bytes[..end].strip_suffix(b"\n").unwrap_or(&self.bytes[..end]);
            let newline = text.iter().rposition(|byte| *byte == b'\n');
            let begin = newline.map_or(0, |at| at + 1);
            // A line that began earlier goes whole to the next page, unless nothing else is on this.
            if begin < first && !lines.is_empty() {
                break;
            }
            let begin = begin.max(first);
            lines.push(shown(&self.bytes, begin, text.len().max(begin), &hidden));
            end = begin;
        }
        let place = self.begin + end as u64;
        let cursor = if place == 0 { String::new() } else { format!("{}-{place}", self.file) };
        (lines, cursor)
    }
}

/// A part of the text with what is to be hidden left out.
fn shown(text: &[u8], begin: usize, end: usize, hidden: &[std::ops::Range<usize>]) -> String {
    let mut line = String::new();
    let mut at = begin;
    for secret in hidden.iter().filter(|secret| secret.start < end && secret.end > begin) {
        line.push_str(&String::from_utf8_lossy(&text[at..secret.start.max(at)]));
        line.push_str("***");
        at = secret.end.min(end);
    }
    line.push_str(&String::from_utf8_lossy(&text[at..end]));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(begin: u64, text: &str) -> Window {
        Window { file: 7, begin, bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn pages_follow_each_other_to_the_begin_of_the_log() {
        let text = "one\ntwo\nthree\nfour";
        let (lines, cursor) = window(0, text).page(2);
        assert_eq!((lines, cursor.as_str()), (vec!["four".into(), "three".into()], "7-8"));
        assert_eq!(Place::parse(&cursor), Ok(Place { file: 7, offset: 8 }));
        let (lines, cursor) = window(0, &text[..8]).page(2);
        assert_eq!((lines, cursor.as_str()), (vec!["two".into(), "one".into()], ""));
        assert_eq!(window(0, "").page(2), (Vec::new(), String::new()));
        assert!(Place::parse("7").is_err() && Place::parse("x-1").is_err());
    }

    #[test]
    fn a_line_that_is_longer_than_a_page_is_cut_and_no_page_is_empty() {
        let long = "x".repeat(CONTEXT_BYTES as usize + 10);
        let (lines, cursor) = window(100, &long).page(5);
        assert_eq!(lines, ["x".repeat(10)]);
        assert_eq!(cursor, format!("7-{}", 100 + CONTEXT_BYTES));
        let (lines, _) = window(100, &format!("{long}\nlast\n")).page(5);
        assert_eq!(lines, ["last"], "the line before begins earlier");
    }

    #[test]
    fn a_password_is_hidden_on_every_line_that_it_is_on() {
        let text = "STATEMENT:  ALTER ROLE app\n\tPASSWORD\n\t'se\n\tcret' VALID UNTIL 'x'\nnext\n";
        let (lines, _) = window(0, text).page(10);
        let said = lines.join("|");
        assert!(!said.contains("se\n") && !said.contains("cret"), "{said}");
        assert!(said.contains("VALID UNTIL") && said.starts_with("next|"), "{said}");
        // One that ends in a page which begins in the middle of it.
        let before = format!("{}PASSWORD 'se\n", "y".repeat(CONTEXT_BYTES as usize - 13));
        let (lines, _) = window(1, &format!("{before}cret' VALID\n")).page(10);
        assert_eq!(lines, ["*** VALID"]);
    }
}
