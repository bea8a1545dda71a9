//! The reader's records are those that `pg_waldump` finds, in place, size, name and pages.

use std::{fmt::Write, fs};

use crate::cluster::Cluster;
use wal_format::{
    DEFAULT_SEGMENT_BYTES, Fork, Lsn, RawRecord, Record, Segment, Version, WAL_PAGE_BYTES,
};

/// What ordinary SQL makes, and the rarer kinds of records that SQL can be made to write.
const WORKLOAD: &str = "
CREATE TABLE words (id serial PRIMARY KEY, word text, place point, doc tsvector, span int4range);
INSERT INTO words (word, place, doc, span) SELECT md5(n::text), point(n, n % 100),
    to_tsvector('simple', md5(n::text) || ' ' || n % 50), int4range(n, n + 10)
    FROM generate_series(1, 5000) n;
CREATE INDEX ON words USING gin (doc);
CREATE INDEX ON words USING gist (place);
CREATE INDEX ON words USING spgist (span);
CREATE INDEX ON words USING hash (word);
CREATE INDEX ON words USING brin (id) WITH (pages_per_range = 2);
INSERT INTO words (word, place, doc, span) SELECT md5(n::text), point(n, n % 100),
    to_tsvector('simple', md5(n::text) || ' ' || n % 50), int4range(n, n + 10)
    FROM generate_series(5001, 8000) n;
UPDATE words SET word = word || 'x' WHERE id % 7 = 0;
DELETE FROM words WHERE id % 3 = 0;
VACUUM (FREEZE) words;
SET wal_compression = 'pglz';
CHECKPOINT;
UPDATE words SET word = word || 'y' WHERE id % 5 = 0;
SET wal_compression = 'lz4';
CHECKPOINT;
UPDATE words SET word = word || 'y' WHERE id % 5 = 0;
SET wal_compression = 'zstd';
CHECKPOINT;
UPDATE words SET word = word || 'y' WHERE id % 5 = 0;
VACUUM FULL words;
SET wal_consistency_checking = 'all';
UPDATE words SET word = word || 'z' WHERE id % 11 = 0;
DELETE FROM words WHERE id % 5 = 0;
VACUUM words;
RESET wal_consistency_checking;
BEGIN;
SELECT * FROM words WHERE id = 1 FOR KEY SHARE;
SAVEPOINT one;
UPDATE words SET word = 'locked' WHERE id = 1;
ROLLBACK TO one;
UPDATE words SET word = 'changed' WHERE id = 2;
COMMIT;
BEGIN;
INSERT INTO words (word) VALUES ('prepared');
PREPARE TRANSACTION 'first';
COMMIT PREPARED 'first';
BEGIN;
INSERT INTO words (word) VALUES ('lost');
PREPARE TRANSACTION 'second';
ROLLBACK PREPARED 'second';
DO $$ BEGIN FOR n IN 1..100 LOOP BEGIN
    INSERT INTO words (word) VALUES ('in a subtransaction');
    EXCEPTION WHEN others THEN NULL; END; END LOOP; END $$;
SELECT lo_from_bytea(0, decode(repeat('abcdef', 10000), 'hex'));
CREATE UNLOGGED TABLE fleeting (id int);
CREATE DATABASE copied STRATEGY file_copy;
CREATE DATABASE logged STRATEGY wal_log;
DROP DATABASE copied;
SELECT pg_create_restore_point('here');
SELECT pg_logical_emit_message(false, 'prefix', repeat('m', 100000));
SELECT pg_replication_origin_create('elsewhere');
SELECT pg_replication_origin_drop('elsewhere');
SELECT pg_switch_wal();
INSERT INTO words (word) VALUES ('after the switch');
ALTER TABLE words ALTER id TYPE bigint;
TRUNCATE words;
DROP TABLE words;
";

#[test]
fn records_are_those_that_pg_waldump_finds() {
    let cluster =
        Cluster::init(&["wal_level=logical", "max_prepared_transactions=5", "max_connections=30"]);
    let start = cluster.control_file().checkpoint;
    cluster.start();
    cluster.pgbench(&["-i", "-q", "-s", "2"]);
    cluster.pgbench(&["-c", "4", "-t", "500"]);
    cluster.sql(WORKLOAD);
    cluster.stop("fast");

    let records = compare(&cluster, start);
    assert!(records.len() > 20_000, "{} records are too few to prove anything", records.len());
}

#[test]
fn a_record_that_a_crash_left_unfinished_is_passed_over() {
    let cluster = Cluster::init(&[]);
    let start = cluster.control_file().checkpoint;
    cluster.start();
    cluster.sql("SELECT pg_logical_emit_message(true, 'p', repeat('m', 30000));");
    cluster.stop("immediate");

    // The crash comes after the first of the message's pages.
    let mut reader = cluster.wal_reader(start);
    let cut = std::iter::from_fn(|| reader.next_record().ok().flatten())
        .find(|raw| raw.bytes.len() > 30_000)
        .map(|raw| raw.start.page_start() + WAL_PAGE_BYTES)
        .expect("the message");
    let segment = Segment::containing(1, cut, DEFAULT_SEGMENT_BYTES);
    let path = cluster.wal_folder().join(segment.file_name(DEFAULT_SEGMENT_BYTES));
    let mut wal = fs::read(&path).unwrap();
    wal[cut.segment_offset(DEFAULT_SEGMENT_BYTES.into()) as usize..].fill(0);
    cluster.write(&path, &wal);

    cluster.start();
    cluster.sql("CREATE TABLE after_the_crash (id int);");
    cluster.stop("fast");
    let records = compare(&cluster, start);
    assert!(records.iter().any(|line| line.contains("XLOG/OVERWRITE_CONTRECORD")));
    assert!(records.last().unwrap().contains("XLOG/CHECKPOINT_SHUTDOWN"));
}

/// Reads the WAL from `start` with the reader and with `pg_waldump`: both must find the same. Gives what they found.
fn compare(cluster: &Cluster, start: Lsn) -> Vec<String> {
    let mut reader = cluster.wal_reader(start);
    let mut ours = Vec::new();
    while let Ok(Some(raw)) = reader.next_record() {
        ours.push(describe(&raw, &raw.decode(Version::V15).unwrap()));
    }
    let (start, end) = (start.to_string(), reader.record_end().to_string());
    let folder = cluster.wal_folder();
    let folder = folder.to_str().unwrap();
    let dump = cluster.run("pg_waldump", &["-p", folder, "-s", &start, "-e", &end]);
    let theirs: Vec<String> = dump.lines().filter_map(describe_line).collect();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
    ours
}

/// `LSN prev xid length name` and the pages.
fn describe(raw: &RawRecord, record: &Record) -> String {
    let (start, length) =
        (format!("{:X}/{:08X}", raw.start.0 >> 32, raw.start.0 as u32), raw.bytes.len());
    let prev = format!("{:X}/{:08X}", record.prev.0 >> 32, record.prev.0 as u32);
    let mut line = format!("{start} {prev} {} {length} {}", record.xid, record.name());
    for block in &record.blocks {
        let fork = match block.key.fork.fork {
            Fork::Main => "",
            Fork::FreeSpaceMap => " fork fsm",
            Fork::VisibilityMap => " fork vm",
            Fork::Init => " fork init",
        };
        let relation = block.key.fork.relation;
        write!(line, ", blkref #{}: rel {relation}{fork} blk {}", block.id, block.key.block)
            .unwrap();
        match &block.image {
            Some(image) if image.apply => line += " FPW",
            Some(_) => line += " FPW for WAL verification",
            None => {}
        }
    }
    line
}

/// The same of a line of `pg_waldump`:
/// `rmgr: Heap  len (rec/tot):  54/  150, tx:  734, lsn: 0/0152F7A8, prev 0/0152F770, desc: INSERT off 3, blkref #0: …`
fn describe_line(line: &str) -> Option<String> {
    let (manager, rest) = line.strip_prefix("rmgr: ")?.split_once(" len (rec/tot):")?;
    let (lengths, rest) = rest.split_once(", tx:")?;
    let (xid, rest) = rest.split_once(", lsn: ")?;
    let (start, rest) = rest.split_once(", prev ")?;
    let (prev, rest) = rest.split_once(", desc: ")?;
    let length = lengths.split_once('/')?.1.trim();
    let blocks = rest.find(", blkref #").map_or("", |at| &rest[at..]);
    let kind = rest.split_once([' ', ',']).map_or(rest, |(kind, _)| kind);
    let (manager, xid) = (manager.trim(), xid.trim());
    Some(format!("{start} {prev} {xid} {length} {manager}/{kind}{}", blocks.trim_end()))
}
