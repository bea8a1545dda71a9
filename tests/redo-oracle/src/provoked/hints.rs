//! A cluster with checksums and full-page writes: images that redo puts in the page's place, packed in each way, also for hint bits
//! alone; settings that change, a backup, and a catalog that is rewritten under a logical slot.

use anyhow::{Result, ensure};

use super::Recorded;
use crate::cluster::Cluster;

const SETTINGS: &str = "
fsync = off
full_page_writes = on
wal_log_hints = on
wal_consistency_checking = all
wal_level = logical
wal_keep_size = 64GB
shared_buffers = 32MB
";

/// After the checkpoint each page that is touched first comes as an image; the reading at the end only sets hint bits.
const IMAGES: &str = r"
CREATE TABLE IF NOT EXISTS t (a int, b text);
INSERT INTO t SELECT n, repeat('text', n % 200) FROM generate_series(1, 1500) n;
CREATE INDEX IF NOT EXISTS t_a ON t (a); CREATE INDEX IF NOT EXISTS t_b ON t USING hash (b);
CREATE INDEX IF NOT EXISTS t_g ON t USING gist (int4range(a, a + 5)); CREATE INDEX IF NOT EXISTS t_i ON t USING gin (string_to_array(b, 'x'));
CREATE INDEX IF NOT EXISTS t_s ON t USING spgist (b); CREATE INDEX IF NOT EXISTS t_r ON t USING brin (a);
CHECKPOINT;
INSERT INTO t SELECT n, repeat('more', n % 90) FROM generate_series(1, 800) n;
UPDATE t SET b = b || 'y' WHERE a % 3 = 0;
CHECKPOINT;
DELETE FROM t WHERE a % 5 = 0;
CHECKPOINT;
SELECT count(*) FROM t WHERE b LIKE 't%';
VACUUM t;
CHECKPOINT;
VACUUM (FREEZE) t;
";

/// A decoder's slot wants to know where each of the catalog's tuples went.
const REWRITE: &str = r"
SELECT 'slot' FROM pg_create_logical_replication_slot('slot', 'test_decoding');
CREATE TABLE seen (a int); CREATE TABLE gone (a int); DROP TABLE gone;
VACUUM FULL pg_class; VACUUM FULL pg_attribute;
CHECKPOINT;
SELECT pg_drop_replication_slot('slot');
";

pub fn record() -> Result<Recorded> {
    let cluster = Cluster::create_with(&["--data-checksums"], SETTINGS)?;
    Recorded::new(cluster, |cluster| {
        for compression in ["pglz", "lz4", "zstd", "off"] {
            cluster.sql("postgres", &format!("SET wal_compression = {compression};{IMAGES}"))?;
        }
        cluster.sql("postgres", REWRITE)?;
        cluster
            .sql("postgres", "SELECT pg_backup_start('backup', true); SELECT pg_backup_stop();")?;
        for setting in ["off", "on"] {
            change_full_page_writes(cluster, setting)?;
        }
        cluster.stop()?;
        cluster.configure("max_connections = 60\ntrack_commit_timestamp = on")?;
        cluster.start()?;
        cluster.sql("postgres", "INSERT INTO t VALUES (0, 'has a time');")?;
        cluster.stop()?;
        cluster.configure("track_commit_timestamp = off")?;
        cluster.start()?;
        cluster.sql("postgres", "INSERT INTO t VALUES (0, 'has none');")?;
        cluster.crash()?;
        cluster.start()
    })
}

/// The checkpointer logs it, some time after the reload.
fn change_full_page_writes(cluster: &Cluster, setting: &str) -> Result<()> {
    cluster.configure(&format!("full_page_writes = {setting}"))?;
    let said = cluster.sql(
        "postgres",
        &format!(
            "SELECT pg_reload_conf(); CHECKPOINT;
             SELECT pg_sleep(0.1) FROM generate_series(1, 300)
             WHERE current_setting('full_page_writes') <> '{setting}';
             CHECKPOINT; SHOW full_page_writes;"
        ),
    )?;
    ensure!(said.trim().ends_with(setting), "full_page_writes did not become {setting}: {said}");
    Ok(())
}
