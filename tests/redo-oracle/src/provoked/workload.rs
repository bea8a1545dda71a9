//! SQL that makes as many kinds of WAL records as a short run can.

use anyhow::Result;

use crate::cluster::Cluster;

/// Small buffers, no full-page images but those that the workload asks for, and an after-image in each record. The WAL is kept: it is replayed afterwards.
pub const SETTINGS: &str = "
fsync = off
full_page_writes = off
wal_consistency_checking = all
wal_level = logical
track_commit_timestamp = on
max_prepared_transactions = 10
wal_keep_size = 64GB
max_wal_size = 8GB
shared_buffers = 64MB
wal_compression = lz4
synchronous_commit = off
autovacuum = off
allow_in_place_tablespaces = on
";

/// Rows of all sizes, updates of each kind, and deletions.
const HEAP: &str = r"
CREATE TABLE h (id int, key int, text text, wide text);
INSERT INTO h SELECT n, n % 7, repeat('x', n % 300), NULL FROM generate_series(1, 6000) n;
CREATE INDEX ON h (id);
UPDATE h SET text = text || 'y' WHERE id % 3 = 0;
UPDATE h SET key = key + 1 WHERE id % 5 = 0;
UPDATE h SET wide = (SELECT string_agg(md5((id * n)::text), '') FROM generate_series(1, 200) n) WHERE id % 400 = 0;
DELETE FROM h WHERE id % 4 = 1;
VACUUM h;
INSERT INTO h SELECT n, 0, 'again', NULL FROM generate_series(1, 2000) n;
UPDATE h SET text = 'frozen soon' WHERE id < 500;
VACUUM (FREEZE, ANALYZE) h;
UPDATE h SET text = 'thawed' WHERE id % 50 = 0;
DELETE FROM h WHERE id % 60 = 0;
INSERT INTO h VALUES (1, 1, 'one more', NULL);
SELECT count(*) FROM h;
BEGIN; UPDATE h SET key = -1 WHERE id < 1000; ROLLBACK;
BEGIN;
SAVEPOINT a; INSERT INTO h VALUES (-1, 0, 'kept', NULL);
SAVEPOINT b; INSERT INTO h VALUES (-2, 0, 'undone', NULL); ROLLBACK TO b;
SAVEPOINT c; DELETE FROM h WHERE id = 7; RELEASE c;
COMMIT;
CREATE TABLE many (n int);
DO $$ BEGIN FOR i IN 1..70 LOOP BEGIN INSERT INTO many VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$;
VACUUM FULL h;
CLUSTER h USING h_id_idx;
DELETE FROM h WHERE id > 100; VACUUM h;
TRUNCATE h;
INSERT INTO h VALUES (1, 1, 'first again', NULL);
CREATE TABLE copied (a int, b text);
COPY copied FROM PROGRAM 'seq 1 3000 | sed s/$/\\ttext/';
COPY copied TO '/dev/null';
BEGIN; CREATE TABLE frozen (a int, b text); COPY frozen FROM PROGRAM 'seq 1 3000 | sed s/$/\\ttext/' (FREEZE); COMMIT;
INSERT INTO frozen VALUES (0, 'clears a bit');
SELECT * FROM frozen WHERE a = 17 FOR UPDATE;
CREATE TABLE parted (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200);
INSERT INTO parted SELECT n, n FROM generate_series(0, 150) n;
UPDATE parted SET a = a + 100 WHERE a < 50;
CREATE TABLE filled (a int PRIMARY KEY, b int) WITH (fillfactor = 50);
INSERT INTO filled SELECT n, 0 FROM generate_series(1, 3000) n;
DO $$ BEGIN FOR i IN 1..4 LOOP UPDATE filled SET b = b + 1; END LOOP; END $$;
SELECT sum(b) FROM filled;
UPDATE filled SET b = b + 1 WHERE a < 100;
CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY); INSERT INTO unlogged SELECT generate_series(1, 1000);
ALTER TABLE unlogged SET LOGGED;
CREATE MATERIALIZED VIEW seen AS SELECT * FROM copied; REFRESH MATERIALIZED VIEW seen;
";

/// B-trees: splits of leaf, inner and root pages, duplicates, deletions, pages that go and are used again.
const BTREE: &str = r"
SET wal_compression = zstd;
CREATE TABLE b (k text, n int, d int);
CREATE INDEX b_k ON b (k); CREATE INDEX b_n ON b (n); CREATE INDEX b_d ON b (d);
ALTER TABLE b SET (autovacuum_enabled = off);
INSERT INTO b SELECT md5(n::text) || repeat('k', n % 400), n, n % 10 FROM generate_series(1, 6000) n;
INSERT INTO b SELECT md5(n::text), 6000 - n, n % 10 FROM generate_series(1, 3000) n;
INSERT INTO b SELECT 'same', n, 5 FROM generate_series(1, 5000) n;
DO $$ BEGIN FOR i IN 1..4 LOOP INSERT INTO b SELECT 'x' || (n * 7919 % 1000), n, n % 3 FROM generate_series(1, 1500) n; END LOOP; END $$;
DELETE FROM b WHERE d = 5 AND n % 3 = 0;
VACUUM b;
DELETE FROM b WHERE n > 1000;
VACUUM b;
INSERT INTO b SELECT md5(n::text) || repeat('k', n % 400), n, n % 10 FROM generate_series(1, 4000) n;
CREATE UNIQUE INDEX ON filled (b, a);
DO $$ BEGIN FOR i IN 1..6 LOOP UPDATE filled SET b = b + 1 WHERE a % 2 = 0; END LOOP; END $$;
SET enable_seqscan = off; SET enable_bitmapscan = off;
CREATE TABLE killed (a int) WITH (autovacuum_enabled = off); CREATE INDEX ON killed (a);
INSERT INTO killed SELECT n % 500 FROM generate_series(1, 3000) n;
DELETE FROM killed WHERE a < 400;
SELECT count(*) FROM killed WHERE a < 450;
SELECT count(*) FROM killed WHERE a < 450;
INSERT INTO killed SELECT n % 500 FROM generate_series(1, 3000) n;
CREATE TABLE inner_pages (k text) WITH (autovacuum_enabled = off);
CREATE INDEX inner_k ON inner_pages (k);
INSERT INTO inner_pages SELECT repeat(chr(97 + n % 26), 900) || lpad(n::text, 8, '0') FROM generate_series(1, 1500) n;
ALTER TABLE inner_pages ALTER k SET STORAGE PLAIN;
INSERT INTO inner_pages SELECT repeat(md5((n % 50)::text), 40) || lpad(n::text, 8, '0') || repeat(md5(n::text), 30) FROM generate_series(1, 1500) n;
DELETE FROM inner_pages; VACUUM inner_pages; VACUUM inner_pages;
INSERT INTO inner_pages SELECT repeat(md5(n::text), 60) FROM generate_series(1, 800) n;
";

/// GIN: its pending list and its trees, posting trees with inner pages, vacuum of all of them.
const GIN: &str = r"
CREATE TABLE g (a int[], t tsvector) WITH (autovacuum_enabled = off);
CREATE INDEX g_a ON g USING gin (a) WITH (fastupdate = off);
CREATE INDEX g_t ON g USING gin (t) WITH (fastupdate = on, gin_pending_list_limit = 64);
INSERT INTO g SELECT ARRAY[n % 10, n % 100, n], to_tsvector('simple', 'word' || n % 50 || ' text' || n) FROM generate_series(1, 3000) n;
INSERT INTO g SELECT ARRAY[1, 2], to_tsvector('simple', 'common') FROM generate_series(1, 6000) n;
DELETE FROM g WHERE a @> ARRAY[3];
DELETE FROM g WHERE ctid IN (SELECT ctid FROM g WHERE a = ARRAY[1, 2] LIMIT 4500);
VACUUM g;
INSERT INTO g SELECT ARRAY[n % 10, 1], to_tsvector('simple', 'again' || n % 9) FROM generate_series(1, 3000) n;
SELECT gin_clean_pending_list('g_t') >= 0;
VACUUM g;
SET wal_consistency_checking = 'gin';
CREATE TABLE g_pages (a int[]) WITH (autovacuum_enabled = off);
COPY g_pages FROM PROGRAM 'yes {1} | head -40000';
CREATE INDEX ON g_pages USING gin (a);
DELETE FROM g_pages WHERE ctid < '(200,1)'; VACUUM g_pages;
";

/// The other index types: splits, overflow pages, vacuum of each.
const OTHERS: &str = r"
CREATE TABLE ge (p point, b box, r int4range) WITH (autovacuum_enabled = off);
CREATE INDEX ge_p ON ge USING gist (p); CREATE INDEX ge_b ON ge USING gist (b); CREATE INDEX ge_r ON ge USING gist (r);
INSERT INTO ge SELECT point(n * 7919 % 1000, n % 311), box(point(n % 97, n % 89), point(n % 97 + 2, n % 89 + 2)), int4range(n % 500, n % 500 + 10) FROM generate_series(1, 4000) n;
DELETE FROM ge WHERE p[0] < 700; VACUUM ge; VACUUM ge;
INSERT INTO ge SELECT point(n, n), box(point(n, n), point(n + 1, n + 1)), int4range(n, n + 2) FROM generate_series(1, 1500) n;
DELETE FROM ge; VACUUM ge; VACUUM ge;
INSERT INTO ge SELECT point(n, n), box(point(n, n), point(n + 1, n + 1)), int4range(n, n + 2) FROM generate_series(1, 1500) n;
SET enable_seqscan = off; SET enable_bitmapscan = off;
INSERT INTO ge SELECT point(1, 1) FROM generate_series(1, 600) n;
DELETE FROM ge WHERE p ~= point(1, 1);
SELECT count(*) FROM ge WHERE p <@ box '((0,0),(2,2))'; SELECT count(*) FROM ge WHERE p <@ box '((0,0),(2,2))';
INSERT INTO ge SELECT point(1, 1) FROM generate_series(1, 600) n;
RESET enable_seqscan; RESET enable_bitmapscan;
CREATE TABLE sp (p point, t text, r int4range) WITH (autovacuum_enabled = off);
CREATE INDEX sp_p ON sp USING spgist (p); CREATE INDEX sp_t ON sp USING spgist (t); CREATE INDEX sp_r ON sp USING spgist (r);
CREATE INDEX sp_k ON sp USING spgist (p kd_point_ops);
INSERT INTO sp SELECT point(n * 7919 % 1000, n % 311), 'prefix' || n % 700 || repeat('t', n % 50), int4range(n % 500, n % 500 + 10) FROM generate_series(1, 3000) n;
INSERT INTO sp SELECT NULL, NULL, NULL FROM generate_series(1, 500) n;
INSERT INTO sp SELECT point(1, 1), 'pre' || n, 'empty' FROM generate_series(1, 1000) n;
DELETE FROM sp WHERE t LIKE 'prefix1%' OR p IS NULL; VACUUM sp;
INSERT INTO sp SELECT point(n % 50, n % 31), 'other' || md5(n::text), int4range(n, n + 3) FROM generate_series(1, 3000) n;
DELETE FROM sp WHERE p[0] < 20; VACUUM sp; VACUUM sp;
CREATE TABLE tiny (t text); CREATE INDEX tiny_t ON tiny USING spgist (t);
INSERT INTO tiny SELECT 'x' || n FROM generate_series(1, 20) n; DELETE FROM tiny WHERE t < 'x15'; VACUUM tiny;
CREATE TABLE ha (a int, t text) WITH (autovacuum_enabled = off);
CREATE INDEX ha_a ON ha USING hash (a); CREATE INDEX ha_t ON ha USING hash (t);
INSERT INTO ha SELECT n, 'text' || n % 40 FROM generate_series(1, 6000) n;
DELETE FROM ha WHERE a % 3 <> 0; VACUUM ha;
INSERT INTO ha SELECT 7, 'same' FROM generate_series(1, 3000) n;
DELETE FROM ha WHERE a = 7 AND ctid > '(20,1)'; VACUUM ha;
DELETE FROM ha WHERE t LIKE 'text1%'; VACUUM ha;
SET enable_seqscan = off; SET enable_bitmapscan = off;
DELETE FROM ha WHERE a < 3000;
SELECT count(*) FROM ha WHERE a = ANY (ARRAY(SELECT generate_series(1, 3000)));
INSERT INTO ha SELECT n, 'again' FROM generate_series(1, 3000) n;
INSERT INTO ha SELECT 5, 'five' FROM generate_series(1, 1000) n;
DELETE FROM ha WHERE a = 5;
SELECT count(*) FROM ha WHERE a = 5; SELECT count(*) FROM ha WHERE a = 5;
INSERT INTO ha SELECT 5, 'five' FROM generate_series(1, 1000) n;
CREATE UNLOGGED TABLE hu (a int); CREATE INDEX ON hu USING hash (a);
CREATE TABLE br (a int, t text, w text) WITH (autovacuum_enabled = off);
CREATE INDEX br_a ON br USING brin (a) WITH (pages_per_range = 1, autosummarize = off);
CREATE INDEX br_t ON br USING brin (t, w) WITH (pages_per_range = 1);
INSERT INTO br SELECT n, n::text, repeat('w', n % 500) FROM generate_series(1, 6000) n;
SELECT brin_summarize_new_values('br_a') + brin_summarize_new_values('br_t') > 0;
UPDATE br SET a = -a, t = repeat('longer', 30 + a % 40), w = repeat('v', a % 900) WHERE a % 7 = 0;
SELECT brin_desummarize_range('br_a', n) IS NULL FROM generate_series(0, 40, 3) n;
SELECT brin_desummarize_range('br_t', n) IS NULL FROM generate_series(0, 40, 3) n;
INSERT INTO br SELECT n, repeat('t', n % 700), 'w' FROM generate_series(1, 4000) n;
VACUUM br;
CREATE TABLE wide (a text) WITH (fillfactor = 10); INSERT INTO wide SELECT repeat('w', 700) FROM generate_series(1, 3000);
CREATE INDEX wide_a ON wide USING brin (a) WITH (pages_per_range = 1);
INSERT INTO wide SELECT repeat('v', 700) FROM generate_series(1, 1500);
SELECT brin_summarize_new_values('wide_a') > 0;
";

/// Sequences, large objects, two-phase commit, origins, messages, and what belongs to no table.
const STATE: &str = r"
SET wal_compression = pglz;
CREATE SEQUENCE s; SELECT count(nextval('s')) FROM generate_series(1, 200);
SELECT setval('s', 5000); ALTER SEQUENCE s INCREMENT 3; SELECT nextval('s');
SELECT count(lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))) FROM generate_series(1, 50);
CREATE TABLE p (a int PRIMARY KEY, b text);
BEGIN; INSERT INTO p SELECT n, 'prepared' FROM generate_series(1, 200) n; SAVEPOINT x; DELETE FROM p WHERE a = 3; RELEASE x; PREPARE TRANSACTION 'stays';
BEGIN; INSERT INTO p VALUES (1001, 'committed'); CREATE TABLE p2 (a int); PREPARE TRANSACTION 'committed';
BEGIN; INSERT INTO p VALUES (1002, 'aborted'); CREATE TABLE p3 (a int); PREPARE TRANSACTION 'aborted';
CHECKPOINT;
COMMIT PREPARED 'committed';
ROLLBACK PREPARED 'aborted';
SELECT pg_replication_origin_create('origin');
SELECT pg_replication_origin_session_setup('origin');
BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', '2020-01-01 00:00:00Z'); INSERT INTO p VALUES (2000, 'from afar'); COMMIT;
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_advance('origin', '0/5678');
SELECT pg_replication_origin_create('other'); SELECT pg_replication_origin_advance('other', '0/9'); SELECT pg_replication_origin_drop('other');
SELECT pg_logical_emit_message(true, 'a', 'message'); SELECT pg_logical_emit_message(false, 'a', 'message');
SELECT pg_create_restore_point('here'); SELECT pg_switch_wal() IS NOT NULL;
CREATE TABLE dropped AS SELECT n FROM generate_series(1, 1000) n; DROP TABLE dropped;
CREATE EXTENSION bloom; CREATE TABLE bl (a int, b int);
INSERT INTO bl SELECT n, n FROM generate_series(1, 2000) n; CREATE INDEX bl_i ON bl USING bloom (a, b);
INSERT INTO bl SELECT n, n FROM generate_series(1, 2000) n; DELETE FROM bl WHERE a < 500; VACUUM bl;
REINDEX TABLE filled; VACUUM FULL pg_class; VACUUM FULL pg_authid; VACUUM FULL pg_proc;
ANALYZE;
";

/// What needs a session outside of any transaction, or another database.
const DATABASES: &str = r"
CREATE DATABASE logged STRATEGY wal_log;
CREATE DATABASE copied STRATEGY file_copy;
CREATE DATABASE gone STRATEGY file_copy;
DROP DATABASE gone;
CREATE TABLESPACE place LOCATION '';
CREATE TABLE placed (a int) TABLESPACE place;
INSERT INTO placed SELECT generate_series(1, 1000);
ALTER TABLE b SET TABLESPACE place;
CREATE DATABASE there TABLESPACE place STRATEGY file_copy;
CREATE TABLESPACE brief LOCATION '';
DROP TABLESPACE brief;
";

/// A table whose end a vacuum cuts off, and its visibility map's with it. Nothing touches it any more.
const CUT: &str = r"
CREATE TABLE cut (a int) WITH (autovacuum_enabled = off);
INSERT INTO cut SELECT generate_series(1, 20000);
VACUUM cut; DELETE FROM cut WHERE a > 3000; VACUUM cut;
";

/// Concurrent sessions that lock the same few rows: multixacts, and rows locked in newer versions.
const LOCKS: &str = r"
\set id random(1, 3)
\set kind random(1, 10)
BEGIN;
SELECT * FROM locked WHERE id = :id FOR KEY SHARE;
\if :kind > 7
UPDATE locked SET n = n + 1 WHERE id = :id;
\endif
\if :kind = 1
SAVEPOINT s;
SELECT * FROM locked WHERE id = :id FOR SHARE;
RELEASE s;
\endif
END;
";

/// Concurrent insertions of the same keys: speculative ones are confirmed and taken back.
const UPSERTS: &str = r"
\set id random(1, 400)
INSERT INTO upserted VALUES (:id, 1) ON CONFLICT (id) DO UPDATE SET n = upserted.n + 1;
";

/// Many small transactions, some with a subtransaction.
const SMALL: &str = r"
SELECT txid_current();
";

/// Runs it all on a running cluster.
pub fn run(cluster: &Cluster) -> Result<()> {
    let database = "postgres";
    cluster.sql(database, HEAP)?;
    cluster.sql(database, BTREE)?;
    cluster.sql(database, GIN)?;
    cluster.sql(database, OTHERS)?;
    cluster.sql(database, STATE)?;
    cluster.sql(database, DATABASES)?;
    cluster.sql(
        "copied",
        "CREATE TABLE own (a int PRIMARY KEY); INSERT INTO own SELECT generate_series(1, 500);",
    )?;
    cluster.sql("there", "CREATE TABLE own (a int PRIMARY KEY); INSERT INTO own SELECT generate_series(1, 500); UPDATE own SET a = -a;")?;

    cluster.sql(database, "CREATE TABLE locked (id int PRIMARY KEY, n int); INSERT INTO locked SELECT n, 0 FROM generate_series(1, 3) n;
        CREATE TABLE upserted (id int PRIMARY KEY, n int);")?;
    let script = |name: &str, text: &str, arguments: &[&str]| -> Result<()> {
        let path = cluster.write_file(name, text)?;
        let file = path.to_str().expect("temporary folders have plain names");
        cluster.pgbench(&[arguments, &["-n", "-f", file, database]].concat())
    };
    script("locks.sql", LOCKS, &["-c", "8", "-j", "2", "-t", "300", "--max-tries=5"])?;
    script("upserts.sql", UPSERTS, &["-c", "8", "-j", "2", "-t", "300"])?;
    script("small.sql", SMALL, &["-c", "8", "-j", "2", "-t", "2500", "-M", "prepared"])?;
    cluster.sql(database, "VACUUM (FREEZE) locked; VACUUM upserted;")?;

    cluster.pgbench(&["-i", "-s", "1", "-q", database])?;
    cluster.pgbench(&["-c", "8", "-j", "2", "-t", "500", database])?;
    cluster.sql(database, "VACUUM FREEZE pgbench_accounts; CHECKPOINT;")?;
    cluster.pgbench(&["-c", "4", "-j", "2", "-t", "500", database])?;
    cluster.sql(
        database,
        "VACUUM; DELETE FROM pgbench_accounts WHERE aid > 50000; VACUUM pgbench_accounts;",
    )?;
    freeze_all(cluster)
}

/// Lets the oldest segments of the SLRUs go, and leaves a prepared transaction behind.
fn freeze_all(cluster: &Cluster) -> Result<()> {
    cluster
        .sql("postgres", "COMMIT PREPARED 'stays'; UPDATE pg_database SET datallowconn = true;")?;
    let names = cluster.sql("postgres", "SELECT datname FROM pg_database ORDER BY oid;")?;
    for name in names.lines() {
        cluster.sql(name, "VACUUM (FREEZE);")?;
    }
    cluster.sql("postgres", CUT)?;
    let prepared = "BEGIN; INSERT INTO p VALUES (3000, 'remains'); PREPARE TRANSACTION 'remains';";
    cluster.sql("postgres", prepared).map(|_| ())
}
