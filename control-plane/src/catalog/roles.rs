//! Roles as they were last seen or asked for, their passwords, and the changes that wait for their
//! branch's Postgres.
//!
//! A role has a SCRAM verifier, made of its password when either the proxy or Postgres first needs
//! it: that takes a millisecond of a core, which a project's creation does not have. The password
//! is kept by the verifier: whatever moment a branch goes back to, the verifier that Postgres has
//! there finds the password that belongs to it. A password that was set by SQL is not known here.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::{Error, Time, from_json, rows};

/// A role of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its branch.
    pub branch: String,
    /// Its name.
    pub name: String,
    /// What Postgres checks its password against, as in `pg_authid.rolpassword`.
    pub verifier: Option<String>,
    /// The password that was asked for, until a verifier is made of it.
    pub password: Option<String>,
    /// Whether it may log in.
    pub login: bool,
    /// When it was made, or first seen.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

impl Role {
    /// A role that may log in if it has a password.
    pub fn new(branch: &str, name: &str, password: Option<String>, now: Time) -> Role {
        Role {
            branch: branch.to_owned(),
            name: name.to_owned(),
            verifier: None,
            login: password.is_some(),
            password,
            created_at: now,
            updated_at: now,
        }
    }
}

/// What is to be done in a branch's Postgres. Each can be done twice, before anybody else is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The template's role and database get these names, or are made.
    First {
        /// The role.
        role: String,
        /// The database.
        database: String,
    },
    /// There is a role, with the verifier that the catalog has for it.
    Role {
        /// Its name.
        name: String,
    },
    /// A role, if it is there, has the verifier that the catalog has for it.
    Verifier {
        /// Its name.
        name: String,
    },
    /// There is no such role; what it owned is the superuser's.
    NoRole {
        /// Its name.
        name: String,
    },
    /// There is a database of this owner.
    Database {
        /// Its name.
        name: String,
        /// Its owner.
        owner: String,
    },
    /// A database has another name.
    Rename {
        /// What it was called.
        from: String,
        /// What it is called.
        to: String,
    },
    /// No table has a row. Nobody is let in before that is so.
    NoRows,
    /// There is no such database.
    NoDatabase {
        /// Its name.
        name: String,
    },
}

const COLUMNS: &str = "branch, name, verifier, password, login, created_at, updated_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Role> {
    Ok(Role {
        branch: row.get(0)?,
        name: row.get(1)?,
        verifier: row.get(2)?,
        password: row.get(3)?,
        login: row.get(4)?,
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
    })
}

/// Adds a role, or writes it anew.
pub fn put(catalog: &Connection, role: &Role) -> Result<(), Error> {
    let sql = format!("INSERT OR REPLACE INTO roles ({COLUMNS}) VALUES (?,?,?,?,?,?,?)");
    catalog.prepare_cached(&sql)?.execute(params![
        role.branch,
        role.name,
        role.verifier,
        role.password,
        role.login,
        role.created_at,
        role.updated_at,
    ])?;
    Ok(())
}

/// A role of a branch.
pub fn get(catalog: &Connection, branch: &str, name: &str) -> Result<Role, Error> {
    find(catalog, branch, name)?
        .ok_or_else(|| Error::NotFound(format!("branch {branch} has no role {name:?}")))
}

/// A role of a branch, if it is there.
pub fn find(catalog: &Connection, branch: &str, name: &str) -> Result<Option<Role>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM roles WHERE branch = ? AND name = ?");
    Ok(catalog.prepare_cached(&sql)?.query_row([branch, name], from_row).optional()?)
}

/// A branch's roles, by name.
pub fn list(catalog: &Connection, branch: &str) -> Result<Vec<Role>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM roles WHERE branch = ? ORDER BY name");
    rows(catalog, &sql, [branch], from_row)
}

/// Removes a role.
pub fn remove(catalog: &Connection, branch: &str, name: &str) -> Result<(), Error> {
    let sql = "DELETE FROM roles WHERE branch = ? AND name = ?";
    catalog.prepare_cached(sql)?.execute([branch, name])?;
    Ok(())
}

/// Keeps the password that a verifier was made of.
fn keep_password(
    catalog: &Connection,
    project: &str,
    verifier: &str,
    password: &str,
) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO passwords (verifier, project, password) VALUES (?,?,?)";
    catalog.prepare_cached(sql)?.execute([verifier, project, password])?;
    Ok(())
}

/// A role's password, if it is known.
pub fn password(catalog: &Connection, role: &Role) -> Result<Option<String>, Error> {
    if let Some(password) = &role.password {
        return Ok(Some(password.clone()));
    }
    let Some(verifier) = &role.verifier else { return Ok(None) };
    let sql = "SELECT password FROM passwords WHERE verifier = ?";
    let mut statement = catalog.prepare_cached(sql)?;
    Ok(statement.query_row([verifier], |row| row.get(0)).optional()?)
}

/// A branch's roles by name, each with its password if that is known.
pub fn with_passwords(
    catalog: &Connection,
    branch: &str,
) -> Result<Vec<(Role, Option<String>)>, Error> {
    let with_password = |role: Role| {
        let password = password(catalog, &role)?;
        Ok((role, password))
    };
    list(catalog, branch)?.into_iter().map(with_password).collect()
}

/// Gives a role the verifier that was made of the password it was to have; whether it was still to
/// have that one.
pub fn set_verifier(
    catalog: &Connection,
    project: &str,
    role: &Role,
    verifier: &str,
) -> Result<bool, Error> {
    let Some(password) = &role.password else { return Ok(false) };
    let sql = "UPDATE roles SET verifier = ?4, password = NULL \
               WHERE branch = ?1 AND name = ?2 AND password = ?3";
    let row = [&role.branch, &role.name, password, verifier];
    let changed = catalog.prepare_cached(sql)?.execute(row)?;
    if changed > 0 {
        keep_password(catalog, project, verifier, password)?;
    }
    Ok(changed > 0)
}

/// A role, as a branch's Postgres has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its verifier.
    pub verifier: Option<String>,
    /// Whether it may log in.
    pub login: bool,
}

/// Takes over what a branch's Postgres has: roles made or dropped and passwords set by SQL are
/// seen. What still waits for that Postgres must be done before.
pub fn take_over(
    catalog: &Connection,
    branch: &str,
    seen: &[Seen],
    now: Time,
) -> Result<(), Error> {
    let known = list(catalog, branch)?;
    for role in &known {
        if !seen.iter().any(|seen| seen.name == role.name) {
            remove(catalog, branch, &role.name)?;
        }
    }
    for Seen { name, verifier, login } in seen {
        let earlier = known.iter().find(|role| role.name == *name);
        if earlier.is_some_and(|role| role.verifier == *verifier && role.login == *login) {
            continue;
        }
        put(
            catalog,
            &Role {
                branch: branch.to_owned(),
                name: name.clone(),
                verifier: verifier.clone(),
                password: None,
                login: *login,
                created_at: earlier.map_or(now, |role| role.created_at),
                updated_at: now,
            },
        )?;
    }
    Ok(())
}

/// Has a change wait for the branch's Postgres; its number.
pub fn wait(catalog: &Connection, branch: &str, change: &Change) -> Result<i64, Error> {
    let sql = "INSERT INTO changes (branch, change) VALUES (?,?)";
    catalog.prepare_cached(sql)?.execute([branch, &serde_json::to_string(change)?])?;
    Ok(catalog.last_insert_rowid())
}

/// Has a branch that begins in the past keep today's passwords: one that was replaced since must not
/// come back.
pub fn keep_verifiers(catalog: &Connection, branch: &str) -> Result<(), Error> {
    for role in list(catalog, branch)? {
        if role.login && (role.verifier.is_some() || role.password.is_some()) {
            wait(catalog, branch, &Change::Verifier { name: role.name })?;
        }
    }
    Ok(())
}

/// The changes that wait for a branch's Postgres, in order.
pub fn waiting(catalog: &Connection, branch: &str) -> Result<Vec<(i64, Change)>, Error> {
    let sql = "SELECT id, change FROM changes WHERE branch = ? ORDER BY id";
    rows(catalog, sql, [branch], |row| Ok((row.get(0)?, from_json(&row.get::<_, String>(1)?)?)))
}

/// Takes a change that was done off the list.
pub fn done(catalog: &Connection, number: i64) -> Result<(), Error> {
    catalog.prepare_cached("DELETE FROM changes WHERE id = ?")?.execute([number])?;
    Ok(())
}
