//! Templates that are being published or deleted, and where those came from that were published.
//!
//! The pageservers have the templates, each region its own: a name is unique in a region. What stands here keeps a template that is being deleted from
//! being used, and takes one back that was being published when the process ended.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Error, Time, rows};
use crate::RegionId;

/// How many of a template's projects are named.
const NAMED_MAX: usize = 5;

/// Where a template is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The pageserver may not have it yet.
    Making,
    /// The pageserver has it.
    Made,
    /// Nobody may use it any more.
    Going,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Making => "making",
            State::Made => "made",
            State::Going => "going",
        }
    }
}

/// A template that was published here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Where it is.
    pub region: RegionId,
    /// Its name.
    pub name: String,
    /// The project that it was made of.
    pub project: String,
    /// That project's branch.
    pub branch: String,
    /// The operation that makes it.
    pub operation: String,
    /// Whether it is being made.
    pub is_making: bool,
    /// When it was asked for.
    pub created_at: Time,
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Template> {
    Ok(Template {
        region: row.get(6)?,
        name: row.get(0)?,
        project: row.get(1)?,
        branch: row.get(2)?,
        operation: row.get(3)?,
        is_making: row.get::<_, String>(4)? == State::Making.name(),
        created_at: row.get(5)?,
    })
}

/// Adds a template that is to be made.
pub fn insert(catalog: &Connection, template: &Template) -> Result<(), Error> {
    let Template { region, name, project, branch, operation, created_at, .. } = template;
    if find(catalog, region, name)?.is_some() || is_going(catalog, region, name)? {
        return Err(taken(name));
    }
    let sql = "INSERT INTO templates (region, name, project, branch, operation, state, created_at) \
               VALUES (?,?,?,?,?,?,?)";
    let state = State::Making.name();
    catalog
        .prepare_cached(sql)?
        .execute(params![region, name, project, branch, operation, state, created_at])?;
    Ok(())
}

/// The error of a name that is taken.
pub fn taken(name: &str) -> Error {
    Error::Exists(format!(
        "template {name:?} is there already: a template stays as it is, so give another version \
         another name"
    ))
}

const COLUMNS: &str = "name, project, branch, operation, state, created_at, region";

/// A template that was published here, and is not going.
pub fn find(
    catalog: &Connection,
    region: &RegionId,
    name: &str,
) -> Result<Option<Template>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM templates WHERE region = ? AND name = ? AND state <> 'going'"
    );
    Ok(catalog.prepare_cached(&sql)?.query_row(params![region, name], from_row).optional()?)
}

/// A region's, by name.
pub fn list(catalog: &Connection, region: &RegionId) -> Result<Vec<Template>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM templates WHERE region = ? AND state <> 'going' ORDER BY name"
    );
    rows(catalog, &sql, [region], from_row)
}

/// Writes down that the pageserver has it.
pub fn set_made(catalog: &Connection, region: &RegionId, name: &str) -> Result<(), Error> {
    let sql = "UPDATE templates SET state = 'made' WHERE region = ? AND name = ?";
    catalog.prepare_cached(sql)?.execute(params![region, name])?;
    Ok(())
}

/// Forgets a template.
pub fn remove(catalog: &Connection, region: &RegionId, name: &str) -> Result<(), Error> {
    let sql = "DELETE FROM templates WHERE region = ? AND name = ?";
    catalog.prepare_cached(sql)?.execute(params![region, name])?;
    Ok(())
}

/// Keeps a template from being used, that has one of two names, before it is deleted. Refused where a
/// project is made of it, or can be recovered.
pub fn begin_removal(
    catalog: &Connection,
    region: &RegionId,
    names: [&str; 2],
    now: Time,
) -> Result<(), Error> {
    for name in names {
        if find(catalog, region, name)?.is_some_and(|template| template.is_making) {
            return Err(Error::Exists(format!("template {name:?} is being made: try again later")));
        }
        refuse_used(catalog, region, name)?;
    }
    for name in names {
        let sql = "INSERT INTO templates \
                   (region, name, project, branch, operation, state, created_at) \
                   VALUES (?1, ?2, '', '', '', ?3, ?4) ON CONFLICT DO UPDATE SET state = ?3";
        let going = State::Going.name();
        catalog.prepare_cached(sql)?.execute(params![region, name, going, now])?;
    }
    Ok(())
}

/// Lets a template be used again whose removal was refused: what was known of it stays.
pub fn end_removal(catalog: &Connection, region: &RegionId, names: [&str; 2]) -> Result<(), Error> {
    for name in names {
        let sql = "DELETE FROM templates WHERE region = ? AND name = ? AND project = ''";
        catalog.prepare_cached(sql)?.execute(params![region, name])?;
        set_made(catalog, region, name)?;
    }
    Ok(())
}

/// Refuses to use a template that is going.
pub fn refuse_going(catalog: &Connection, region: &RegionId, name: &str) -> Result<(), Error> {
    match is_going(catalog, region, name)? {
        true => Err(Error::Refused(format!("template {name:?} is being deleted"))),
        false => Ok(()),
    }
}

fn is_going(catalog: &Connection, region: &RegionId, name: &str) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM templates WHERE region = ? AND name = ? AND state = 'going'";
    Ok(catalog.prepare_cached(sql)?.exists(params![region, name])?)
}

fn refuse_used(catalog: &Connection, region: &RegionId, template: &str) -> Result<(), Error> {
    let sql = "SELECT id FROM projects WHERE template = ? AND region = ? ORDER BY id LIMIT ?";
    let users = params![template, region, NAMED_MAX + 1];
    let users: Vec<String> = rows(catalog, sql, users, |row| row.get(0))?;
    if users.is_empty() {
        return Ok(());
    }
    let named = users.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = if users.len() > NAMED_MAX { " and others" } else { "" };
    Err(Error::Exists(format!(
        "template {template:?} is used by the projects {named}{more}: it goes when they are gone, also \
         those that can be recovered"
    )))
}

/// After a crash: templates that were being made are forgotten, and those that were going may be used
/// again where the pageserver has them still.
pub fn end_after_crash(catalog: &Connection) -> Result<(), Error> {
    catalog.execute("DELETE FROM templates WHERE state = 'making' OR project = ''", [])?;
    catalog.execute("UPDATE templates SET state = 'made' WHERE state = 'going'", [])?;
    Ok(())
}
