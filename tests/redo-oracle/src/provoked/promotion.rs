//! A standby becomes a primary: its recovery ends without a checkpoint, and the WAL goes on under another timeline id.

use anyhow::Result;

use super::Recorded;
use crate::cluster::Cluster;

const SETTINGS: &str = "
fsync = off
wal_consistency_checking = all
wal_level = replica
wal_keep_size = 64GB
";

pub fn record() -> Result<Recorded> {
    let mut cluster = Cluster::create(SETTINGS)?;
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n;")?;
    cluster.stop()?;
    // It has nobody to follow: all that it replays is its own WAL, which ends in a shutdown checkpoint.
    cluster.signal("standby.signal")?;
    Recorded::new(cluster, |cluster| {
        cluster.promote()?;
        cluster.sql(
            "postgres",
            "INSERT INTO t SELECT generate_series(1, 1000); DELETE FROM t WHERE n < 50;",
        )?;
        Ok(())
    })
}
