//! The synthesised shutdown checkpoint is the one that Postgres writes at the same place, and Postgres starts from it.

use std::fs;

use wal_format::{
    CheckPoint, ControlFile, ControlState, Lsn, RawRecord, Segment, ShutdownCheckpoint, Version,
    WalReader, segment_prefix, synthesise_shutdown_checkpoint,
};

use crate::cluster::Cluster;

const PAGE: u64 = 8192;
const SEGMENT_BYTES: u32 = 1 << 20;
const SEGMENT: u64 = SEGMENT_BYTES as u64;

/// Sessions that change every counter.
const COUNTERS: &str = "
CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, v int);
INSERT INTO t SELECT coalesce(max(id), 0) + 1, 0 FROM t;
BEGIN;
SELECT * FROM t FOR KEY SHARE;
SAVEPOINT one;
UPDATE t SET v = v + 1;
COMMIT;
SELECT lo_create(0) FROM generate_series(1, 300);
BEGIN;
INSERT INTO t SELECT max(id) + 1, 0 FROM t;
SAVEPOINT two;
INSERT INTO t SELECT max(id) + 1, 0 FROM t;
PREPARE TRANSACTION 'kept';
COMMIT PREPARED 'kept';
";

/// The state at the end of the WAL, and where that is.
struct Followed {
    state: ControlState,
    reader: WalReader,
    last: RawRecord,
}

/// Follows the WAL from `start`, whose state before is `state`, to its end.
fn follow(cluster: &Cluster, start: Lsn, mut state: ControlState) -> Followed {
    let mut reader = cluster.wal_reader(start);
    let mut last = None;
    // The files go on with zeros, or with what a segment held before: that ends the records too.
    while let Ok(Some(raw)) = reader.next_record() {
        state.apply(&raw.decode(Version::V15).unwrap(), raw.end).unwrap();
        last = Some(raw);
    }
    Followed { state, reader, last: last.unwrap() }
}

fn synthesise(followed: &Followed, system_id: u64, time: i64) -> ShutdownCheckpoint {
    let x = followed.reader.record_end();
    synthesise_shutdown_checkpoint(
        Version::V15,
        x,
        followed.last.start,
        &followed.state,
        system_id,
        SEGMENT_BYTES,
        time,
    )
}

/// The WAL that the cluster has on disk from `begin` on.
fn wal_from(cluster: &Cluster, begin: Lsn, bytes: usize) -> Vec<u8> {
    let mut wal = Vec::new();
    while wal.len() < bytes {
        let at = begin + wal.len() as u64;
        let name = Segment::containing(1, at, SEGMENT_BYTES).file_name(SEGMENT_BYTES);
        let file = fs::read(cluster.wal_folder().join(name)).unwrap();
        wal.extend_from_slice(&file[at.segment_offset(SEGMENT) as usize..]);
    }
    wal.truncate(bytes);
    wal
}

/// A cluster that was never started, with the state it then has.
fn new_cluster(settings: &[&str]) -> (Cluster, Lsn, ControlState) {
    let cluster = Cluster::init_with(&["--wal-segsize=1"], settings);
    let control = cluster.control_file();
    (cluster, control.checkpoint, ControlState::from_control_file(&control))
}

/// Crashes the cluster, follows its WAL and lets it recover: the checkpoint that it writes must be the one that we
/// make. Gives X and leaves the cluster running.
fn crash_and_compare(cluster: &Cluster, start: Lsn, state: ControlState) -> Lsn {
    cluster.stop("immediate");
    let followed = follow(cluster, start, state);
    let x = followed.reader.record_end();
    cluster.start();
    let control = cluster.control_file();
    let probe = synthesise(&followed, control.system_id, 0);
    let theirs = wal_from(cluster, x, probe.bytes.len());
    let time = recorded_time(&theirs, &probe);
    let ours = synthesise(&followed, control.system_id, time);
    assert!(time > 1_600_000_000, "the record at {x} has no time");
    assert_eq!(ours.bytes, theirs, "the checkpoint at {x}");
    assert_eq!(control.checkpoint, ours.redo);
    assert_eq!(control.checkpoint_copy, followed.state.checkpoint(ours.redo, time));
    x
}

/// The time in the checkpoint that Postgres wrote where we would write `probe`.
fn recorded_time(theirs: &[u8], probe: &ShutdownCheckpoint) -> i64 {
    let mut reader = WalReader::new(Version::V15, SEGMENT_BYTES, probe.begin, None);
    reader.feed(probe.begin, theirs).unwrap();
    let raw = reader.next_record().unwrap().expect("a record where Postgres recovered to");
    let record = raw.decode(Version::V15).unwrap();
    assert_eq!(record.name(), "XLOG/CHECKPOINT_SHUTDOWN");
    CheckPoint::decode(record.main).unwrap().time
}

/// Puts the cluster, which was stopped cleanly, to where a compute starts: no WAL but a sparse segment with the
/// synthesised record after its last, and a `pg_control` made of the followed state.
fn replace_wal(cluster: &Cluster, base: &ControlFile, followed: &Followed) -> ShutdownCheckpoint {
    for entry in fs::read_dir(cluster.wal_folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    let made = synthesise(followed, base.system_id, 1_750_000_000);
    let mut pieces = segment_prefix(
        Version::V15,
        base.system_id,
        followed.state.timeline_id,
        SEGMENT_BYTES,
        made.begin,
    );
    pieces.push(wal_format::SegmentPiece { begin: made.begin, bytes: made.bytes.clone() });
    for piece in pieces {
        let mut at = piece.begin;
        let mut rest = &piece.bytes[..];
        while !rest.is_empty() {
            let segment = Segment::containing(1, at, SEGMENT_BYTES);
            let path = cluster.wal_folder().join(segment.file_name(SEGMENT_BYTES));
            let mut file = fs::read(&path).unwrap_or(vec![0; SEGMENT as usize]);
            let room = segment.end(SEGMENT_BYTES).since(at) as usize;
            let (here, later) = rest.split_at(rest.len().min(room));
            let offset = at.segment_offset(SEGMENT) as usize;
            file[offset..offset + here.len()].copy_from_slice(here);
            cluster.write(&path, &file);
            at += here.len() as u64;
            rest = later;
        }
    }
    let control = followed.state.control_file(base, made.redo, 1_750_000_000);
    cluster.write(&cluster.data().join("global/pg_control"), &control.encode());
    made
}

#[test]
fn the_checkpoint_is_the_one_that_crash_recovery_writes() {
    let settings =
        ["wal_level=logical", "max_prepared_transactions=5", "track_commit_timestamp=on"];
    let (cluster, start, state) = new_cluster(&settings);
    cluster.start();
    for _ in 0..3 {
        cluster.sql(COUNTERS);
        cluster.sql("CHECKPOINT;");
        cluster.sql(COUNTERS);
        crash_and_compare(&cluster, start, state);
    }
    cluster.stop("fast");
    fs::write(
        cluster.data().join("postgresql.auto.conf"),
        "track_commit_timestamp=off\nmax_connections=50\n",
    )
    .unwrap();
    // Recovery from a checkpoint with commit timestamps would keep them until it ends, so there is one without before.
    cluster.start();
    cluster.stop("fast");
    cluster.start();
    cluster.sql(COUNTERS);
    crash_and_compare(&cluster, start, state);
}

#[test]
fn the_checkpoint_is_the_one_of_recovery_at_every_boundary() {
    let (cluster, start, state) = new_cluster(&["max_wal_senders=0", "wal_level=minimal"]);
    cluster.start();
    cluster.sql("CREATE TABLE t (id int)");
    for (unit, left) in [
        (PAGE, 8),
        (PAGE, 16),
        (PAGE, 24),
        (PAGE, 32),
        (PAGE, 112),
        (PAGE, 0),
        (SEGMENT, 8),
        (SEGMENT, 16),
        (SEGMENT, 112),
        (SEGMENT, 120),
        (SEGMENT, 0),
    ] {
        let target = end_wal_at(&cluster, unit, left);
        assert_eq!(crash_and_compare(&cluster, start, state), target, "{left} bytes before");
    }
    cluster.sql("INSERT INTO t VALUES (1); SELECT pg_switch_wal();");
    let x = crash_and_compare(&cluster, start, state);
    assert_eq!(x.segment_offset(SEGMENT), 0, "after a switch");
}

/// Writes WAL so that its last record, a commit, ends `left` bytes before a multiple of `unit`.
fn end_wal_at(cluster: &Cluster, unit: u64, left: u64) -> Lsn {
    // A commit that nothing but a message precedes takes 34 bytes, 40 with its padding.
    const COMMIT: u64 = 40;
    const MESSAGE_SMALL: u64 = 24 + 2 + 24 + 2;
    const MESSAGE_LARGE: u64 = MESSAGE_SMALL + 3;
    // Begun anew on a fresh page, so that what the server does meanwhile has passed.
    let now: Lsn = cluster.sql("SELECT pg_current_wal_insert_lsn();").parse().unwrap();
    let target = Lsn((now.0 + 2 * PAGE).next_multiple_of(unit) - left);
    let length = (0..target.since(now))
        .rev()
        .find(|length| {
            let header =
                if MESSAGE_SMALL + length - 26 > 255 { MESSAGE_LARGE } else { MESSAGE_SMALL };
            advance(advance(now, header + length), COMMIT) == target
        })
        .expect("a length that ends there");
    cluster.sql(&format!("SELECT pg_logical_emit_message(true, 'p', repeat('m', {length}));"));
    target
}

/// The MAXALIGNed end of a record of so many bytes that is written after `at`.
fn advance(mut at: Lsn, bytes: u64) -> Lsn {
    let mut rest = bytes;
    loop {
        if at.page_offset() == 0 {
            at += if at.segment_offset(SEGMENT) == 0 { 40 } else { 24 };
        }
        let here = rest.min(PAGE - at.page_offset());
        at += here;
        rest -= here;
        if rest == 0 {
            return at.max_align();
        }
    }
}

#[test]
fn postgres_starts_from_the_synthesised_checkpoint() {
    let (cluster, start, state) = new_cluster(&["max_prepared_transactions=5"]);
    let base = cluster.control_file();
    cluster.start();
    cluster.sql(COUNTERS);
    cluster.stop("fast");
    let mut followed = follow(&cluster, start, state);
    for generation in 1..=3 {
        let x = followed.reader.record_end();
        let made = replace_wal(&cluster, &base, &followed);
        let printed = cluster.run("pg_controldata", &["-D", cluster.data().to_str().unwrap()]);
        assert!(!printed.contains("WARNING"), "{printed}");
        let logged = cluster.log().len();
        cluster.start();
        let log = cluster.log().split_off(logged);
        assert!(log.contains("database system was shut down at"), "{log}");
        assert!(!log.contains("redo"), "{log}");
        assert_eq!(cluster.sql("SELECT count(*) FROM t;"), (3 * generation).to_string());
        cluster.sql(COUNTERS);
        cluster.stop("fast");

        // The next generation's WAL begins where the synthesised record does.
        followed = follow(&cluster, made.redo, followed.state);
        assert!(followed.reader.record_end() > x);
        let control = cluster.control_file();
        assert_eq!(ControlState::from_control_file(&control), followed.state);
    }
    cluster.start();
    let host = cluster.data().parent().unwrap().to_str().unwrap().to_owned();
    cluster.run(
        "pg_amcheck",
        &["-h", &host, "-U", "postgres", "-a", "--heapallindexed", "--install-missing"],
    );
}
