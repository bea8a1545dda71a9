//! Requests that name themselves (`Idempotency-Key`): tried again, they find what they made.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, Time};

/// What an earlier request of this key made; refused where that asked for something else.
pub fn find(catalog: &Connection, key: &str, request: &[u8; 32]) -> Result<Option<String>, Error> {
    let sql = "SELECT request, subject FROM retries WHERE key = ?";
    let found: Option<([u8; 32], String)> = catalog
        .prepare_cached(sql)?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match found {
        None => Ok(None),
        Some((earlier, subject)) if earlier == *request => Ok(Some(subject)),
        Some(_) => Err(Error::Refused(
            "this Idempotency-Key was used for another request: use a new one".to_owned(),
        )),
    }
}

/// Keeps what a request made.
pub fn keep(
    catalog: &Connection,
    key: &str,
    request: &[u8; 32],
    subject: &str,
    now: Time,
) -> Result<(), Error> {
    let sql = "INSERT INTO retries (key, request, subject, created_at) VALUES (?,?,?,?)";
    catalog.prepare_cached(sql)?.execute(params![key, &request[..], subject, now])?;
    Ok(())
}

/// Forgets the request that made something which was taken back.
pub fn forget(catalog: &Connection, subject: &str) -> Result<(), Error> {
    catalog.execute("DELETE FROM retries WHERE subject = ?", [subject])?;
    Ok(())
}

/// Forgets requests from before this moment.
pub fn prune(catalog: &Connection, before: Time) -> Result<(), Error> {
    catalog.execute("DELETE FROM retries WHERE created_at < ?", [before])?;
    Ok(())
}
