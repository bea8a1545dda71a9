//! The proposer and its mount, with real safekeepers.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use wal_format::{DEFAULT_SEGMENT_BYTES, Segment};

use super::*;
use crate::{
    head::settled_head,
    test_quorum::{Quorum, timeline},
    test_wal::{TestWal, origin_at},
};

const BEGIN: Lsn = Lsn(0x0200_1FA0);
/// Long enough for anything that is not held.
const SOON: Duration = Duration::from_secs(120);
/// Long enough to see that something is held.
const HELD: Duration = Duration::from_millis(400);

/// A compute but for Postgres, whose writes the test makes.
struct Compute {
    proposer: WalProposer,
    elected: Elected,
    wal: TestWal,
    /// What was last written to the mount.
    written: Lsn,
    mount: Option<WalMount>,
    folder: TempDir,
}

impl Compute {
    /// Elects, writes a first record, mounts.
    async fn start(quorum: &Quorum, last_record: Lsn, name: &str) -> Compute {
        let (proposer, elected) = quorum.elect(origin_at(BEGIN), name).await;
        let mut wal = TestWal::new(elected.position, last_record, elected.term.0 as i64);
        let written = wal.record();
        let start =
            StartWal { begin: elected.position, bytes: wal.bytes.clone().into(), last_record };
        timeout(SOON, proposer.start_at(start)).await.expect("in time").expect("it starts");
        let folder = tempfile::tempdir().expect("a folder is made");
        let mount = proposer.mount(folder.path(), 1234, 4321).expect("it mounts");
        Compute { proposer, elected, wal, written, mount: Some(mount), folder }
    }

    async fn first(quorum: &Quorum) -> Compute {
        Compute::start(quorum, origin_at(BEGIN).point.last_record, "first").await
    }

    fn path(&self, lsn: Lsn) -> PathBuf {
        let segment = Segment::containing(1, lsn, DEFAULT_SEGMENT_BYTES);
        self.folder.path().join(segment.file_name(DEFAULT_SEGMENT_BYTES))
    }

    /// Writes what was added to the WAL as Postgres does, in whole pages, a new segment by a
    /// temporary file; gives the last segment.
    fn write(&mut self, flags: i32) -> io::Result<File> {
        let (mut at, pages) = self.wal.pages_from(self.written);
        let segment_bytes = u64::from(DEFAULT_SEGMENT_BYTES);
        let mut rest = &pages[..];
        loop {
            let path = self.path(at);
            if !path.exists() {
                let temporary = self.folder.path().join("xlogtemp.77");
                let new = File::options().write(true).create_new(true).open(&temporary)?;
                new.write_all_at(&[0], segment_bytes - 1)?;
                new.sync_data()?;
                fs::rename(&temporary, &path)?;
                File::open(self.folder.path())?.sync_all()?;
            }
            let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
            let room = (segment_bytes - at.segment_offset(segment_bytes)) as usize;
            let (here, later) = rest.split_at(room.min(rest.len()));
            file.write_all_at(here, at.segment_offset(segment_bytes))?;
            if later.is_empty() {
                self.written = self.wal.end();
                return Ok(file);
            }
            at += here.len() as u64;
            rest = later;
        }
    }

    /// Adds a record and commits it; the answer comes when the quorum has it.
    fn commit(&mut self) -> JoinHandle<io::Result<()>> {
        self.wal.record();
        let file = self.write(0).expect("the write is taken");
        spawn_blocking(move || file.sync_data())
    }

    async fn end(mut self) {
        self.proposer.shutdown().await;
        let mount = self.mount.take().expect("it is mounted");
        spawn_blocking(move || mount.unmount()).await.expect("no panic").expect("it unmounts");
    }
}

async fn committed(commit: JoinHandle<io::Result<()>>) {
    timeout(SOON, commit).await.expect("in time").expect("no panic").expect("it is committed");
}

fn is_eio<T>(outcome: &io::Result<T>) -> bool {
    outcome.as_ref().err().and_then(io::Error::raw_os_error) == Some(libc::EIO)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_for_a_quorum_and_goes_on_when_it_is_back() {
    let mut quorum = Quorum::start().await;
    let mut compute = Compute::first(&quorum).await;
    committed(compute.commit()).await;
    quorum.stop_one(0).await;
    committed(compute.commit()).await;
    quorum.stop_one(1).await;
    let mut waiting = compute.commit();
    assert!(timeout(HELD, &mut waiting).await.is_err(), "one of three is no quorum");
    assert!(compute.proposer.commit_lsn() < compute.wal.end());
    quorum.start_one(0).await;
    committed(waiting).await;
    assert_eq!(compute.proposer.commit_lsn(), compute.wal.end());
    compute.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_dsync_waits_for_a_quorum_too() {
    let mut quorum = Quorum::start().await;
    let mut compute = Compute::first(&quorum).await;
    quorum.stop_one(0).await;
    quorum.stop_one(1).await;
    compute.wal.record();
    let mut waiting = spawn_blocking(move || {
        let written = compute.write(libc::O_DSYNC | libc::O_DIRECT).map(drop);
        // Direct I/O needs aligned memory; what is tested then is the flag without it.
        let written = written.or_else(|_| compute.write(libc::O_DSYNC).map(drop));
        (compute, written)
    });
    assert!(timeout(HELD, &mut waiting).await.is_err(), "one of three is no quorum");
    quorum.start_one(1).await;
    let (compute, written) = timeout(SOON, waiting).await.expect("in time").expect("no panic");
    written.expect("it is committed");
    compute.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_computes_wins_and_the_earlier_answers_eio() {
    let mut quorum = Quorum::start().await;
    let mut first = Compute::first(&quorum).await;
    for _ in 0..50 {
        committed(first.commit()).await;
    }
    // One that waits when it is fenced is never told that it was committed.
    quorum.stop_one(0).await;
    quorum.stop_one(1).await;
    let end = first.wal.end();
    let waiting = first.commit();
    sleep(Duration::from_millis(50)).await;
    quorum.stop_one(2).await;
    quorum.start_one(0).await;
    quorum.start_one(1).await;
    // The first one may reach the two before they hear of the second: then it may be committed.
    let second = Compute::start(&quorum, first.wal.last_record, "second");
    let second = timeout(SOON, second).await.expect("the second is elected");
    let outcome = timeout(SOON, waiting).await.expect("in time").expect("no panic");
    // What was acknowledged is there. What was not may be there all the same: a safekeeper may have
    // it on disk, and be fenced before its answer counts.
    assert!(is_eio(&outcome) || second.elected.position > end, "{outcome:?}");
    assert!(is_eio(&outcome) || outcome.is_ok(), "{outcome:?}");
    let fenced = timeout(SOON, first.proposer.fenced()).await.expect("in time");
    let known = second.elected.term;
    assert_eq!(fenced, Fenced::Newer { ours: first.elected.term, known });
    first.wal.record();
    assert!(is_eio(&first.write(0)));
    let file = File::options().write(true).open(first.path(end)).expect("it is still there");
    assert!(is_eio(&file.sync_data()));
    second.end().await;
    first.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_finds_all_that_was_committed() {
    let quorum = Quorum::start().await;
    let mut first = Compute::first(&quorum).await;
    for _ in 0..20 {
        committed(first.commit()).await;
    }
    let (end, last_record) = (first.wal.end(), first.wal.last_record);
    let wal = first.wal.clone();
    first.end().await;
    let second = Compute::start(&quorum, last_record, "second").await;
    assert_eq!(second.elected.position, end);
    let read = second.proposer.read_committed(BEGIN, end).await.expect("it is there");
    assert_eq!(read, wal.bytes);
    second.end().await;
    // A shutdown checkpoint that ends the WAL is used again: nothing is added.
    let (third, elected) = quorum.elect(origin_at(BEGIN), "third").await;
    let last = third.read_committed(end, elected.position).await.expect("it is there");
    let start = StartWal { begin: end, bytes: last, last_record: end };
    timeout(SOON, third.start_at(start)).await.expect("in time").expect("it starts");
    assert_eq!(third.written_lsn(), elected.position);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_needs_removed_wal_is_fed_by_another() {
    let mut quorum = Quorum::start().await;
    let mut compute = Compute::first(&quorum).await;
    committed(compute.commit()).await;
    quorum.stop_one(2).await;
    // Into the third segment; then the first two go, as after a checkpoint.
    compute.wal.records_to(Lsn(0x0400_4000));
    let mut compute = spawn_blocking(move || {
        compute.write(0).expect("the writes are taken").sync_data().expect("it is committed");
        compute
    })
    .await
    .expect("no panic");
    for segment in [Lsn(0x0200_0000), Lsn(0x0300_0000)] {
        fs::remove_file(compute.path(segment)).expect("it is removed");
    }
    quorum.start_one(2).await;
    quorum.stop_one(0).await;
    committed(compute.commit()).await;
    let flushed = compute.proposer.flush_lsns();
    assert_eq!(flushed.get(2), Some(&Some(compute.wal.end())));
    compute.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_lost_is_replaced_while_commits_go_on() {
    let mut quorum = Quorum::start().await;
    let mut compute = Compute::first(&quorum).await;
    committed(compute.commit()).await;
    quorum.stop_one(1).await;
    quorum.wipe(1);
    committed(compute.commit()).await;
    quorum.start_one(1).await;
    let joined = async {
        while compute.proposer.flush_lsns()[1].is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, joined).await.expect("it is admitted and joins the term");
    quorum.stop_one(0).await;
    committed(compute.commit()).await;
    compute.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_sent_cannot_be_written_anew() {
    let quorum = Quorum::start().await;
    let mut compute = Compute::first(&quorum).await;
    committed(compute.commit()).await;
    let file = File::options().write(true).open(compute.path(BEGIN)).expect("it is there");
    let offset = BEGIN.segment_offset(u64::from(DEFAULT_SEGMENT_BYTES)) + 150;
    assert!(is_eio(&file.write_all_at(b"another history", offset)));
    let fenced = timeout(SOON, compute.proposer.fenced()).await.expect("in time");
    assert!(matches!(fenced, Fenced::Broken(_)), "{fenced}");
    assert!(is_eio(&file.sync_data()));
    compute.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_an_ordinary_one_for_all_else() {
    let quorum = Quorum::start().await;
    let compute = Compute::first(&quorum).await;
    let root = compute.folder.path().to_owned();
    let segment = compute.path(BEGIN);
    spawn_blocking(move || {
        let metadata = fs::metadata(&segment).expect("it is there");
        assert_eq!((metadata.uid(), metadata.gid(), metadata.len()), (1234, 4321, 16 << 20));
        let refused = File::options().write(true).open(&segment).and_then(|file| file.set_len(1));
        assert!(refused.is_err(), "a segment was cut off");
        let foreign = root.join("000000020000000000000002");
        assert!(File::create(&foreign).is_err(), "a segment of another timeline was made");

        let note = root.join("archive_status/000000010000000000000002.ready");
        fs::write(&note, b"").expect("it is written");
        fs::rename(&note, note.with_extension("done")).expect("it is renamed");
        for index in 0..300 {
            fs::write(root.join(format!("archive_status/{index}.ready")), b"x").expect("written");
        }
        // As Postgres does: files go while their folder is read.
        for entry in fs::read_dir(root.join("archive_status")).expect("it is read") {
            fs::remove_file(entry.expect("each entry is there").path()).expect("it is removed");
        }
        assert_eq!(fs::read_dir(root.join("archive_status")).expect("it is read").count(), 0);

        let (one, other) = (root.join("one"), root.join("other"));
        fs::write(&one, b"one").expect("it is written");
        fs::write(&other, b"other").expect("it is written");
        let open = File::options().read(true).write(true).open(&other).expect("it is opened");
        fs::rename(&one, &other).expect("it is renamed over the other");
        assert_eq!(fs::read(&other).expect("it is read"), b"one");
        fs::remove_file(&other).expect("it is removed");
        let mut still = [0; 5];
        open.read_exact_at(&mut still, 0).expect("an open file outlives its name");
        assert_eq!((&still, open.metadata().expect("its size").len()), (b"other", 5));
        open.set_len(2).expect("it is cut");
        open.sync_all().expect("nothing waits for it");
        let mut names: Vec<_> = fs::read_dir(&root)
            .expect("it is read")
            .map(|entry| entry.expect("each entry is there").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["000000010000000000000002", "archive_status"]);
        let space = nix::sys::statvfs::statvfs(&root).expect("its space is told");
        assert!(space.blocks_available() > 0);
    })
    .await
    .expect("the test's expectations");
    compute.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settled_head_has_the_last_acknowledged_commit() {
    let mut quorum = Quorum::start().await;
    let origin = origin_at(BEGIN);
    let addresses = quorum.addresses.clone();
    let nobody = Bearer::nobody();
    let head = || settled_head(timeline(), origin, (&addresses, &nobody), SOON);
    let unwritten = head().await.expect("all answer");
    assert_eq!((unwritten.lsn, unwritten.term), (BEGIN, Term(0)));

    let mut compute = Compute::first(&quorum).await;
    for _ in 0..20 {
        committed(compute.commit()).await;
        let alive = head().await.expect("a quorum answers");
        assert_eq!((alive.lsn, alive.term), (compute.wal.end(), compute.elected.term));
    }
    quorum.stop_one(0).await;
    committed(compute.commit()).await;
    let end = compute.wal.end();
    assert_eq!(head().await.expect("a quorum answers").lsn, end);
    compute.end().await;
    assert_eq!(head().await.expect("a quorum answers").lsn, end);
    // The one that lacks the last commit is back, one that has it is gone: only an election can tell.
    quorum.stop_one(1).await;
    quorum.start_one(0).await;
    assert_eq!(head().await.expect("a quorum answers").lsn, end);
    quorum.stop_one(0).await;
    let alone =
        settled_head(timeline(), origin, (&addresses, &Bearer::nobody()), Duration::from_secs(1))
            .await;
    assert!(matches!(alone, Err(ShimError::Unavailable(_))), "{alone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_stand_at_once_each_is_elected_or_gives_way() {
    let quorum = Quorum::start().await;
    let stand =
        |name: usize| WalProposer::elect(quorum.config(origin_at(BEGIN), &name.to_string()));
    let outcomes = futures::future::join_all((0..4).map(stand)).await;
    let terms: Vec<Term> =
        outcomes.iter().filter_map(|it| it.as_ref().ok()).map(|(_, won)| won.term).collect();
    let newest = terms.iter().max().copied().expect("somebody was elected");
    for (proposer, elected) in outcomes.into_iter().flatten() {
        if elected.term < newest {
            let fenced = timeout(SOON, proposer.fenced()).await.expect("in time");
            assert!(matches!(fenced, Fenced::Newer { .. }), "{fenced}");
        }
    }
    let distinct: std::collections::BTreeSet<_> = terms.iter().collect();
    assert_eq!(distinct.len(), terms.len(), "a term was won twice");
}
