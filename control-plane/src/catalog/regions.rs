//! Which projects are where.

use rusqlite::{Connection, params};

use super::{Error, rows};
use crate::RegionId;

/// Gives what is from before there were regions to the default one.
pub fn adopt(catalog: &Connection, default: &RegionId) -> Result<(), Error> {
    for table in ["projects", "templates"] {
        let sql = format!("UPDATE {table} SET region = ? WHERE region = ''");
        catalog.execute(&sql, [default])?;
    }
    Ok(())
}

/// How many projects each region has, those included that can be recovered.
pub fn counts(catalog: &Connection) -> Result<Vec<(RegionId, u64)>, Error> {
    let sql = "SELECT region, count(*) FROM projects GROUP BY region ORDER BY region";
    rows(catalog, sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The projects that are in another region than this one, and in which.
pub fn elsewhere(
    catalog: &Connection,
    region: &RegionId,
) -> Result<Vec<(String, RegionId)>, Error> {
    let sql = "SELECT id, region FROM projects WHERE region <> ?";
    rows(catalog, sql, params![region], |row| Ok((row.get(0)?, row.get(1)?)))
}
