//! API keys: only their hashes are kept. A key is random, 206 bits of it, so one SHA-256 is enough.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::{Error, Time, rows};

/// What a key begins with, so that one that was committed by mistake is found.
pub const PREFIX: &str = "offshoot_";

/// A key's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its number.
    pub id: i64,
    /// What it is for.
    pub name: String,
    /// When it was made.
    pub created_at: Time,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Time>,
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        id: row.get(0)?,
        name: row.get(1)?,
        created_at: row.get(2)?,
        last_used_at: row.get(3)?,
    })
}

const COLUMNS: &str = "id, name, created_at, last_used_at";

/// What is kept of a key.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Adds a key.
pub fn insert(
    catalog: &Connection,
    name: &str,
    hash: &[u8; 32],
    now: Time,
) -> Result<ApiKey, Error> {
    let sql = "INSERT INTO api_keys (name, hash, created_at) VALUES (?,?,?)";
    catalog.execute(sql, params![name, &hash[..], now])?;
    let id = catalog.last_insert_rowid();
    Ok(ApiKey { id, name: name.to_owned(), created_at: now, last_used_at: None })
}

/// All keys.
pub fn list(catalog: &Connection) -> Result<Vec<ApiKey>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys ORDER BY id");
    rows(catalog, &sql, [], from_row)
}

/// The hashes of all keys, and their numbers.
pub fn hashes(catalog: &Connection) -> Result<Vec<([u8; 32], i64)>, Error> {
    rows(catalog, "SELECT hash, id FROM api_keys", [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Removes a key; what it was.
pub fn remove(catalog: &Connection, id: i64) -> Result<ApiKey, Error> {
    let sql = format!("DELETE FROM api_keys WHERE id = ? RETURNING {COLUMNS}");
    let removed = catalog.query_row(&sql, [id], from_row).optional()?;
    removed.ok_or_else(|| Error::NotFound(format!("there is no API key {id}")))
}

/// Writes down that a key was used.
pub fn used(catalog: &Connection, id: i64, now: Time) -> Result<(), Error> {
    catalog.execute("UPDATE api_keys SET last_used_at = ?2 WHERE id = ?1", params![id, now])?;
    Ok(())
}
