//! Endpoints: what connections are made to; their computes come and go. A branch has at most one to
//! read and write, and some to read only.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::{Error, Time, from_json, rows};

/// The least compute units of an endpoint that says none.
pub const CU_DEFAULT: f64 = 0.25;
/// The most: a processor, and 4 GiB.
pub const CU_MAX_DEFAULT: f64 = 1.0;

/// How many endpoints to read only a branch may have.
pub const READ_ONLY_MAX: usize = 16;

/// What can be done through an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To read and to write.
    ReadWrite,
    /// To read what is written through the other.
    ReadOnly,
}

impl Kind {
    /// What it is called, by the API and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ReadWrite => "read_write",
            Kind::ReadOnly => "read_only",
        }
    }

    /// The kind of this name.
    pub fn of_name(name: &str) -> Option<Kind> {
        [Kind::ReadWrite, Kind::ReadOnly].into_iter().find(|kind| kind.name() == name)
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// What can be done through it.
    pub kind: Kind,
    /// Its project.
    pub project: String,
    /// Its branch.
    pub branch: String,
    /// What people call it.
    pub name: Option<String>,
    /// The least compute units.
    pub min_cu: f64,
    /// The most compute units.
    pub max_cu: f64,
    /// Seconds without work until it is suspended; 0 for the default, -1 for never.
    pub suspend_timeout_seconds: i64,
    /// Settings as the API takes them; `pg_settings` go to Postgres.
    pub settings: Value,
    /// It is not started.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// When its compute was last started.
    pub started_at: Option<Time>,
    /// When its compute was last suspended.
    pub suspended_at: Option<Time>,
}

impl Endpoint {
    /// A branch's endpoint to read and write, called after it, of which nothing else is said.
    pub fn new(project: &str, branch: &str, now: Time) -> Endpoint {
        Endpoint {
            id: super::ids::endpoint(branch),
            kind: Kind::ReadWrite,
            project: project.to_owned(),
            branch: branch.to_owned(),
            name: None,
            min_cu: CU_DEFAULT,
            max_cu: CU_MAX_DEFAULT,
            suspend_timeout_seconds: 0,
            settings: json!({}),
            disabled: false,
            created_at: now,
            updated_at: now,
            started_at: None,
            suspended_at: None,
        }
    }

    /// A branch's endpoint of this kind, of which nothing else is said. There may be several to read
    /// only, so these have names of their own.
    pub fn of_kind(kind: Kind, project: &str, branch: &str, now: Time) -> Endpoint {
        let named = Endpoint::new(project, branch, now);
        match kind {
            Kind::ReadWrite => named,
            Kind::ReadOnly => {
                let id = super::ids::read_only_endpoint(&mut rand::rng());
                Endpoint { id, kind, ..named }
            }
        }
    }
}

/// What of it is counted while its compute runs: the most compute units, in thousandths. There is no
/// autoscaling, so it may use them all.
pub fn milli_cu(endpoint: &Endpoint) -> u32 {
    // At most 64 units.
    (endpoint.max_cu * 1000.0).round() as u32
}

/// Refuses an endpoint that is not to be started.
pub fn refuse_disabled(endpoint: &Endpoint) -> Result<(), Error> {
    match endpoint.disabled {
        true => {
            Err(Error::Refused(format!("endpoint {} is disabled: enable it first", endpoint.id)))
        }
        false => Ok(()),
    }
}

const COLUMNS: &str = "id, kind, project, branch, name, min_cu, max_cu, suspend_timeout_seconds, \
                       settings, disabled, created_at, updated_at, started_at, suspended_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Endpoint> {
    let kind: String = row.get(1)?;
    let unknown =
        || rusqlite::Error::InvalidColumnType(1, kind.clone(), rusqlite::types::Type::Text);
    Ok(Endpoint {
        id: row.get(0)?,
        kind: Kind::of_name(&kind).ok_or_else(unknown)?,
        project: row.get(2)?,
        branch: row.get(3)?,
        name: row.get(4)?,
        min_cu: row.get(5)?,
        max_cu: row.get(6)?,
        suspend_timeout_seconds: row.get(7)?,
        settings: from_json(&row.get::<_, String>(8)?)?,
        disabled: row.get(9)?,
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
        started_at: row.get(12)?,
        suspended_at: row.get(13)?,
    })
}

/// Adds an endpoint.
pub fn insert(catalog: &Connection, endpoint: &Endpoint) -> Result<(), Error> {
    let branch = &endpoint.branch;
    let mut others = all_of_branch(catalog, branch)?;
    others.retain(|other| other.kind == endpoint.kind);
    match (endpoint.kind, others.first()) {
        (Kind::ReadWrite, Some(other)) => {
            return Err(Error::Exists(format!(
                "branch {branch} has the read_write endpoint {} already: use that one, or delete it \
                 first",
                other.id
            )));
        }
        (Kind::ReadOnly, _) if others.len() >= READ_ONLY_MAX => {
            return Err(Error::Refused(format!(
                "branch {branch} has {READ_ONLY_MAX} read_only endpoints already, which is the most: \
                 delete one first"
            )));
        }
        _ => {}
    }
    let sql = format!("INSERT INTO endpoints ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
    write(catalog, &sql, endpoint)
}

/// Writes an endpoint anew.
pub fn update(catalog: &Connection, endpoint: &Endpoint) -> Result<(), Error> {
    let sql = "UPDATE endpoints SET kind = ?2, project = ?3, branch = ?4, name = ?5, min_cu = ?6, \
               max_cu = ?7, suspend_timeout_seconds = ?8, settings = ?9, disabled = ?10, \
               created_at = ?11, updated_at = ?12, started_at = ?13, suspended_at = ?14 \
               WHERE id = ?1";
    write(catalog, sql, endpoint)
}

fn write(catalog: &Connection, sql: &str, endpoint: &Endpoint) -> Result<(), Error> {
    catalog.prepare_cached(sql)?.execute(params![
        endpoint.id,
        endpoint.kind.name(),
        endpoint.project,
        endpoint.branch,
        endpoint.name,
        endpoint.min_cu,
        endpoint.max_cu,
        endpoint.suspend_timeout_seconds,
        endpoint.settings.to_string(),
        endpoint.disabled,
        endpoint.created_at,
        endpoint.updated_at,
        endpoint.started_at,
        endpoint.suspended_at,
    ])?;
    Ok(())
}

/// An endpoint of a project.
pub fn get(catalog: &Connection, project: &str, id: &str) -> Result<Endpoint, Error> {
    super::projects::get(catalog, project)?;
    let found = find(catalog, id)?.filter(|endpoint| endpoint.project == project);
    found.ok_or_else(|| Error::NotFound(format!("project {project} has no endpoint {id:?}")))
}

/// An endpoint, whatever its project.
pub fn find(catalog: &Connection, id: &str) -> Result<Option<Endpoint>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM endpoints WHERE id = ?");
    Ok(catalog.prepare_cached(&sql)?.query_row([id], from_row).optional()?)
}

/// A branch's endpoint to read and write.
pub fn of_branch(catalog: &Connection, branch: &str) -> Result<Option<Endpoint>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM endpoints WHERE branch = ? AND kind = 'read_write'");
    Ok(catalog.prepare_cached(&sql)?.query_row([branch], from_row).optional()?)
}

/// All endpoints of a branch: the one to read and write, then the others in the order of their making.
pub fn all_of_branch(catalog: &Connection, branch: &str) -> Result<Vec<Endpoint>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM endpoints WHERE branch = ? \
         ORDER BY kind = 'read_only', created_at, id"
    );
    rows(catalog, &sql, [branch], from_row)
}

/// A project's endpoints, in the order of their making.
pub fn list(catalog: &Connection, project: &str) -> Result<Vec<Endpoint>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM endpoints WHERE project = ? ORDER BY created_at, id");
    rows(catalog, &sql, [project], from_row)
}

/// Writes down that its compute was started.
pub fn set_started(catalog: &Connection, id: &str, now: Time) -> Result<(), Error> {
    let sql = "UPDATE endpoints SET started_at = ?2 WHERE id = ?1";
    catalog.prepare_cached(sql)?.execute(params![id, now])?;
    Ok(())
}

/// Writes down that its compute was suspended.
pub fn set_suspended(catalog: &Connection, id: &str, now: Time) -> Result<(), Error> {
    let sql = "UPDATE endpoints SET suspended_at = ?2 WHERE id = ?1";
    catalog.prepare_cached(sql)?.execute(params![id, now])?;
    Ok(())
}

/// Removes an endpoint.
pub fn remove(catalog: &Connection, id: &str) -> Result<(), Error> {
    catalog.prepare_cached("DELETE FROM endpoints WHERE id = ?")?.execute([id])?;
    Ok(())
}
