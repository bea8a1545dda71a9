//! Why the catalog refuses.

/// An error of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    Exists(String),
    /// What is asked for breaks a rule; the sentence says the mend.
    #[error("{0}")]
    Refused(String),
    /// The file is not, or no longer, a catalog.
    #[error("the catalog cannot be used: {0}")]
    Corrupt(String),
    /// The file cannot be read or written.
    #[error("the catalog cannot be read or written: {0}")]
    Unavailable(String),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Error::Corrupt(error.to_string()),
            _ => Error::Unavailable(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::Corrupt(error.to_string())
    }
}
