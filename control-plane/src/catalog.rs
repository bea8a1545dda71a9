//! The catalog: what there is, as users know it. Projects, branches, endpoints, roles, databases,
//! operations and API keys, in one SQLite file.
//!
//! - A write is one transaction, on disk before it is answered; writes that meet share an fsync.
//! - What the pageserver or a Postgres is still to do is written down with the row that wants it:
//!   a project without a tenant, a timeline that is `wanted` or `doomed`, a change that waits for
//!   its branch's Postgres. After a crash it is done or undone from there.
//! - It knows no HTTP, no pageserver and no Postgres. Time and randomness come in as arguments.
//!
//! `docs/formats/catalog.md` describes the tables.

pub mod api_keys;
pub mod branch_consumption;
pub mod branches;
mod checkpoint;
mod commit;
pub mod consumption;
pub mod databases;
pub mod endpoints;
mod error;
pub mod ids;
pub mod operations;
pub mod projects;
pub mod rebuild;
pub mod regions;
pub mod retries;
pub mod roles;
mod schema;
pub mod templates;
pub mod timelines;

#[cfg(test)]
mod tests;

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, Params, Row};

use commit::Writer;
pub use error::Error;

/// Microseconds since 1970.
pub type Time = i64;

/// Readers that are kept open for the next read.
const IDLE_READERS_MAX: usize = 8;

/// The file, shared by all who use it.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    path: std::path::PathBuf,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
}

impl Catalog {
    /// Opens the file, made where it is missing; whether it was.
    pub fn open(path: &Path) -> Result<(Catalog, bool), Error> {
        // SQLite would make it readable for all; what it makes beside it is as this is.
        fs::File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| Error::Unavailable(format!("{}: {error}", path.display())))?;
        let connection = Connection::open(path)?;
        schema::configure(&connection)?;
        let is_new = schema::prepare(&connection)?;
        let writer = Writer::start(connection, path)?;
        let inner = Inner { path: path.to_owned(), writer, readers: Mutex::default() };
        Ok((Catalog { inner: Arc::new(inner) }, is_new))
    }

    /// Carries a write out, and waits until it is on disk. An error takes the whole of it back.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.writer.write(work).await
    }

    /// Reads, from one state of the file.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        let read = move || {
            let reader = inner.readers.lock().pop();
            let reader = reader.map_or_else(|| inner.reader(), Ok)?;
            let transaction = reader.unchecked_transaction()?;
            let read = work(&transaction);
            drop(transaction);
            let mut readers = inner.readers.lock();
            if readers.len() < IDLE_READERS_MAX {
                readers.push(reader);
            }
            read
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| Error::Unavailable("the process ends".to_owned()))?
    }

    /// Ends the writing; later writes are refused.
    pub fn close(&self) {
        self.inner.writer.close();
    }
}

impl Inner {
    fn reader(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(&self.path, flags)?;
        schema::configure(&reader)?;
        reader.execute_batch("PRAGMA query_only = ON")?;
        Ok(reader)
    }
}

/// All rows that a query finds.
fn rows<T>(
    catalog: &Connection,
    sql: &str,
    params: impl Params,
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Error> {
    let mut statement = catalog.prepare_cached(sql)?;
    let rows = statement.query_map(params, row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A column that holds JSON.
fn from_json<T: for<'de> serde::Deserialize<'de>>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}
