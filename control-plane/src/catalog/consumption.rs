//! What projects have used, by hour; and what their meters at the pageserver said last. What each branch
//! [used of it](branch_consumption) is written at once.
//!
//! - The pageserver's meters only grow: what is used is the difference to the last value, and both are
//!   written at once. So nothing is counted twice, and what grew while nobody looked is counted later.
//! - The hours of a project outlive it.

use std::{collections::BTreeMap, ops::AddAssign};

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::{Error, branch_consumption, from_json, rows, timelines};

/// An hour, in UTC: so many since 1970.
pub type Hour = i64;

/// What was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// Microseconds in which a compute ran.
    pub active_us: u64,
    /// Those times the thousandths of compute units that it had.
    pub compute_mcu_us: u64,
    /// Bytes of WAL.
    pub written_bytes: u64,
    /// Bytes that clients were sent.
    pub transfer_bytes: u64,
}

impl Used {
    /// Whole seconds in which a compute ran.
    pub fn active_seconds(&self) -> u64 {
        self.active_us / 1_000_000
    }

    /// Whole seconds of one compute unit.
    pub fn compute_seconds(&self) -> u64 {
        self.compute_mcu_us / 1_000_000_000
    }
}

impl AddAssign for Used {
    fn add_assign(&mut self, more: Used) {
        self.active_us += more.active_us;
        self.compute_mcu_us += more.compute_mcu_us;
        self.written_bytes += more.written_bytes;
        self.transfer_bytes += more.transfer_bytes;
    }
}

/// What a project holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// Bytes of all relations of all branches.
    pub logical_bytes: u64,
    /// Bytes of its own layers in the object store.
    pub stored_bytes: u64,
}

/// A project's hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Which.
    pub hour: Hour,
    /// What was used in it.
    pub used: Used,
    /// What was held when it was last looked at, where that had changed since the hours before.
    pub sizes: Option<Sizes>,
}

/// What the pageserver's meters of a project say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Bytes of WAL since the project began; `None` where only what comes from now on is to count.
    pub written_bytes: Option<u64>,
    /// What it holds.
    pub sizes: Sizes,
    /// Bytes that each of its timelines holds.
    pub held_bytes: BTreeMap<String, u64>,
}

/// Adds to what was used in an hour, on a timeline.
pub fn add(
    catalog: &Connection,
    project: &str,
    timeline: &str,
    hour: Hour,
    more: Used,
) -> Result<(), Error> {
    branch_consumption::add(catalog, project, timeline, hour, more)?;
    add_to_project(catalog, project, hour, more)
}

fn add_to_project(
    catalog: &Connection,
    project: &str,
    hour: Hour,
    more: Used,
) -> Result<(), Error> {
    let sql = "INSERT INTO consumption (project, hour, active_us, compute_mcu_us, written_bytes, \
               transfer_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET \
               active_us = active_us + ?3, compute_mcu_us = compute_mcu_us + ?4, \
               written_bytes = written_bytes + ?5, transfer_bytes = transfer_bytes + ?6";
    let Used { active_us, compute_mcu_us, written_bytes, transfer_bytes } = more;
    catalog.prepare_cached(sql)?.execute(params![
        project,
        hour,
        active_us,
        compute_mcu_us,
        written_bytes,
        transfer_bytes
    ])?;
    Ok(())
}

/// What the meters said last; `None` where they were never read.
pub fn reading(catalog: &Connection, project: &str) -> Result<Option<Reading>, Error> {
    let sql = "SELECT written_bytes, logical_bytes, stored_bytes, held_bytes FROM meters \
               WHERE project = ?";
    let from_row = |row: &SqlRow<'_>| {
        Ok(Reading {
            written_bytes: row.get(0)?,
            sizes: Sizes { logical_bytes: row.get(1)?, stored_bytes: row.get(2)? },
            held_bytes: from_json(&row.get::<_, String>(3)?)?,
        })
    };
    Ok(catalog.prepare_cached(sql)?.query_row([project], from_row).optional()?)
}

/// How much more a meter says than was counted, and what is counted then. All is counted already of one
/// of which only what comes from now on is to count. One that fell, as after a crash of the pageserver,
/// counts again when it is above where it was.
pub(super) fn count(counted: Option<u64>, said: u64) -> (u64, u64) {
    let counted = counted.unwrap_or(said);
    (said.saturating_sub(counted), said.max(counted))
}

/// What of a reading is new after the last one: how much more was written, and what is to be kept as
/// the last from now on; `None` where that is as it was.
fn difference(last: Option<&Reading>, new: Reading) -> Option<(u64, Reading)> {
    // A new project began with nothing.
    let counted = last.map_or(Some(0), |last| last.written_bytes);
    let (more, counted) = count(counted, new.written_bytes.unwrap_or_default());
    let keep = Reading { written_bytes: Some(counted), ..new };
    (last != Some(&keep)).then_some((more, keep))
}

/// Whether a reading of a project's meters, and of what each of its timelines has written, says what they
/// did not say before.
pub fn is_new(
    catalog: &Connection,
    project: &str,
    new: &Reading,
    written: &BTreeMap<String, u64>,
) -> Result<bool, Error> {
    let last = reading(catalog, project)?;
    let is_new = difference(last.as_ref(), new.clone()).is_some();
    let counted = timelines::counted(catalog, project)?;
    Ok(is_new || !branch_consumption::grown(&counted, written).is_empty())
}

/// Takes a reading of a project's meters into account, and of what each of its timelines has written: in
/// this hour.
pub fn read(
    catalog: &Connection,
    project: &str,
    hour: Hour,
    new: Reading,
    written: &BTreeMap<String, u64>,
) -> Result<(), Error> {
    branch_consumption::read(catalog, project, hour, written)?;
    let last = reading(catalog, project)?;
    let Some((written_bytes, keep)) = difference(last.as_ref(), new) else { return Ok(()) };
    if written_bytes > 0 {
        add_to_project(catalog, project, hour, Used { written_bytes, ..Used::default() })?;
    }
    if last.is_none_or(|last| last.sizes != keep.sizes) {
        let sql = "INSERT INTO consumption (project, hour, logical_bytes, stored_bytes) \
                   VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET \
                   logical_bytes = ?3, stored_bytes = ?4";
        let Sizes { logical_bytes, stored_bytes } = keep.sizes;
        catalog.prepare_cached(sql)?.execute(params![
            project,
            hour,
            logical_bytes,
            stored_bytes
        ])?;
    }
    keep_reading(catalog, project, &keep)
}

/// What a project used before is not known: what comes from now on counts.
pub fn begin_anew(catalog: &Connection, project: &str) -> Result<(), Error> {
    timelines::count_anew(catalog, project)?;
    keep_reading(catalog, project, &Reading::default())
}

/// Writes down what the meters said last.
fn keep_reading(catalog: &Connection, project: &str, last: &Reading) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO meters (project, written_bytes, logical_bytes, stored_bytes, \
               held_bytes) VALUES (?, ?, ?, ?, ?)";
    catalog.prepare_cached(sql)?.execute(params![
        project,
        last.written_bytes,
        last.sizes.logical_bytes,
        last.sizes.stored_bytes,
        serde_json::to_string(&last.held_bytes)?,
    ])?;
    Ok(())
}

/// All that a project used from an hour on.
pub fn used_since(catalog: &Connection, project: &str, from: Hour) -> Result<Used, Error> {
    let sql = "SELECT ifnull(sum(active_us), 0), ifnull(sum(compute_mcu_us), 0), \
               ifnull(sum(written_bytes), 0), ifnull(sum(transfer_bytes), 0) \
               FROM consumption WHERE project = ? AND hour >= ?";
    let from_row = |row: &SqlRow<'_>| used(row, 0);
    Ok(catalog.prepare_cached(sql)?.query_row(params![project, from], from_row)?)
}

/// A project's hours from one on and before another, in their order; and what it held before them.
pub fn between(
    catalog: &Connection,
    project: &str,
    from: Hour,
    to: Hour,
) -> Result<(Vec<Row>, Sizes), Error> {
    let sql = "SELECT hour, active_us, compute_mcu_us, written_bytes, transfer_bytes, \
               logical_bytes, stored_bytes FROM consumption \
               WHERE project = ? AND hour >= ? AND hour < ? ORDER BY hour";
    let found = rows(catalog, sql, params![project, from, to], |row| {
        let sizes = (row.get::<_, Option<u64>>(5)?, row.get::<_, Option<u64>>(6)?);
        let sizes = match sizes {
            (Some(logical_bytes), Some(stored_bytes)) => {
                Some(Sizes { logical_bytes, stored_bytes })
            }
            _ => None,
        };
        Ok(Row { hour: row.get(0)?, used: used(row, 1)?, sizes })
    })?;
    let sql = "SELECT logical_bytes, stored_bytes FROM consumption \
               WHERE project = ? AND hour < ? AND logical_bytes IS NOT NULL \
               ORDER BY hour DESC LIMIT 1";
    let before = catalog.prepare_cached(sql)?.query_row(params![project, from], |row| {
        Ok(Sizes { logical_bytes: row.get(0)?, stored_bytes: row.get(1)? })
    });
    Ok((found, before.optional()?.unwrap_or_default()))
}

/// What a row says was used, from this column on.
pub(super) fn used(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<Used> {
    Ok(Used {
        active_us: row.get(first)?,
        compute_mcu_us: row.get(first + 1)?,
        written_bytes: row.get(first + 2)?,
        transfer_bytes: row.get(first + 3)?,
    })
}

/// The projects after this one that are there, or have used something, in the order of their ids.
pub fn projects(catalog: &Connection, after: &str, limit: usize) -> Result<Vec<String>, Error> {
    let sql = "SELECT id FROM projects WHERE id > ?1 \
               UNION SELECT project FROM meters WHERE project > ?1 ORDER BY 1 LIMIT ?2";
    rows(catalog, sql, params![after, limit], |row| row.get(0))
}

/// Forgets hours before this one, but for the last in which a project's size is said; and projects of
/// which there is nothing else.
pub fn prune(catalog: &Connection, before: Hour) -> Result<(), Error> {
    catalog
        .prepare_cached(
            "DELETE FROM consumption AS old WHERE hour < ?1 AND (logical_bytes IS NULL \
         OR NOT EXISTS (SELECT 1 FROM projects WHERE id = old.project) \
         OR EXISTS (SELECT 1 FROM consumption AS new WHERE new.project = old.project \
                    AND new.hour > old.hour AND new.hour <= ?1 AND new.logical_bytes IS NOT NULL))",
        )?
        .execute([before])?;
    catalog
        .prepare_cached(
            "DELETE FROM meters WHERE NOT EXISTS (SELECT 1 FROM projects WHERE id = project) \
         AND NOT EXISTS (SELECT 1 FROM consumption c WHERE c.project = meters.project)",
        )?
        .execute([])?;
    Ok(())
}
