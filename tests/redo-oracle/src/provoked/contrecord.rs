//! A crash cuts a record: its first half ends a segment, the segment of its second half is gone. After the restart another record
//! stands where that would have gone on (Postgres: `src/test/recovery/t/026_overwrite_contrecord.pl`).

use std::fs;

use anyhow::Result;

use super::Recorded;
use crate::cluster::Cluster;

const SETTINGS: &str = "
fsync = off
wal_consistency_checking = all
wal_level = logical
wal_keep_size = 64GB
autovacuum = off
";

/// Fills the segment to its last few pages.
const FILL: &str = r"
CREATE TABLE filler (a int, b text);
DO $$
DECLARE
    bytes int := setting::int FROM pg_settings WHERE name = 'wal_segment_size';
BEGIN
    LOOP
        INSERT INTO filler SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 2) n;
        EXIT WHEN bytes - (pg_current_wal_insert_lsn() - '0/0') % bytes < 65536;
    END LOOP;
END
$$;
";

/// Flushed at once, and too long for what is left of the segment.
const CUT: &str = "SELECT pg_logical_emit_message(true, 'cut', repeat('message', 20000));";

pub fn record() -> Result<Recorded> {
    let cluster = Cluster::create(SETTINGS)?;
    Recorded::new(cluster, |cluster| {
        cluster.sql("postgres", FILL)?;
        cluster.sql("postgres", CUT)?;
        let name = "SELECT pg_walfile_name(pg_current_wal_insert_lsn());";
        let second = cluster.sql("postgres", name)?;
        cluster.crash()?;
        fs::remove_file(cluster.data().join("pg_wal").join(second.trim()))?;
        cluster.start()?;
        cluster.sql("postgres", "INSERT INTO filler VALUES (0, 'after');").map(|_| ())
    })
}
