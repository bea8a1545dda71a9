//! SQL that makes every kind of change that ingest follows; what each record does to a page is
//! tested in `wal-format`.

use anyhow::Result;
use redo_oracle::cluster::Cluster;

/// All WAL is kept, and images of pages come only where the WAL needs them.
pub const SETTINGS: &str = "
fsync = off
full_page_writes = off
wal_level = logical
track_commit_timestamp = on
max_prepared_transactions = 10
wal_keep_size = 4GB
allow_in_place_tablespaces = on
autovacuum = off
";

/// Forks that grow, shrink, go and come back; pages with images and without.
const RELATIONS: &str = r"
CREATE TABLE h (id int, key int, text text);
INSERT INTO h SELECT n, n % 7, repeat('x', n % 300) FROM generate_series(1, 4000) n;
CREATE INDEX h_id ON h (id);
UPDATE h SET text = text || 'y' WHERE id % 3 = 0;
VACUUM h;
DELETE FROM h WHERE id > 1000; VACUUM h;
INSERT INTO h SELECT n, 0, 'again' FROM generate_series(1, 2000) n;
VACUUM FULL h;
UPDATE h SET key = -1 WHERE id < 50;
BEGIN; UPDATE h SET key = -2; ROLLBACK;
BEGIN; SAVEPOINT a; INSERT INTO h VALUES (-1, 0, 'kept'); SAVEPOINT b; INSERT INTO h VALUES (-2, 0, 'undone'); ROLLBACK TO b; COMMIT;
CREATE TABLE cut AS SELECT n FROM generate_series(1, 20000) n; TRUNCATE cut; INSERT INTO cut VALUES (1);
CREATE TABLE dropped AS SELECT n FROM generate_series(1, 1000) n; DROP TABLE dropped;
CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY); INSERT INTO unlogged SELECT generate_series(1, 1000);
CREATE UNLOGGED TABLE relogged (a int PRIMARY KEY); INSERT INTO relogged SELECT generate_series(1, 1000); ALTER TABLE relogged SET LOGGED;
CREATE SEQUENCE s; SELECT count(nextval('s')) FROM generate_series(1, 200);
SELECT count(lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))) FROM generate_series(1, 20);
VACUUM FULL pg_class; VACUUM FULL pg_authid;
VACUUM (FREEZE, ANALYZE);
UPDATE h SET text = 'thawed' WHERE id % 50 = 0;
";

/// What belongs to no relation.
const STATE: &str = r"
CREATE TABLE p (a int PRIMARY KEY, b text);
BEGIN; INSERT INTO p VALUES (1, 'prepared'); SAVEPOINT x; DELETE FROM p WHERE a = 3; RELEASE x; PREPARE TRANSACTION 'stays';
BEGIN; INSERT INTO p VALUES (1001, 'committed'); CREATE TABLE p2 (a int); PREPARE TRANSACTION 'committed';
BEGIN; INSERT INTO p VALUES (1002, 'aborted'); CREATE TABLE p3 (a int); PREPARE TRANSACTION 'aborted';
CHECKPOINT;
COMMIT PREPARED 'committed';
ROLLBACK PREPARED 'aborted';
SELECT pg_replication_origin_create('origin');
SELECT pg_replication_origin_session_setup('origin');
BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', '2020-01-01 00:00:00Z'); INSERT INTO p VALUES (2000, 'from afar'); COMMIT;
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_create('other'); SELECT pg_replication_origin_advance('other', '0/9'); SELECT pg_replication_origin_drop('other');
SELECT pg_switch_wal() IS NOT NULL;
";

/// Databases made both ways, dropped, and in a tablespace.
const DATABASES: &str = r"
CREATE DATABASE logged STRATEGY wal_log;
CREATE DATABASE copied STRATEGY file_copy;
CREATE DATABASE gone STRATEGY file_copy; DROP DATABASE gone;
CREATE TABLESPACE place LOCATION '';
CREATE TABLE placed (a int) TABLESPACE place; INSERT INTO placed SELECT generate_series(1, 1000);
ALTER TABLE h SET TABLESPACE place;
CREATE DATABASE there TABLESPACE place STRATEGY file_copy;
CREATE DATABASE moved STRATEGY wal_log; ALTER DATABASE moved SET TABLESPACE place;
CREATE TABLESPACE brief LOCATION ''; DROP TABLESPACE brief;
";

/// Sessions that lock the same rows: multixacts.
const LOCKS: &str = r"
\set id random(1, 3)
BEGIN;
SELECT * FROM locked WHERE id = :id FOR KEY SHARE;
SAVEPOINT s;
SELECT * FROM locked WHERE id = :id FOR SHARE;
END;
";

/// Runs it all on a running cluster.
pub fn run(cluster: &Cluster) -> Result<()> {
    cluster.sql("postgres", RELATIONS)?;
    cluster.sql("postgres", STATE)?;
    cluster.sql("postgres", DATABASES)?;
    for database in ["logged", "copied", "there", "moved"] {
        let own =
            "CREATE TABLE own (a int PRIMARY KEY); INSERT INTO own SELECT generate_series(1, 500);";
        cluster.sql(database, own)?;
    }
    let locked = "CREATE TABLE locked (id int PRIMARY KEY, n int); \
                  INSERT INTO locked SELECT n, 0 FROM generate_series(1, 3) n;";
    cluster.sql("postgres", locked)?;
    let script = cluster.write_file("locks.sql", LOCKS)?;
    let script = script.to_str().expect("temporary folders have plain names");
    cluster.pgbench(&["-c", "4", "-j", "2", "-t", "300", "-n", "-f", script, "postgres"])?;
    cluster.pgbench(&["-i", "-s", "1", "-q", "postgres"])?;
    cluster.pgbench(&["-c", "4", "-j", "2", "-t", "200", "postgres"])?;
    cluster.sql("postgres", "CHECKPOINT; DELETE FROM pgbench_accounts WHERE aid > 50000;")?;
    cluster.sql("postgres", "VACUUM pgbench_accounts").map(|_| ())
}
