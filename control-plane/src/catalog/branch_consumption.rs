//! What branches have used in the month that goes on.
//!
//! - It is written with what the project used, in one transaction: after a crash both agree.
//! - What happens on a timeline is the branch's that stands for it, or the one's that it
//!   [counts for](timelines::count_for) still. What no branch is there for is the project's alone.
//! - A branch has one row, made by the first use: the first of another month begins it anew.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Error,
    consumption::{Hour, Used, count, used},
    timelines,
};
use crate::metering::period::Granularity;

/// Bytes of WAL of each of a project's timelines that were counted, by its name; `None` where only what
/// comes from now on is to count.
pub type Counted = BTreeMap<String, Option<u64>>;

/// How much more a timeline has written than was counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grown {
    /// The timeline's name.
    pub timeline: String,
    /// Bytes of WAL.
    pub more: u64,
    /// What is counted from now on.
    pub counted: u64,
}

/// Which timelines' meters say what they did not say before. A timeline that is not in the catalog is
/// no branch's.
pub fn grown(counted: &Counted, said: &BTreeMap<String, u64>) -> Vec<Grown> {
    let of_one = |(timeline, said): (&String, &u64)| {
        let before = *counted.get(timeline)?;
        let (more, now) = count(before, *said);
        (before != Some(now)).then(|| Grown { timeline: timeline.clone(), more, counted: now })
    };
    said.iter().filter_map(of_one).collect()
}

/// Takes over what the meters of a project's timelines say: in this hour.
pub(super) fn read(
    catalog: &Connection,
    project: &str,
    hour: Hour,
    said: &BTreeMap<String, u64>,
) -> Result<(), Error> {
    for Grown { timeline, more, counted } in grown(&timelines::counted(catalog, project)?, said) {
        timelines::set_counted(catalog, project, &timeline, counted)?;
        if more > 0 {
            let used = Used { written_bytes: more, ..Used::default() };
            add(catalog, project, &timeline, hour, used)?;
        }
    }
    Ok(())
}

/// Adds what was used in an hour on a timeline to what its branch used in that month.
pub(super) fn add(
    catalog: &Connection,
    project: &str,
    timeline: &str,
    hour: Hour,
    more: Used,
) -> Result<(), Error> {
    let Some(branch) = timelines::branch_that_uses(catalog, project, timeline)? else {
        return Ok(());
    };
    // What comes late, of a month that is over, is shown nowhere.
    let sql = "INSERT INTO branch_consumption AS it (branch, month, active_us, compute_mcu_us, \
               written_bytes, transfer_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
               ON CONFLICT DO UPDATE SET month = ?2, \
               active_us = ?3 + iif(it.month = ?2, it.active_us, 0), \
               compute_mcu_us = ?4 + iif(it.month = ?2, it.compute_mcu_us, 0), \
               written_bytes = ?5 + iif(it.month = ?2, it.written_bytes, 0), \
               transfer_bytes = ?6 + iif(it.month = ?2, it.transfer_bytes, 0) \
               WHERE it.month <= ?2";
    let Used { active_us, compute_mcu_us, written_bytes, transfer_bytes } = more;
    catalog.prepare_cached(sql)?.execute(params![
        branch,
        Granularity::Monthly.first(hour),
        active_us,
        compute_mcu_us,
        written_bytes,
        transfer_bytes
    ])?;
    Ok(())
}

/// What a branch used in the month that begins with this hour, which is the one that goes on.
pub fn used_in(catalog: &Connection, branch: &str, month: Hour) -> Result<Used, Error> {
    let sql = "SELECT active_us, compute_mcu_us, written_bytes, transfer_bytes \
               FROM branch_consumption WHERE branch = ? AND month = ?";
    let mut statement = catalog.prepare_cached(sql)?;
    let found = statement.query_row(params![branch, month], |row| used(row, 0));
    Ok(found.optional()?.unwrap_or_default())
}

/// Forgets what was used in months before this one.
pub fn prune(catalog: &Connection, month: Hour) -> Result<(), Error> {
    let sql = "DELETE FROM branch_consumption WHERE month < ?";
    catalog.prepare_cached(sql)?.execute([month])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timelines_meter_counts_what_grew_and_one_from_before_what_comes_from_now_on() {
        let counted: Counted = [
            ("as-it-was".to_owned(), Some(7)),
            ("fell".to_owned(), Some(9)),
            ("from-before".to_owned(), None),
            ("gone".to_owned(), Some(1)),
            ("grew".to_owned(), Some(10)),
        ]
        .into();
        let said = [("as-it-was", 7), ("fell", 8), ("from-before", 50), ("grew", 12), ("new", 3)];
        let said = said.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        let of =
            |timeline: &str, more, counted| Grown { timeline: timeline.to_owned(), more, counted };
        assert_eq!(grown(&counted, &said), [of("from-before", 0, 50), of("grew", 2, 12)]);
    }
}
