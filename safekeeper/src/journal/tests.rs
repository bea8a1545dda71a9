use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use protocol::quorum::{Configuration, Member, TermHistory, TermStart};
use protocol::{BranchPoint, TenantId, Term, TimelineId, TimelineOrigin};
use wal_format::Lsn;

use super::*;
use crate::acceptor::{AcceptorState, Standing};

const TEST_SEGMENT_BYTES: u64 = 256 << 10;
const BEGIN: Lsn = Lsn(0x1000);

fn options() -> Options {
    Options {
        node: NodeId(1),
        identity: Identity::from_bits(0xD15C),
        segment_bytes: TEST_SEGMENT_BYTES,
        sync: File::sync_data,
    }
}

fn timeline(number: u128) -> TenantTimeline {
    TenantTimeline { tenant: TenantId::from_bits(0xAAAA), timeline: TimelineId::from_bits(number) }
}

fn state(end: Lsn) -> TimelineState {
    let point = BranchPoint { lsn: BEGIN, last_record: Lsn(0xF00) };
    let origin = TimelineOrigin { point, system_id: 7, segment_bytes: 16 << 20, major: 15 };
    let member = Member { node: NodeId(1), identity: Identity::from_bits(0xD15C) };
    let configuration = Configuration { generation: 1, members: vec![member] };
    let mut history = TermHistory::default();
    history.push(TermStart { term: Term(3), start: BEGIN }).expect("the first term");
    TimelineState {
        acceptor: AcceptorState {
            origin,
            configuration,
            standing: Standing::Member,
            term: Term(4),
            voted_for: Some(99),
            history,
            flush_lsn: end,
            commit_lsn: BEGIN,
            end_lsn: end,
        },
        local_start: BEGIN,
        offloaded_lsn: BEGIN,
        remote_consistent_lsn: BEGIN,
    }
}

fn wal(begin: Lsn, bytes: usize) -> WalEntry {
    let content: Vec<u8> = (0..bytes as u64).map(|at| ((begin.0 + at) % 251) as u8).collect();
    let flush_lsn = begin + bytes as u64;
    WalEntry { begin, flush_lsn, commit_lsn: begin, wal: content.into() }
}

/// Submits and waits until it is on disk.
fn write(journal: &Journal, entry: Entry) {
    let (done, written) = mpsc::channel();
    journal.submit(entry, Box::new(move |_| done.send(()).expect("the test waits")));
    written.recv_timeout(Duration::from_secs(120)).expect("the entry reaches the disk");
}

fn write_wal(journal: &Journal, id: TenantTimeline, begin: Lsn, bytes: usize) -> Lsn {
    write(journal, Entry::Wal(id, wal(begin, bytes)));
    begin + bytes as u64
}

/// Takes the end of the timeline, which checks the content of all of its WAL.
fn checked_end(recovered: &RecoveredTimeline) -> Lsn {
    let mut end = recovered.state.local_start;
    for extent in &recovered.extents {
        assert_eq!(extent.begin, end, "WAL is contiguous");
        let bytes = extent.read().expect("the entry is whole");
        let expected = wal(extent.begin, bytes.len()).wal;
        assert_eq!(bytes, expected);
        end = extent.end;
    }
    assert_eq!(end, recovered.state.acceptor.flush_lsn);
    end
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    Segment::path_in(&folder.join("journal"), number)
}

#[test]
fn a_journal_gives_back_what_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Journal::open(folder.path(), options()).expect("a new journal");
    assert!(opened.is_new);
    let mut end = BEGIN;
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    write(&opened.journal, Entry::State(timeline(2), Box::new(state(BEGIN))));
    for bytes in [1, 8, 100, 8192, 70_000, 100_000, 130_000] {
        end = write_wal(&opened.journal, timeline(1), end, bytes);
    }
    assert!(opened.journal.segments().1 >= 2, "the entries need more than one segment");
    drop(opened);
    for _ in 0..2 {
        let opened = Journal::open(folder.path(), options()).expect("the journal is whole");
        assert!(!opened.is_new);
        assert_eq!(checked_end(&opened.timelines[&timeline(1)]), end);
        assert_eq!(opened.timelines[&timeline(2)].state, state(BEGIN));
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let _opened = Journal::open(folder.path(), options()).expect("a new journal");
    assert!(matches!(Journal::open(folder.path(), options()), Err(Error::InUse(_))));
}

#[test]
fn another_nodes_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(Journal::open(folder.path(), options()).expect("a new journal"));
    let other = Options { node: NodeId(2), ..options() };
    assert!(matches!(Journal::open(folder.path(), other), Err(Error::OtherNode { .. })));
}

#[test]
fn a_torn_tail_is_cut_at_whatever_byte_the_file_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = Options { segment_bytes: 8 << 10, ..options() };
    let opened = Journal::open(folder.path(), small).expect("a new journal");
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    let mut ends = vec![BEGIN];
    for bytes in [40, 333, 64] {
        ends.push(write_wal(&opened.journal, timeline(1), ends[ends.len() - 1], bytes));
    }
    drop(opened);
    let path = segment_path(folder.path(), 1);
    let whole = std::fs::read(&path).expect("the segment is there");
    let last = whole.iter().rposition(|&byte| byte != 0).expect("the segment is not empty") + 1;
    let first_entry = entry::padded(32) + entry::padded(state(BEGIN).encoded_bytes());
    let mut seen = Vec::new();
    for length in first_entry..last {
        std::fs::write(&path, &whole[..length]).expect("the file is ours");
        let opened = Journal::open(folder.path(), small).expect("a torn tail is no damage");
        let end = checked_end(&opened.timelines[&timeline(1)]);
        assert!(ends.contains(&end), "cut at {length}: the log ends inside an entry, at {end}");
        seen.push(end);
        // What is written behind the cut is found again, and nothing else.
        let new_end = write_wal(&opened.journal, timeline(1), end, 24);
        drop(opened);
        let opened = Journal::open(folder.path(), small).expect("the journal is whole");
        assert_eq!(checked_end(&opened.timelines[&timeline(1)]), new_end);
    }
    assert!(seen.is_sorted());
    seen.dedup();
    assert_eq!(seen, ends);
}

#[test]
fn a_stale_entry_behind_a_torn_one_never_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Journal::open(folder.path(), options()).expect("a new journal");
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    // Two entries of one batch: neither says of the other that it was on disk.
    let (done, written) = mpsc::channel();
    let offset = opened.journal.shared.queue.lock().waiting.len();
    assert_eq!(offset, 0);
    {
        let mut queue = opened.journal.shared.queue.lock();
        for begin in [BEGIN, BEGIN + 40] {
            let done = done.clone();
            let done = Box::new(move |placed: Placed| {
                done.send(placed.offset).expect("the test waits");
            });
            queue.waiting.push(Submission {
                entry: Entry::Wal(timeline(1), wal(begin, 40)),
                at: std::time::Instant::now(),
                done,
            });
        }
        opened.journal.shared.submitted.notify_one();
    }
    let offsets: Vec<u64> = written.iter().take(2).collect();
    let path = segment_path(folder.path(), 1);
    let before_mark = std::fs::read(&path).expect("the segment is there");
    drop(opened);
    // The power went before the mark: the first of the two is torn, the second whole.
    let mut torn = before_mark;
    let second_end = offsets[1] as usize + entry::padded(24 + 40);
    torn[second_end..].fill(0);
    torn[offsets[0] as usize + 80] ^= 1;
    std::fs::write(&path, &torn).expect("the file is ours");
    let opened = Journal::open(folder.path(), options()).expect("nobody was told of either");
    assert_eq!(checked_end(&opened.timelines[&timeline(1)]), BEGIN);
    // Another entry of the torn one's length: the stale one would follow it.
    write_wal(&opened.journal, timeline(1), BEGIN, 40);
    drop(opened);
    let opened = Journal::open(folder.path(), options()).expect("the journal is whole");
    assert_eq!(checked_end(&opened.timelines[&timeline(1)]), BEGIN + 40);
}

#[test]
fn damage_before_the_tail_is_found_at_every_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = Options { segment_bytes: 8 << 10, ..options() };
    let opened = Journal::open(folder.path(), small).expect("a new journal");
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    let end = write_wal(&opened.journal, timeline(1), BEGIN, 100);
    write_wal(&opened.journal, timeline(1), end, 50);
    drop(opened);
    let path = segment_path(folder.path(), 1);
    let whole = std::fs::read(&path).expect("the segment is there");
    // The last entry is the mark of the orderly end: it alone may be torn.
    let last = whole.iter().rposition(|&byte| byte != 0).expect("the segment is not empty") + 1;
    let mark = last.next_multiple_of(8) - entry::padded(8);
    for at in 0..mark {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&path, &damaged).expect("the file is ours");
        match Journal::open(folder.path(), small) {
            Err(Error::Journal { segment: 1, offset, .. }) => assert!(offset <= at as u64),
            Err(other) => panic!("damage at {at} gave {other}"),
            // The gap behind an entry says nothing.
            Ok(opened) => {
                assert_eq!(checked_end(&opened.timelines[&timeline(1)]), BEGIN + 150);
                assert_eq!(whole[at], 0, "damage at {at} went unseen");
            }
        }
    }
}

#[test]
fn damage_in_an_older_segment_and_a_missing_segment_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Journal::open(folder.path(), options()).expect("a new journal");
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    let mut end = BEGIN;
    for _ in 0..9 {
        end = write_wal(&opened.journal, timeline(1), end, 100_000);
    }
    assert!(opened.journal.segments().1 >= 4);
    drop(opened);
    let second = segment_path(folder.path(), 2);
    let whole = std::fs::read(&second).expect("the segment is there");
    let mut damaged = whole.clone();
    // The last entry of its segment: nothing in the segment follows it.
    damaged[150_000] ^= 1;
    std::fs::write(&second, damaged).expect("the file is ours");
    let found = Journal::open(folder.path(), options()).err().expect("damage is found");
    assert!(matches!(found, Error::Journal { segment: 2, .. }), "{found}");
    std::fs::remove_file(&second).expect("the file is ours");
    let found = Journal::open(folder.path(), options()).err().expect("the gap is found");
    assert!(matches!(found, Error::Journal { segment: 1, .. }), "{found}");
    let first = segment_path(folder.path(), 1);
    std::fs::write(&second, whole).expect("the file is ours");
    std::fs::remove_file(&first).expect("the file is ours");
    assert!(matches!(Journal::open(folder.path(), options()), Err(Error::Journal { .. })));
}

#[test]
fn a_damaged_journal_is_put_aside_and_a_new_one_has_another_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(Journal::open(folder.path(), options()).expect("a new journal"));
    for _ in 0..2 {
        let kept = Journal::give_up(folder.path()).expect("the folder is ours");
        assert!(kept.join("0000000001.segment").exists());
        let renewed = Options { identity: Identity::from_bits(0xE77), ..options() };
        let opened = Journal::open(folder.path(), renewed).expect("a new journal");
        assert!(opened.is_new);
        assert_eq!(opened.journal.identity(), Identity::from_bits(0xE77));
    }
}

#[test]
fn old_segments_go_once_nothing_needs_them_and_are_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Journal::open(folder.path(), options()).expect("a new journal");
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    let mut end = BEGIN;
    for _ in 0..40 {
        end = write_wal(&opened.journal, timeline(1), end, 60_000);
        let kept = TimelineState { local_start: end, offloaded_lsn: end, ..state(end) };
        write(&opened.journal, Entry::State(timeline(1), Box::new(kept)));
        let (_, newest) = opened.journal.segments();
        opened.journal.remove_before(newest);
    }
    write(&opened.journal, Entry::Mark { oldest: 0 });
    let (oldest, newest) = opened.journal.segments();
    assert!(newest > 8 && newest - oldest <= 1, "segments {oldest} to {newest} are left");
    drop(opened);
    let opened = Journal::open(folder.path(), options()).expect("the journal is whole");
    assert_eq!(checked_end(&opened.timelines[&timeline(1)]), end);
    assert!(opened.timelines[&timeline(1)].extents.is_empty());
}

#[test]
fn a_state_cuts_the_log_also_when_it_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Journal::open(folder.path(), options()).expect("a new journal");
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    let end = write_wal(&opened.journal, timeline(1), BEGIN, 100);
    write_wal(&opened.journal, timeline(1), end, 100);
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN + 150))));
    drop(opened);
    let opened = Journal::open(folder.path(), options()).expect("the journal is whole");
    assert_eq!(checked_end(&opened.timelines[&timeline(1)]), BEGIN + 150);
}

#[test]
fn a_forgotten_timeline_does_not_come_back_and_may_begin_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Journal::open(folder.path(), options()).expect("a new journal");
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    write_wal(&opened.journal, timeline(1), BEGIN, 100);
    write(&opened.journal, Entry::Forget(timeline(1)));
    drop(opened);
    let opened = Journal::open(folder.path(), options()).expect("the journal is whole");
    assert!(opened.timelines.is_empty());
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    drop(opened);
    let opened = Journal::open(folder.path(), options()).expect("the journal is whole");
    assert_eq!(checked_end(&opened.timelines[&timeline(1)]), BEGIN);
}

#[test]
fn an_unfinished_record_is_dropped_when_the_journal_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Journal::open(folder.path(), options()).expect("a new journal");
    write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
    let entry = WalEntry { flush_lsn: BEGIN + 64, ..wal(BEGIN, 100) };
    write(&opened.journal, Entry::Wal(timeline(1), entry));
    drop(opened);
    let opened = Journal::open(folder.path(), options()).expect("the journal is whole");
    let recovered = &opened.timelines[&timeline(1)];
    assert_eq!(checked_end(recovered), BEGIN + 64);
    assert_eq!(recovered.state.acceptor.end_lsn, BEGIN + 64);
}

static SLOW_SYNCS: AtomicUsize = AtomicUsize::new(0);

fn slow_sync(file: &File) -> std::io::Result<()> {
    SLOW_SYNCS.fetch_add(1, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(100));
    file.sync_data()
}

#[test]
fn what_waits_side_by_side_shares_one_fdatasync() {
    let folder = tempfile::tempdir().expect("a folder");
    let slow = Options { sync: slow_sync, ..options() };
    let opened = Journal::open(folder.path(), slow).expect("a new journal");
    let before = SLOW_SYNCS.load(Ordering::Relaxed);
    let (done, written) = mpsc::channel();
    // The first is on its way to the disk while the other eight arrive.
    for number in 0..9 {
        let done = done.clone();
        let state = Entry::State(timeline(number), Box::new(state(BEGIN)));
        let done = Box::new(move |_| done.send(number).expect("the test waits"));
        opened.journal.submit(state, done);
        if number == 0 {
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    let answered: Vec<u128> = written.iter().take(9).collect();
    assert!(answered.is_sorted());
    assert_eq!(SLOW_SYNCS.load(Ordering::Relaxed) - before, 2);
}

/// Set for the child processes of the tests below: what they do, and in which folder.
const CHILD: &str = "SAFEKEEPER_JOURNAL_CHILD";

fn child(task: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test's own program"));
    command
        .args(["--exact", "journal::tests::a_child_process_works_for_the_tests", "--nocapture"])
        .env(CHILD, format!("{task}:{}", folder.display()));
    command
}

#[test]
fn a_child_process_works_for_the_tests() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (task, folder) = order.split_once(':').expect("a task and a folder");
    match task {
        "append" => append_for_ever(Path::new(folder)),
        "fail" => append_to_a_failing_disk(Path::new(folder)),
        other => panic!("unknown task {other}"),
    }
}

/// Appends, and notes in a file beside the journal what was acknowledged.
fn append_for_ever(folder: &Path) {
    let opened = Journal::open(folder, options()).expect("the journal opens");
    let mut end = match opened.timelines.get(&timeline(1)) {
        Some(recovered) => checked_end(recovered),
        None => {
            write(&opened.journal, Entry::State(timeline(1), Box::new(state(BEGIN))));
            BEGIN
        }
    };
    let acknowledged = File::create(folder.join("acknowledged")).expect("the file is ours");
    for turn in 0.. {
        end = write_wal(&opened.journal, timeline(1), end, 100 + turn % 5000);
        acknowledged.write_all_at(&end.0.to_le_bytes(), 0).expect("the file is ours");
    }
}

#[test]
fn what_was_acknowledged_outlives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..6u64 {
        let mut writer = child("append", folder.path()).spawn().expect("the test's own program");
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        writer.kill().expect("the child is ours");
        writer.wait().expect("the child is ours");
        let Ok(acknowledged) = std::fs::read(folder.path().join("acknowledged")) else { continue };
        let Ok(acknowledged) = acknowledged.try_into().map(u64::from_le_bytes) else { continue };
        let opened = Journal::open(folder.path(), options()).expect("a kill is no damage");
        let end = checked_end(&opened.timelines[&timeline(1)]);
        assert!(end >= Lsn(acknowledged), "round {round}: {end} is below what was acknowledged");
    }
}

static FAILING_SYNCS: AtomicUsize = AtomicUsize::new(0);

fn failing_sync(_: &File) -> std::io::Result<()> {
    match FAILING_SYNCS.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(()),
        _ => Err(std::io::Error::from_raw_os_error(5)),
    }
}

fn append_to_a_failing_disk(folder: &Path) {
    let failing = Options { sync: failing_sync, ..options() };
    let opened = Journal::open(folder, failing).expect("a new journal");
    let told = folder.join("told");
    let done = Box::new(move |_| std::fs::write(told, "durable").expect("the file is ours"));
    opened.journal.submit(Entry::State(timeline(1), Box::new(state(BEGIN))), done);
    std::thread::sleep(Duration::from_secs(20));
}

#[test]
fn a_failed_fdatasync_ends_the_process_and_nobody_is_told() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().expect("a folder");
    let output = child("fail", folder.path()).output().expect("the test's own program");
    assert_eq!(output.status.signal(), Some(6), "the process aborts: {output:?}");
    assert!(!folder.path().join("told").exists());
}

#[test]
fn a_state_is_read_back_as_it_was_written() {
    let mut state = state(BEGIN + 50);
    state.acceptor.voted_for = None;
    state.acceptor.standing = Standing::Recovering;
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    assert_eq!(bytes.len(), state.encoded_bytes());
    let bytes = Bytes::from(bytes);
    assert_eq!(TimelineState::decode(bytes.clone()), Ok(state));
    for length in 0..bytes.len() {
        assert!(TimelineState::decode(bytes.slice(..length)).is_err());
    }
}
