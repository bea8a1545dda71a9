//! The statements of the workload.

use std::path::Path;

/// Rows of all sizes and their changes; subtransactions; tables that are filled, cut, rewritten and dropped.
pub const HEAP: &str = r"
SET synchronous_commit = off;
CREATE TABLE h (id int, key int, text text, wide text) WITH (autovacuum_enabled = off);
INSERT INTO h SELECT n, n % 7, repeat('x', n % 300), NULL FROM generate_series(1, 4000) n;
CREATE INDEX h_id ON h (id);
UPDATE h SET text = text || 'y' WHERE id % 3 = 0;
UPDATE h SET key = key + 1 WHERE id % 5 = 0;
UPDATE h SET wide = (SELECT string_agg(md5((id * n)::text), '') FROM generate_series(1, 200) n) WHERE id % 200 = 0;
DELETE FROM h WHERE id % 4 = 1;
VACUUM h;
INSERT INTO h SELECT n, 0, 'again', NULL FROM generate_series(1, 2000) n;
VACUUM (FREEZE, ANALYZE) h;
UPDATE h SET text = 'thawed' WHERE id % 50 = 0;
CHECKPOINT;
BEGIN;
SAVEPOINT a; INSERT INTO h VALUES (-1, 0, 'kept', NULL);
SAVEPOINT b; INSERT INTO h VALUES (-2, 0, 'undone', NULL); ROLLBACK TO b;
SAVEPOINT c; DELETE FROM h WHERE id = 7; RELEASE c;
COMMIT;
CREATE TABLE many (n int);
DO $$ BEGIN FOR i IN 1..120 LOOP BEGIN INSERT INTO many VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$;
DO $$ BEGIN FOR i IN 1..120 LOOP BEGIN INSERT INTO many VALUES (i); PERFORM 1 / (i % 2); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$;
CREATE TABLE shrunk (n int) WITH (autovacuum_enabled = off);
INSERT INTO shrunk SELECT generate_series(1, 20000);
DELETE FROM shrunk WHERE n > 500; VACUUM shrunk;
INSERT INTO shrunk SELECT generate_series(1, 1500);
CREATE TABLE cut AS SELECT n, md5(n::text) t FROM generate_series(1, 2000) n;
TRUNCATE cut; INSERT INTO cut VALUES (1, 'first again');
BEGIN; TRUNCATE cut; INSERT INTO cut VALUES (2, 'undone'); ROLLBACK;
CREATE TABLE dropped AS SELECT n FROM generate_series(1, 1000) n; DROP TABLE dropped;
CREATE TABLE full_vacuum AS SELECT n, repeat('f', n % 90) t FROM generate_series(1, 3000) n;
DELETE FROM full_vacuum WHERE n % 2 = 0; VACUUM FULL full_vacuum;
CREATE UNIQUE INDEX full_vacuum_n ON full_vacuum (n); CLUSTER full_vacuum USING full_vacuum_n;
BEGIN; CREATE TABLE frozen (a int, b text); COPY frozen FROM PROGRAM 'seq 1 2000 | sed s/$/\\ttext/' (FREEZE); COMMIT;
INSERT INTO frozen VALUES (0, 'clears a bit');
CREATE TABLE parted (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200);
INSERT INTO parted SELECT n, n FROM generate_series(0, 150) n;
UPDATE parted SET a = a + 100 WHERE a < 50;
CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY, t text);
INSERT INTO unlogged SELECT n, repeat('u', 3000) FROM generate_series(1, 100) n;
CREATE UNLOGGED TABLE logged_now (a int PRIMARY KEY); INSERT INTO logged_now SELECT generate_series(1, 500);
ALTER TABLE logged_now SET LOGGED;
CREATE TEMP TABLE passing AS SELECT n FROM generate_series(1, 1000) n;
CREATE MATERIALIZED VIEW seen AS SELECT * FROM parted; REFRESH MATERIALIZED VIEW seen;
";

/// B-trees: splits, duplicates, deletions, pages that go and are used again.
pub const BTREE: &str = r"
SET synchronous_commit = off;
CREATE TABLE b (k text, n int, d int) WITH (autovacuum_enabled = off);
CREATE INDEX b_k ON b (k); CREATE INDEX b_n ON b (n); CREATE INDEX b_d ON b (d);
INSERT INTO b SELECT md5(n::text) || repeat('k', n % 400), n, n % 10 FROM generate_series(1, 3000) n;
INSERT INTO b SELECT 'same', n, 5 FROM generate_series(1, 3000) n;
DELETE FROM b WHERE d = 5 AND n % 3 = 0; VACUUM b;
DELETE FROM b WHERE n > 800; VACUUM b;
INSERT INTO b SELECT md5(n::text) || repeat('k', n % 400), n, n % 10 FROM generate_series(1, 2000) n;
CREATE TABLE filled (a int PRIMARY KEY, b int) WITH (fillfactor = 50);
INSERT INTO filled SELECT n, 0 FROM generate_series(1, 2000) n;
DO $$ BEGIN FOR i IN 1..4 LOOP UPDATE filled SET b = b + 1; END LOOP; END $$;
CREATE UNIQUE INDEX ON filled (b, a);
DO $$ BEGIN FOR i IN 1..4 LOOP UPDATE filled SET b = b + 1 WHERE a % 2 = 0; END LOOP; END $$;
REINDEX INDEX b_k;
CREATE TABLE locked (id int PRIMARY KEY, n int); INSERT INTO locked SELECT n, 0 FROM generate_series(1, 3) n;
";

/// Prepared transactions: two that wait while the compute is lost, and others that end before.
pub const PREPARED: &str = r"
CREATE TABLE p (a int PRIMARY KEY, b text); CREATE TABLE seen_once AS TABLE seen;
BEGIN; INSERT INTO p SELECT n, 'kept' FROM generate_series(1, 200) n; SAVEPOINT x; DELETE FROM p WHERE a = 3; RELEASE x; PREPARE TRANSACTION 'kept';
BEGIN; INSERT INTO p VALUES (1000, 'undone'); CREATE TABLE p_undone (a int); DROP TABLE parted_high; PREPARE TRANSACTION 'undone';
BEGIN; INSERT INTO p VALUES (1001, 'committed'); CREATE TABLE p_committed (a int); DROP TABLE seen_once; PREPARE TRANSACTION 'committed';
COMMIT PREPARED 'committed';
BEGIN; INSERT INTO p VALUES (1002, 'aborted'); CREATE TABLE p_aborted (a int); PREPARE TRANSACTION 'aborted';
CHECKPOINT;
ROLLBACK PREPARED 'aborted';
";

/// What freezing everything lets go, where a run begins shortly before the ends of these.
pub const OLDEST_SEGMENTS: [&str; 4] =
    ["pg_xact/0000", "pg_commit_ts/0027", "pg_multixact/offsets/0000", "pg_multixact/members/0000"];

/// One that waits to the end of the run.
pub const PREPARED_AGAIN: &str = r"
BEGIN; INSERT INTO p VALUES (3000, 'remains'); SELECT * FROM p WHERE a < 10 FOR SHARE; PREPARE TRANSACTION 'remains';
CHECKPOINT;
BEGIN; INSERT INTO p VALUES (3001, 'remains too'); PREPARE TRANSACTION 'remains too';
";

/// The other index types: splits, overflow pages, vacuum of each.
pub const INDEXES: &str = r"
SET synchronous_commit = off;
CREATE TABLE g (a int[], t tsvector) WITH (autovacuum_enabled = off);
CREATE INDEX g_a ON g USING gin (a) WITH (fastupdate = off);
CREATE INDEX g_t ON g USING gin (t) WITH (fastupdate = on, gin_pending_list_limit = 64);
INSERT INTO g SELECT ARRAY[n % 10, n % 100, n], to_tsvector('simple', 'word' || n % 50 || ' text' || n) FROM generate_series(1, 2000) n;
INSERT INTO g SELECT ARRAY[1, 2], to_tsvector('simple', 'common') FROM generate_series(1, 4000) n;
DELETE FROM g WHERE a @> ARRAY[3]; DELETE FROM g WHERE ctid IN (SELECT ctid FROM g WHERE a = ARRAY[1, 2] LIMIT 3000);
VACUUM g; SELECT gin_clean_pending_list('g_t') >= 0;
CREATE TABLE ge (p point, b box, r int4range) WITH (autovacuum_enabled = off);
CREATE INDEX ge_p ON ge USING gist (p); CREATE INDEX ge_b ON ge USING gist (b); CREATE INDEX ge_r ON ge USING gist (r);
INSERT INTO ge SELECT point(n * 7919 % 1000, n % 311), box(point(n % 97, n % 89), point(n % 97 + 2, n % 89 + 2)), int4range(n % 500, n % 500 + 10) FROM generate_series(1, 2500) n;
DELETE FROM ge WHERE p[0] < 700; VACUUM ge; VACUUM ge;
INSERT INTO ge SELECT point(n, n), box(point(n, n), point(n + 1, n + 1)), int4range(n, n + 2) FROM generate_series(1, 1000) n;
CHECKPOINT;
CREATE TABLE sp (p point, t text, r int4range) WITH (autovacuum_enabled = off);
CREATE INDEX sp_p ON sp USING spgist (p); CREATE INDEX sp_t ON sp USING spgist (t); CREATE INDEX sp_r ON sp USING spgist (r);
INSERT INTO sp SELECT point(n * 7919 % 1000, n % 311), 'prefix' || n % 700 || repeat('t', n % 50), int4range(n % 500, n % 500 + 10) FROM generate_series(1, 2000) n;
INSERT INTO sp SELECT NULL, NULL, NULL FROM generate_series(1, 300) n;
DELETE FROM sp WHERE t LIKE 'prefix1%' OR p IS NULL; VACUUM sp;
INSERT INTO sp SELECT point(n % 50, n % 31), 'other' || md5(n::text), int4range(n, n + 3) FROM generate_series(1, 1500) n;
DELETE FROM sp WHERE p[0] < 20; VACUUM sp; VACUUM sp;
CREATE TABLE ha (a int, t text) WITH (autovacuum_enabled = off);
CREATE INDEX ha_a ON ha USING hash (a); CREATE INDEX ha_t ON ha USING hash (t);
INSERT INTO ha SELECT n, 'text' || n % 40 FROM generate_series(1, 4000) n;
DELETE FROM ha WHERE a % 3 <> 0; VACUUM ha;
INSERT INTO ha SELECT 7, 'same' FROM generate_series(1, 2000) n;
DELETE FROM ha WHERE a = 7 AND ctid > '(20,1)'; VACUUM ha;
CREATE UNLOGGED TABLE hu (a int); CREATE INDEX ON hu USING hash (a);
CREATE TABLE br (a int, t text, w text) WITH (autovacuum_enabled = off);
CREATE INDEX br_a ON br USING brin (a) WITH (pages_per_range = 1, autosummarize = off);
CREATE INDEX br_t ON br USING brin (t, w) WITH (pages_per_range = 1);
INSERT INTO br SELECT n, n::text, repeat('w', n % 500) FROM generate_series(1, 3000) n;
SELECT brin_summarize_new_values('br_a') + brin_summarize_new_values('br_t') > 0;
UPDATE br SET a = -a, t = repeat('longer', 30 + a % 40), w = repeat('v', a % 900) WHERE a % 7 = 0;
SELECT brin_desummarize_range('br_a', n) IS NULL FROM generate_series(0, 40, 3) n;
INSERT INTO br SELECT n, repeat('t', n % 700), 'w' FROM generate_series(1, 2000) n;
VACUUM br;
CREATE EXTENSION bloom; CREATE TABLE bl (a int, b int);
INSERT INTO bl SELECT n, n FROM generate_series(1, 1000) n; CREATE INDEX bl_i ON bl USING bloom (a, b);
INSERT INTO bl SELECT n, n FROM generate_series(1, 1000) n; DELETE FROM bl WHERE a < 300; VACUUM bl;
";

/// Databases made both ways, one that goes, and tablespaces; the second one goes.
pub fn databases(kept: &Path, dropped: &Path) -> String {
    let (kept, dropped) = (kept.display(), dropped.display());
    format!(
        r"
CREATE DATABASE logged STRATEGY wal_log;
CREATE DATABASE copied TEMPLATE logged STRATEGY file_copy;
CREATE DATABASE gone STRATEGY file_copy;
DROP DATABASE gone;
CREATE TABLESPACE place LOCATION '{kept}';
CHECKPOINT;
CREATE TABLE placed (a int) TABLESPACE place;
INSERT INTO placed SELECT generate_series(1, 1000);
ALTER TABLE filled SET TABLESPACE place;
CREATE DATABASE there TABLESPACE place STRATEGY file_copy;
CREATE TABLESPACE brief LOCATION '{dropped}';
CHECKPOINT;
CREATE TABLE briefly (a int) TABLESPACE brief; INSERT INTO briefly VALUES (1); DROP TABLE briefly;
DROP TABLESPACE brief;
"
    )
}

/// In each of the new databases.
pub const INSIDE: &str = r"
CREATE TABLE own (a int PRIMARY KEY, t text);
INSERT INTO own SELECT n, repeat('t', 2500) FROM generate_series(1, 100) n;
UPDATE own SET a = -a; VACUUM own;
VACUUM FULL pg_class; REINDEX TABLE pg_type;
";

/// Sequences, large objects, origins, messages, relation maps, and what belongs to no table.
pub const STATE: &str = r"
CREATE SEQUENCE s; SELECT count(nextval('s')) FROM generate_series(1, 200);
SELECT setval('s', 5000); ALTER SEQUENCE s INCREMENT 3; SELECT nextval('s');
SELECT count(lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))) FROM generate_series(1, 50);
SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata LIMIT 20) few;
SELECT pg_replication_origin_create('origin');
SELECT pg_replication_origin_session_setup('origin');
BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', '2020-01-01 00:00:00Z'); INSERT INTO p VALUES (2000, 'from afar'); COMMIT;
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_advance('origin', '0/5678');
SELECT pg_replication_origin_create('other'); SELECT pg_replication_origin_advance('other', '0/9'); SELECT pg_replication_origin_drop('other');
SELECT pg_logical_emit_message(true, 'a', 'message'); SELECT pg_logical_emit_message(false, 'a', 'message');
SELECT pg_create_restore_point('here'); SELECT pg_switch_wal() IS NOT NULL;
VACUUM FULL pg_class; VACUUM FULL pg_authid; VACUUM FULL pg_proc; REINDEX TABLE pg_class;
REINDEX TABLE h; ANALYZE;
CREATE TABLE oids (n int); SELECT count(lo_create(0)) FROM generate_series(1, 9000);
";

/// Goes on in what the lost compute before left: more rows, and segments that go.
pub const GOING: &str = r"
INSERT INTO h SELECT n, n % 7, 'after a loss', NULL FROM generate_series(1, 1000) n;
UPDATE unlogged SET t = 'none is left'; INSERT INTO unlogged VALUES (1, 'new');
DROP TABLE b; TRUNCATE full_vacuum;
VACUUM;
";

/// The last changes before the clean stop.
pub const LAST: &str = r"
INSERT INTO p VALUES (4000, 'stamped again');
VACUUM (FREEZE) h;
ALTER TABLE filled SET TABLESPACE pg_default;
CREATE TABLE at_the_end AS SELECT n FROM generate_series(1, 500) n;
";

/// Concurrent sessions that lock the same few rows: multixacts, and rows locked in newer versions.
pub const LOCKS: &str = r"
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

/// Transactions that have an id and do nothing else.
pub const SMALL: &str = r"
SELECT txid_current();
";
