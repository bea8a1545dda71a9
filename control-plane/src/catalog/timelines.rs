//! Timelines: the pageserver's branches, under the names by which it knows them.
//!
//! A branch of a project stands for one of them, and for another one after a restore. One that no
//! branch stands for is `doomed`; it is kept as long as others came from it.
//!
//! What is used on a timeline is counted a little later. So one that its branch left, or that is there
//! to be looked at, says for which branch it [counts](count_for) until that is done.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Error, branch_consumption::Counted, from_json, rebuild, rows};
use crate::RegionId;

/// The name of a tenant's first timeline, which goes only with its tenant.
pub const FIRST: &str = "main";

/// Where a timeline is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The pageserver may not have it yet.
    Wanted,
    /// The pageserver has it.
    Made,
    /// No branch stands for it: it goes when nothing came from it.
    Doomed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Wanted => "wanted",
            State::Made => "made",
            State::Doomed => "doomed",
        }
    }
}

/// A moment of a timeline; its head where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// As of this LSN.
    Lsn(String),
    /// Before the first commit after this, in RFC 3339.
    Timestamp(String),
}

impl Moment {
    /// As of an LSN, which must be written like one.
    pub fn lsn(text: &str) -> Result<Moment, String> {
        let is_hex = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit())
        };
        match text.split_once('/') {
            Some((high, low)) if is_hex(high) && is_hex(low) => Ok(Moment::Lsn(text.to_owned())),
            _ => Err(format!("{text:?} is not an LSN: write it like 0/16B3748")),
        }
    }

    /// As of a time, which must have a zone.
    pub fn timestamp(text: &str) -> Result<Moment, String> {
        match OffsetDateTime::parse(text, &Rfc3339) {
            Ok(_) => Ok(Moment::Timestamp(text.to_owned())),
            Err(error) => Err(format!(
                "{text:?} is not a moment: {error}; write it like 2026-03-01T12:00:00Z"
            )),
        }
    }

    /// Either, told apart by the slash that only LSNs have.
    pub fn either(text: &str) -> Result<Moment, String> {
        match text.contains('/') {
            true => Moment::lsn(text),
            false => Moment::timestamp(text),
        }
    }
}

/// A timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Its project.
    pub project: String,
    /// Its name at the pageserver.
    pub name: String,
    /// The timeline that it came from; `None` for a template's.
    pub parent: Option<String>,
    /// At which moment of that.
    pub moment: Option<Moment>,
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Timeline> {
    let moment: Option<String> = row.get(3)?;
    Ok(Timeline {
        project: row.get(0)?,
        name: row.get(1)?,
        parent: row.get(2)?,
        moment: moment.as_deref().map(from_json).transpose()?,
    })
}

/// Adds a timeline, which has written nothing yet.
pub fn insert(catalog: &Connection, timeline: &Timeline, state: State) -> Result<(), Error> {
    let sql = "INSERT INTO timelines (project, name, parent, moment, state, written_bytes) \
               VALUES (?,?,?,?,?,0)";
    let Timeline { project, name, parent, moment } = timeline;
    let moment = moment.as_ref().map(serde_json::to_string).transpose()?;
    catalog.prepare_cached(sql)?.execute(params![project, name, parent, moment, state.name()])?;
    Ok(())
}

/// Moves a timeline on in its life.
pub fn set_state(
    catalog: &Connection,
    project: &str,
    name: &str,
    state: State,
) -> Result<(), Error> {
    let sql = "UPDATE timelines SET state = ?3 WHERE project = ?1 AND name = ?2";
    catalog.prepare_cached(sql)?.execute([project, name, state.name()])?;
    Ok(())
}

/// Lets what is used on a timeline count for this branch, whichever stands for it, until it is
/// [left](leave).
pub fn count_for(
    catalog: &Connection,
    project: &str,
    name: &str,
    branch: &str,
) -> Result<(), Error> {
    let sql = "UPDATE timelines SET counts_for = ?3 WHERE project = ?1 AND name = ?2";
    catalog.prepare_cached(sql)?.execute([project, name, branch])?;
    Ok(())
}

/// Gives a timeline up whose last use is counted: to the branch that stands for it; it is doomed where
/// none does.
pub fn leave(catalog: &Connection, project: &str, name: &str) -> Result<(), Error> {
    let is_stood_for = "EXISTS (SELECT 1 FROM branches b WHERE b.project = ?1 AND b.timeline = ?2)";
    let sql = format!(
        "UPDATE timelines SET state = iif({is_stood_for}, state, 'doomed'), \
         counts_for = iif({is_stood_for}, NULL, counts_for) WHERE project = ?1 AND name = ?2"
    );
    catalog.prepare_cached(&sql)?.execute([project, name])?;
    Ok(())
}

/// After a crash: timelines of a region, by project and name, that were to be left.
pub fn left(catalog: &Connection, region: &RegionId) -> Result<Vec<(String, String)>, Error> {
    let sql = "SELECT t.project, t.name FROM timelines t \
               JOIN projects p ON p.id = t.project AND p.region = ? \
               WHERE t.counts_for IS NOT NULL AND t.state = 'made'";
    rows(catalog, sql, [region], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The branch that uses what is used on a timeline, if it is there.
pub(super) fn branch_that_uses(
    catalog: &Connection,
    project: &str,
    name: &str,
) -> Result<Option<String>, Error> {
    let sql = "SELECT id FROM branches WHERE id = ifnull(\
               (SELECT counts_for FROM timelines WHERE project = ?1 AND name = ?2), \
               (SELECT id FROM branches WHERE project = ?1 AND timeline = ?2))";
    let mut statement = catalog.prepare_cached(sql)?;
    Ok(statement.query_row([project, name], |row| row.get(0)).optional()?)
}

/// How much of the WAL of a project's timelines was counted.
pub fn counted(catalog: &Connection, project: &str) -> Result<Counted, Error> {
    let sql = "SELECT name, written_bytes FROM timelines WHERE project = ?";
    let found = rows(catalog, sql, [project], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.into_iter().collect())
}

/// Writes down how much of a timeline's WAL was counted.
pub(super) fn set_counted(
    catalog: &Connection,
    project: &str,
    name: &str,
    bytes: u64,
) -> Result<(), Error> {
    let sql = "UPDATE timelines SET written_bytes = ?3 WHERE project = ?1 AND name = ?2";
    catalog.prepare_cached(sql)?.execute(params![project, name, bytes])?;
    Ok(())
}

/// Lets only what a project's timelines write from now on count.
pub(super) fn count_anew(catalog: &Connection, project: &str) -> Result<(), Error> {
    let sql = "UPDATE timelines SET written_bytes = NULL WHERE project = ?";
    catalog.prepare_cached(sql)?.execute([project])?;
    Ok(())
}

/// Removes a timeline that the pageserver does not have any more.
pub fn remove(catalog: &Connection, project: &str, name: &str) -> Result<(), Error> {
    let sql = "DELETE FROM timelines WHERE project = ? AND name = ? AND state = 'doomed'";
    catalog.prepare_cached(sql)?.execute([project, name])?;
    Ok(())
}

/// Whether the pageserver has a timeline; `None` where there is none of this name.
pub fn is_made(catalog: &Connection, project: &str, name: &str) -> Result<Option<bool>, Error> {
    let sql = "SELECT state = 'made' FROM timelines WHERE project = ? AND name = ?";
    let mut statement = catalog.prepare_cached(sql)?;
    Ok(statement.query_row([project, name], |row| row.get(0)).optional()?)
}

/// A name for a branch's next timeline: its number is above those of all that the branch has, so that a
/// [rebuild](super::rebuild) takes the newest for what the branch stands for.
pub fn next_name(catalog: &Connection, project: &str, branch: &str) -> Result<String, Error> {
    let sql = "SELECT name FROM timelines WHERE project = ?";
    let names = rows(catalog, sql, [project], |row| row.get::<_, String>(0))?;
    let all = names.iter().map(|name| rebuild::branch_of(project, name));
    let last = all.filter(|(of, _)| of == branch).filter_map(|(_, number)| number).max();
    let next = match last {
        None => 0,
        Some(last) => last.checked_add(1).ok_or_else(|| {
            Error::Refused(format!(
                "branch {branch} has a timeline with the highest number there is"
            ))
        })?,
    };
    Ok(rebuild::timeline_name(branch, next))
}

/// Timelines of a region that can go now: doomed, and nothing came from them. Their project is still there.
pub fn removable(
    catalog: &Connection,
    region: &RegionId,
    limit: usize,
) -> Result<Vec<Timeline>, Error> {
    let sql = "SELECT t.project, t.name, t.parent, t.moment FROM timelines t \
               JOIN projects p ON p.id = t.project AND p.deleted_at IS NULL AND p.region = ? \
               WHERE t.state = 'doomed' AND t.name <> 'main' AND NOT EXISTS \
               (SELECT 1 FROM timelines c WHERE c.project = t.project AND c.parent = t.name) \
               LIMIT ?";
    rows(catalog, sql, params![region, limit], from_row)
}

/// After a crash: timelines of a region whose making was under way, but for those of projects without tenant,
/// with the branch that waits for it, if any.
pub fn under_way(
    catalog: &Connection,
    region: &RegionId,
) -> Result<Vec<(Timeline, Option<String>)>, Error> {
    let sql = "SELECT t.project, t.name, t.parent, t.moment, b.id FROM timelines t \
               JOIN projects p ON p.id = t.project AND p.region = ? \
               LEFT JOIN branches b ON b.project = t.project AND b.timeline = t.name \
               WHERE t.state = 'wanted' AND t.parent IS NOT NULL";
    rows(catalog, sql, [region], |row| Ok((from_row(row)?, row.get(4)?)))
}
