//! Databases of a branch, as they were last seen or asked for.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Error, Time, rows};

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its number, unique among all.
    pub id: i64,
    /// Its branch.
    pub branch: String,
    /// Its name.
    pub name: String,
    /// The role that owns it.
    pub owner: String,
    /// When it was made, or first seen.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

const COLUMNS: &str = "id, branch, name, owner, created_at, updated_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Database> {
    Ok(Database {
        id: row.get(0)?,
        branch: row.get(1)?,
        name: row.get(2)?,
        owner: row.get(3)?,
        created_at: row.get(4)?,
        updated_at: row.get(5)?,
    })
}

/// Adds a database.
pub fn insert(
    catalog: &Connection,
    branch: &str,
    name: &str,
    owner: &str,
    now: Time,
) -> Result<Database, Error> {
    if find(catalog, branch, name)?.is_some() {
        return Err(Error::Exists(format!(
            "the branch has a database {name:?} already: choose another name"
        )));
    }
    let sql = "INSERT INTO databases (branch, name, owner, created_at, updated_at) \
               VALUES (?1,?2,?3,?4,?4)";
    catalog.prepare_cached(sql)?.execute(params![branch, name, owner, now])?;
    get(catalog, branch, name)
}

/// Adds a database that was removed, under its number.
pub fn restore(
    catalog: &Connection,
    id: i64,
    branch: &str,
    name: &str,
    owner: &str,
    now: Time,
) -> Result<(), Error> {
    let sql = "INSERT INTO databases (id, branch, name, owner, created_at, updated_at) \
               VALUES (?1,?2,?3,?4,?5,?5)";
    catalog.prepare_cached(sql)?.execute(params![id, branch, name, owner, now])?;
    Ok(())
}

/// Gives a database another name and owner.
pub fn update(
    catalog: &Connection,
    id: i64,
    name: &str,
    owner: &str,
    now: Time,
) -> Result<(), Error> {
    let sql = "UPDATE databases SET name = ?2, owner = ?3, updated_at = ?4 WHERE id = ?1";
    catalog.prepare_cached(sql)?.execute(params![id, name, owner, now])?;
    Ok(())
}

/// A database of a branch.
pub fn get(catalog: &Connection, branch: &str, name: &str) -> Result<Database, Error> {
    find(catalog, branch, name)?
        .ok_or_else(|| Error::NotFound(format!("branch {branch} has no database {name:?}")))
}

/// A database of a branch, if it is there.
pub fn find(catalog: &Connection, branch: &str, name: &str) -> Result<Option<Database>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM databases WHERE branch = ? AND name = ?");
    Ok(catalog.prepare_cached(&sql)?.query_row([branch, name], from_row).optional()?)
}

/// A branch's databases, in the order of their making.
pub fn list(catalog: &Connection, branch: &str) -> Result<Vec<Database>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM databases WHERE branch = ? ORDER BY id");
    rows(catalog, &sql, [branch], from_row)
}

/// Removes a database.
pub fn remove(catalog: &Connection, id: i64) -> Result<(), Error> {
    catalog.prepare_cached("DELETE FROM databases WHERE id = ?")?.execute([id])?;
    Ok(())
}

/// Takes over what a branch's Postgres has, as names and owners.
pub fn take_over(
    catalog: &Connection,
    branch: &str,
    seen: &[(String, String)],
    now: Time,
) -> Result<(), Error> {
    let known = list(catalog, branch)?;
    for database in &known {
        match seen.iter().find(|(name, _)| *name == database.name) {
            None => remove(catalog, database.id)?,
            Some((name, owner)) if *owner != database.owner => {
                update(catalog, database.id, name, owner, now)?;
            }
            Some(_) => {}
        }
    }
    for (name, owner) in seen {
        if !known.iter().any(|database| database.name == *name) {
            insert(catalog, branch, name, owner, now)?;
        }
    }
    Ok(())
}
