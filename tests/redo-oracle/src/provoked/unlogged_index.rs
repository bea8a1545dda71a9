//! With `wal_level = minimal` a table that its own transaction made is logged at the commit only, as images. Until then a GiST index
//! needs LSNs that are not the WAL's.

use anyhow::Result;

use super::Recorded;
use crate::cluster::Cluster;

const SETTINGS: &str = "
fsync = off
wal_consistency_checking = all
wal_level = minimal
max_wal_senders = 0
wal_skip_threshold = 1GB
wal_keep_size = 64GB
";

const WORK: &str = r"
BEGIN;
CREATE TABLE t (p point);
CREATE INDEX ON t USING gist (p);
INSERT INTO t SELECT point(n * 7919 % 1000, n % 311) FROM generate_series(1, 6000) n;
COMMIT;
DELETE FROM t WHERE p[0] < 300; VACUUM t;
INSERT INTO t SELECT point(n, n) FROM generate_series(1, 500) n;
";

pub fn record() -> Result<Recorded> {
    let cluster = Cluster::create(SETTINGS)?;
    Recorded::new(cluster, |cluster| cluster.sql("postgres", WORK).map(|_| ()))
}
