//! Projects: a tenant of the pageserver, called by the project's id.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::{Error, Time, from_json, rows};
use crate::RegionId;

/// A project.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Its id, and its tenant's name.
    pub id: String,
    /// Where it is; it never moves.
    pub region: RegionId,
    /// What people call it; two may be called alike.
    pub name: String,
    /// The template that its tenant begins as; the default one where none is said.
    pub template: Option<String>,
    /// How much history is kept, in seconds.
    pub history_seconds: u64,
    /// Settings as the API takes them, kept as they were said.
    pub settings: Value,
    /// What new endpoints have where nothing else is said, as the API takes it.
    pub endpoint_settings: Value,
    /// The branch that is meant where none is named.
    pub default_branch: String,
    /// The tenant's id; `None` until the pageserver has it.
    pub tenant: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// When it was deleted; it can be recovered for a while.
    pub deleted_at: Option<Time>,
}

const COLUMNS: &str = "id, name, template, history_seconds, settings, endpoint_settings, \
                       default_branch, tenant, created_at, updated_at, deleted_at, region";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: row.get(0)?,
        name: row.get(1)?,
        template: row.get(2)?,
        history_seconds: row.get(3)?,
        settings: from_json(&row.get::<_, String>(4)?)?,
        endpoint_settings: from_json(&row.get::<_, String>(5)?)?,
        default_branch: row.get(6)?,
        tenant: row.get(7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
        deleted_at: row.get(10)?,
        region: row.get(11)?,
    })
}

/// Adds a project.
pub fn insert(catalog: &Connection, project: &Project) -> Result<(), Error> {
    let sql = format!("INSERT INTO projects ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)");
    catalog.prepare_cached(&sql)?.execute(params![
        project.id,
        project.name,
        project.template,
        project.history_seconds,
        project.settings.to_string(),
        project.endpoint_settings.to_string(),
        project.default_branch,
        project.tenant,
        project.created_at,
        project.updated_at,
        project.deleted_at,
        project.region,
    ])?;
    Ok(())
}

/// Writes what of a project can change.
pub fn update(catalog: &Connection, project: &Project) -> Result<(), Error> {
    let sql = "UPDATE projects SET name = ?2, history_seconds = ?3, settings = ?4, \
               endpoint_settings = ?5, default_branch = ?6, updated_at = ?7, deleted_at = ?8 \
               WHERE id = ?1";
    catalog.prepare_cached(sql)?.execute(params![
        project.id,
        project.name,
        project.history_seconds,
        project.settings.to_string(),
        project.endpoint_settings.to_string(),
        project.default_branch,
        project.updated_at,
        project.deleted_at,
    ])?;
    Ok(())
}

/// A project that is not deleted.
pub fn get(catalog: &Connection, id: &str) -> Result<Project, Error> {
    match find(catalog, id)? {
        Some(project) if project.deleted_at.is_none() => Ok(project),
        _ => Err(Error::NotFound(format!("there is no project {id:?}"))),
    }
}

/// A project, deleted or not.
pub fn find(catalog: &Connection, id: &str) -> Result<Option<Project>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM projects WHERE id = ?");
    Ok(catalog.prepare_cached(&sql)?.query_row([id], from_row).optional()?)
}

/// Which projects are listed.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Those after this id.
    pub after: Option<String>,
    /// Those whose id or name has this in it, in small or capital letters.
    pub search: Option<String>,
    /// The deleted ones, which can be recovered, instead of the others.
    pub deleted: bool,
    /// At most so many.
    pub limit: usize,
}

/// Projects in the order of their ids.
pub fn list(catalog: &Connection, listed: &Listed) -> Result<Vec<Project>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM projects WHERE id > ?1 AND (deleted_at IS NOT NULL) = ?2 \
         AND (?3 = '' OR instr(lower(name), ?3) OR instr(id, ?3)) ORDER BY id LIMIT ?4"
    );
    let search = listed.search.as_deref().unwrap_or_default().to_lowercase();
    let after = listed.after.as_deref().unwrap_or_default();
    rows(catalog, &sql, params![after, listed.deleted, search, listed.limit], from_row)
}

/// Projects of a region whose tenant its pageservers do not have yet.
pub fn without_tenant(
    catalog: &Connection,
    region: &RegionId,
    limit: usize,
) -> Result<Vec<Project>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM projects WHERE tenant IS NULL AND deleted_at IS NULL \
         AND region = ? ORDER BY id LIMIT ?"
    );
    rows(catalog, &sql, params![region, limit], from_row)
}

/// Projects of a region that were deleted before this moment.
pub fn deleted_before(
    catalog: &Connection,
    region: &RegionId,
    moment: Time,
) -> Result<Vec<String>, Error> {
    let sql = "SELECT id FROM projects WHERE deleted_at < ? AND region = ? ORDER BY id";
    rows(catalog, sql, params![moment, region], |row| row.get(0))
}

/// Writes down that the pageserver has its tenant.
pub fn set_tenant(catalog: &Connection, id: &str, tenant: &str) -> Result<(), Error> {
    let sql = "UPDATE projects SET tenant = ?2 WHERE id = ?1";
    catalog.prepare_cached(sql)?.execute([id, tenant])?;
    let sql = "UPDATE timelines SET state = 'made' \
               WHERE project = ? AND name = ? AND state = 'wanted'";
    catalog.prepare_cached(sql)?.execute([id, super::timelines::FIRST])?;
    Ok(())
}

/// Removes a project and all that belongs to it.
pub fn remove(catalog: &Connection, id: &str) -> Result<(), Error> {
    for table in ["roles", "databases", "changes", "branch_consumption"] {
        let sql = format!(
            "DELETE FROM {table} WHERE branch IN (SELECT id FROM branches WHERE project = ?)"
        );
        catalog.execute(&sql, [id])?;
    }
    for table in ["endpoints", "branches", "timelines", "passwords", "operations"] {
        catalog.execute(&format!("DELETE FROM {table} WHERE project = ?"), [id])?;
    }
    catalog.execute("DELETE FROM projects WHERE id = ?", [id])?;
    Ok(())
}
