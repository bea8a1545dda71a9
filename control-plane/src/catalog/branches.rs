//! Branches: names and properties of timelines.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::{Error, Time, from_json, rows};
use crate::RegionId;

/// A branch.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// Its id; a restore keeps it.
    pub id: String,
    /// Its project.
    pub project: String,
    /// Its name, unique in the project.
    pub name: String,
    /// The timeline that it stands for.
    pub timeline: String,
    /// The branch that it came from, while that is there.
    pub parent: Option<String>,
    /// Where it begins.
    pub parent_lsn: Option<String>,
    /// The moment that was asked for, in RFC 3339.
    pub parent_timestamp: Option<String>,
    /// It can be neither deleted nor put back.
    pub protected: bool,
    /// What its maker wrote to it.
    pub annotation: Value,
    /// When it deletes itself.
    pub expires_at: Option<Time>,
    /// When it was last put back.
    pub last_reset_at: Option<Time>,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

impl Branch {
    /// A branch without parent, called after its id.
    pub fn new(id: &str, project: &str, timeline: &str, now: Time) -> Branch {
        Branch {
            id: id.to_owned(),
            project: project.to_owned(),
            name: id.to_owned(),
            timeline: timeline.to_owned(),
            parent: None,
            parent_lsn: None,
            parent_timestamp: None,
            protected: false,
            annotation: json!({}),
            expires_at: None,
            last_reset_at: None,
            created_at: now,
            updated_at: now,
        }
    }
}

const COLUMNS: &str = "id, project, name, timeline, parent, parent_lsn, parent_timestamp, \
                       protected, annotation, expires_at, last_reset_at, created_at, updated_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Branch> {
    Ok(Branch {
        id: row.get(0)?,
        project: row.get(1)?,
        name: row.get(2)?,
        timeline: row.get(3)?,
        parent: row.get(4)?,
        parent_lsn: row.get(5)?,
        parent_timestamp: row.get(6)?,
        protected: row.get(7)?,
        annotation: from_json(&row.get::<_, String>(8)?)?,
        expires_at: row.get(9)?,
        last_reset_at: row.get(10)?,
        created_at: row.get(11)?,
        updated_at: row.get(12)?,
    })
}

/// Adds a branch.
pub fn insert(catalog: &Connection, branch: &Branch) -> Result<(), Error> {
    refuse_taken(catalog, &branch.project, &branch.name, None)?;
    let sql = format!("INSERT INTO branches ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)");
    write(catalog, &sql, branch)
}

/// Writes a branch anew.
pub fn update(catalog: &Connection, branch: &Branch) -> Result<(), Error> {
    refuse_taken(catalog, &branch.project, &branch.name, Some(&branch.id))?;
    let sql = "UPDATE branches SET project = ?2, name = ?3, timeline = ?4, parent = ?5, \
               parent_lsn = ?6, parent_timestamp = ?7, protected = ?8, annotation = ?9, \
               expires_at = ?10, last_reset_at = ?11, created_at = ?12, updated_at = ?13 \
               WHERE id = ?1";
    write(catalog, sql, branch)
}

fn write(catalog: &Connection, sql: &str, branch: &Branch) -> Result<(), Error> {
    catalog.prepare_cached(sql)?.execute(params![
        branch.id,
        branch.project,
        branch.name,
        branch.timeline,
        branch.parent,
        branch.parent_lsn,
        branch.parent_timestamp,
        branch.protected,
        branch.annotation.to_string(),
        branch.expires_at,
        branch.last_reset_at,
        branch.created_at,
        branch.updated_at,
    ])?;
    Ok(())
}

/// Refuses a name that a branch of the project has, but for the one of this id.
pub fn refuse_taken(
    catalog: &Connection,
    project: &str,
    name: &str,
    but_for: Option<&str>,
) -> Result<(), Error> {
    let sql = "SELECT 1 FROM branches WHERE project = ?1 AND name = ?2 AND id IS NOT ?3";
    let mut statement = catalog.prepare_cached(sql)?;
    if statement.exists(params![project, name, but_for])? {
        return Err(Error::Exists(format!(
            "the project has a branch {name:?} already: choose another name"
        )));
    }
    Ok(())
}

/// Refuses a branch that is to stay as it is.
pub fn refuse_protected(branch: &Branch) -> Result<(), Error> {
    match branch.protected {
        true => Err(Error::Refused(
            "the branch is protected: take its protection away first".to_owned(),
        )),
        false => Ok(()),
    }
}

/// Refuses a branch that the pageserver does not have yet.
pub fn refuse_unmade(catalog: &Connection, branch: &Branch) -> Result<(), Error> {
    match super::timelines::is_made(catalog, &branch.project, &branch.timeline)? {
        Some(true) => Ok(()),
        _ => {
            Err(Error::Exists(format!("branch {} is still being made: try again later", branch.id)))
        }
    }
}

/// A branch of a project.
pub fn get(catalog: &Connection, project: &str, id: &str) -> Result<Branch, Error> {
    super::projects::get(catalog, project)?;
    let sql = format!("SELECT {COLUMNS} FROM branches WHERE id = ? AND project = ?");
    let found = catalog.prepare_cached(&sql)?.query_row([id, project], from_row).optional()?;
    found.ok_or_else(|| Error::NotFound(format!("project {project} has no branch {id:?}")))
}

/// The branch that stands for a timeline.
pub fn of_timeline(
    catalog: &Connection,
    project: &str,
    timeline: &str,
) -> Result<Option<Branch>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM branches WHERE project = ? AND timeline = ?");
    Ok(catalog.prepare_cached(&sql)?.query_row([project, timeline], from_row).optional()?)
}

/// A branch by its id, of whichever project.
pub fn find(catalog: &Connection, id: &str) -> Result<Option<Branch>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM branches WHERE id = ?");
    Ok(catalog.prepare_cached(&sql)?.query_row([id], from_row).optional()?)
}

/// A project's branches, in the order of their making.
pub fn list(catalog: &Connection, project: &str) -> Result<Vec<Branch>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM branches WHERE project = ? ORDER BY created_at, id");
    rows(catalog, &sql, [project], from_row)
}

/// Branches of a region whose time is over.
pub fn expired(catalog: &Connection, region: &RegionId, now: Time) -> Result<Vec<Branch>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM branches WHERE expires_at <= ? \
         AND EXISTS (SELECT 1 FROM projects p WHERE p.id = branches.project AND p.region = ?)"
    );
    rows(catalog, &sql, params![now, region], from_row)
}

/// Gives the children of one branch another parent, or none.
pub fn adopt(catalog: &Connection, from: &str, to: Option<&str>) -> Result<(), Error> {
    let sql = "UPDATE branches SET parent = ?2 WHERE parent = ?1";
    catalog.prepare_cached(sql)?.execute(params![from, to])?;
    Ok(())
}

/// Removes a branch with its endpoint, roles, databases, waiting changes, and what it used; its timeline
/// is doomed.
pub fn remove(catalog: &Connection, branch: &Branch) -> Result<(), Error> {
    adopt(catalog, &branch.id, None)?;
    for table in ["endpoints", "roles", "databases", "changes", "branch_consumption"] {
        catalog
            .prepare_cached(&format!("DELETE FROM {table} WHERE branch = ?"))?
            .execute([&branch.id])?;
    }
    catalog.prepare_cached("DELETE FROM branches WHERE id = ?")?.execute([&branch.id])?;
    super::timelines::set_state(
        catalog,
        &branch.project,
        &branch.timeline,
        super::timelines::State::Doomed,
    )
}

/// Gives a branch the roles, databases and waiting changes that another has.
pub fn copy_contents(catalog: &Connection, from: &str, to: &str) -> Result<(), Error> {
    let copies = [
        "INSERT INTO roles SELECT ?2, name, verifier, password, login, created_at, updated_at \
         FROM roles WHERE branch = ?1",
        "INSERT INTO databases (branch, name, owner, created_at, updated_at) \
         SELECT ?2, name, owner, created_at, updated_at FROM databases WHERE branch = ?1 ORDER BY id",
        "INSERT INTO changes (branch, change) \
         SELECT ?2, change FROM changes WHERE branch = ?1 ORDER BY id",
    ];
    for copy in copies {
        catalog.prepare_cached(copy)?.execute([from, to])?;
    }
    Ok(())
}

/// Forgets a branch's roles, databases and waiting changes.
pub fn clear_contents(catalog: &Connection, branch: &str) -> Result<(), Error> {
    for table in ["roles", "databases", "changes"] {
        catalog
            .prepare_cached(&format!("DELETE FROM {table} WHERE branch = ?"))?
            .execute([branch])?;
    }
    Ok(())
}
