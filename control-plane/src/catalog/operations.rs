//! Operations: what was asked for and how far it is.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Error, Time, rows};

/// What an operation does, as the API calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A project's tenant is made.
    CreateTimeline,
    /// A branch is made, or put back.
    CreateBranch,
    /// A branch is deleted.
    DeleteTimeline,
    /// A compute is started.
    StartCompute,
    /// A compute is stopped.
    SuspendCompute,
    /// Roles, databases or settings change.
    ApplyConfig,
    /// A moment of a branch becomes a template.
    PublishTemplate,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has not begun.
    Scheduling,
    /// It is under way.
    Running,
    /// It is done.
    Finished,
    /// It did not succeed; the error says why.
    Failed,
    /// There was nothing to do.
    Skipped,
}

impl Action {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Action::CreateTimeline => "create_timeline",
            Action::CreateBranch => "create_branch",
            Action::DeleteTimeline => "delete_timeline",
            Action::StartCompute => "start_compute",
            Action::SuspendCompute => "suspend_compute",
            Action::ApplyConfig => "apply_config",
            Action::PublishTemplate => "publish_template",
        }
    }
}

impl Status {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Status::Scheduling => "scheduling",
            Status::Running => "running",
            Status::Finished => "finished",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        }
    }
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its place among all, from 1.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// Its project.
    pub project: String,
    /// Its branch, where it has one.
    pub branch: Option<String>,
    /// Its endpoint, where it has one.
    pub endpoint: Option<String>,
    /// What it does, as the API calls it.
    pub action: String,
    /// How far it is, as the API calls it.
    pub status: String,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: Time,
    /// When its status last changed.
    pub updated_at: Time,
}

/// What a new operation is about.
#[derive(Clone, Debug)]
pub struct New {
    /// Its id, from [`super::ids::operation`].
    pub id: String,
    /// Its project.
    pub project: String,
    /// Its branch, where it has one.
    pub branch: Option<String>,
    /// Its endpoint, where it has one.
    pub endpoint: Option<String>,
    /// What it does.
    pub action: Action,
    /// How far it is.
    pub status: Status,
}

const COLUMNS: &str = "number, id, project, branch, endpoint, action, status, error, created_at, \
                       updated_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Operation> {
    Ok(Operation {
        number: row.get(0)?,
        id: row.get(1)?,
        project: row.get(2)?,
        branch: row.get(3)?,
        endpoint: row.get(4)?,
        action: row.get(5)?,
        status: row.get(6)?,
        error: row.get(7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
    })
}

/// Adds an operation.
pub fn insert(catalog: &Connection, new: &New, now: Time) -> Result<Operation, Error> {
    let sql = "INSERT INTO operations \
               (id, project, branch, endpoint, action, status, created_at, updated_at) \
               VALUES (?1,?2,?3,?4,?5,?6,?7,?7)";
    let New { id, project, branch, endpoint, action, status } = new;
    let (action, status) = (action.name(), status.name());
    let row = params![id, project, branch, endpoint, action, status, now];
    catalog.prepare_cached(sql)?.execute(row)?;
    Ok(Operation {
        number: catalog.last_insert_rowid(),
        id: id.clone(),
        project: project.clone(),
        branch: branch.clone(),
        endpoint: endpoint.clone(),
        action: action.to_owned(),
        status: status.to_owned(),
        error: None,
        created_at: now,
        updated_at: now,
    })
}

/// Says how far an operation is. One that is over stays as it is.
pub fn set_status(
    catalog: &Connection,
    id: &str,
    status: Status,
    error: Option<&str>,
    now: Time,
) -> Result<(), Error> {
    let sql = "UPDATE operations SET status = ?2, error = ?3, updated_at = ?4 \
               WHERE id = ?1 AND status IN ('scheduling', 'running')";
    catalog.prepare_cached(sql)?.execute(params![id, status.name(), error, now])?;
    Ok(())
}

/// An operation of a project.
pub fn get(catalog: &Connection, project: &str, id: &str) -> Result<Operation, Error> {
    let sql = format!("SELECT {COLUMNS} FROM operations WHERE id = ? AND project = ?");
    let found = catalog.prepare_cached(&sql)?.query_row([id, project], from_row).optional()?;
    found.ok_or_else(|| Error::NotFound(format!("project {project} has no operation {id:?}")))
}

/// A project's operations before the one of this number, the newest first.
pub fn list(
    catalog: &Connection,
    project: &str,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<Operation>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM operations WHERE project = ? AND number < ? \
         ORDER BY number DESC LIMIT ?"
    );
    let before = before.unwrap_or(i64::MAX);
    rows(catalog, &sql, params![project, before, limit], from_row)
}

/// Ends the operations of one kind that are under way for a project.
pub fn end_all(
    catalog: &Connection,
    project: &str,
    action: Action,
    status: Status,
    error: Option<&str>,
    now: Time,
) -> Result<(), Error> {
    let sql = "UPDATE operations SET status = ?3, error = ?4, updated_at = ?5 \
               WHERE project = ?1 AND action = ?2 AND status IN ('scheduling', 'running')";
    let row = params![project, action.name(), status.name(), error, now];
    catalog.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// After a crash, when nothing is under way any more: what was asked of computes ended with them,
/// and changes of roles and databases wait for the next start, as they do for a sleeping branch.
pub fn end_after_crash(catalog: &Connection, now: Time) -> Result<(), Error> {
    let lost = "the control plane ended before it was done";
    let ends = [
        ("'start_compute', 'publish_template'", "failed", Some(lost)),
        ("'suspend_compute', 'apply_config', 'delete_timeline'", "finished", None),
    ];
    for (actions, status, error) in ends {
        let sql = format!(
            "UPDATE operations SET status = ?1, error = ?2, updated_at = ?3 \
             WHERE status IN ('scheduling', 'running') AND action IN ({actions})"
        );
        catalog.execute(&sql, params![status, error, now])?;
    }
    Ok(())
}

/// Forgets the operations that were over before this moment.
pub fn prune(catalog: &Connection, before: Time) -> Result<(), Error> {
    // By number: operations are numbered in the order of their making, and the table is no index
    // of times.
    let sql = "DELETE FROM operations WHERE number IN \
               (SELECT number FROM operations ORDER BY number LIMIT 1000) \
               AND updated_at < ? AND status NOT IN ('scheduling', 'running')";
    catalog.execute(sql, [before])?;
    Ok(())
}
