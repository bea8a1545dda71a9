//! Stock Postgres with its `pg_wal` on the mount and three real safekeepers; its pages are plain
//! files, so that only the WAL is new to it.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use protocol::{BranchPoint, TimelineOrigin};
use tempfile::TempDir;
use tokio::{task::spawn_blocking, time::sleep};
use wal_format::{ControlFile, Lsn, Segment, Version, WalReader};

use crate::{
    StartWal, WalMount, WalProposer,
    folder::own,
    postgres::{HBA, Machine, Postmaster, Stop, command_line},
    test_quorum::Quorum,
};

const CLIENTS: &str = "8";

/// A cluster that `initdb` made, with its WAL on the mount.
struct Cluster {
    machine: Machine,
    folder: TempDir,
    origin: TimelineOrigin,
    proposer: WalProposer,
    mount: WalMount,
    postmaster: Postmaster,
}

/// What a test's threads need of a cluster.
#[derive(Clone)]
struct Client {
    bin: PathBuf,
    /// The folder of the Unix socket, which asks for no password.
    sockets: PathBuf,
    port: String,
}

impl Client {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-h").arg(&self.sockets).args(["-p", &self.port, "-U", "postgres"]);
        command.current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn sql(&self, sql: &str) -> String {
        let arguments = ["-X", "-A", "-t", "-q", "-d", "postgres", "-c", sql];
        let output = self.command("psql").args(arguments).output().expect("psql is there");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn pgbench(&self, arguments: &[&str]) -> Output {
        let output = self.command("pgbench").args(arguments).arg("postgres").output();
        output.expect("pgbench is there")
    }
}

fn run_as(machine: &Machine, program: &Path, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .uid(machine.owner.uid)
        .gid(machine.owner.gid)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .expect("the program is there");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", program.display());
}

impl Cluster {
    async fn start(quorum: &Quorum) -> Cluster {
        let machine = Machine::check(None, None, SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("the machine can run computes");
        let folder = tempfile::tempdir().expect("a folder is made");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
        let data = folder.path().join("data");
        let bin = machine.postgres.parent().expect("a program is in a folder");
        let arguments = ["--no-sync", "--no-instructions", "--auth=trust", "-U", "postgres", "-D"];
        let arguments: Vec<_> = arguments.into_iter().chain(data.to_str()).collect();
        run_as(&machine, &bin.join("initdb"), &arguments);

        let control = fs::read(data.join("global/pg_control")).expect("initdb wrote it");
        let control = ControlFile::decode(&control).expect("it is valid");
        let segment_bytes = control.geometry.wal_segment_bytes;
        let start = control.checkpoint;
        let (end, bytes) = last_record(&data.join("pg_wal"), start, segment_bytes);
        let origin = TimelineOrigin {
            point: BranchPoint { lsn: end, last_record: start },
            system_id: control.system_id,
            segment_bytes,
            major: 15,
        };
        let (proposer, elected) = quorum.elect(origin, "postgres").await;
        assert_eq!(elected.position, end);
        let wal = StartWal { begin: start, bytes: bytes.into(), last_record: start };
        proposer.start_at(wal).await.expect("it starts");
        let pg_wal = data.join("pg_wal");
        let mount =
            proposer.mount(&pg_wal, machine.owner.uid, machine.owner.gid).expect("it mounts");

        fs::write(data.join("pg_hba.conf"), HBA).expect("it is written");
        own(&data.join("pg_hba.conf"), machine.owner).expect("it is given");
        let mut arguments = command_line(&data, folder.path(), machine.listen, &[], &[], &[]);
        // A compute begins anew after a crash; what the mount promises holds for a restart in place.
        arguments.extend(["-c".to_owned(), "restart_after_crash=on".to_owned()]);
        let log = folder.path().join("log");
        let mut postmaster =
            Postmaster::start(&machine.postgres, &arguments, &[], machine.owner, &[], &data, &log)
                .await
                .expect("Postgres starts");
        postmaster.ready().await.expect("Postgres accepts connections");
        Cluster { machine, folder, origin, proposer, mount, postmaster }
    }

    fn client(&self) -> Client {
        let bin = self.machine.postgres.parent().expect("a program is in a folder").to_owned();
        let sockets = self.folder.path().to_owned();
        Client { bin, sockets, port: self.machine.listen.port().to_string() }
    }

    /// The bytes that Postgres has written, from the segments.
    fn local(&self, from: Lsn, to: Lsn) -> Vec<u8> {
        let mut wal = Vec::new();
        let mut at = from;
        while at < to {
            let segment = Segment::containing(1, at, self.origin.segment_bytes);
            let name = segment.file_name(self.origin.segment_bytes);
            let path = self.folder.path().join("data/pg_wal").join(name);
            let bytes = fs::read(path).expect("the segment is there");
            let end = to.min(segment.end(self.origin.segment_bytes));
            let first = at.segment_offset(u64::from(self.origin.segment_bytes)) as usize;
            wal.extend_from_slice(&bytes[first..first + end.since(at) as usize]);
            at = end;
        }
        wal
    }

    /// Whether no complete record lies between what is committed and what Postgres calls flushed.
    fn flushed_is_committed(&self, flushed: Lsn) -> bool {
        let commit = self.proposer.commit_lsn();
        if flushed <= commit {
            return true;
        }
        let mut reader = WalReader::new(Version::V15, self.origin.segment_bytes, commit, None);
        reader.feed(commit, &self.local(commit, flushed)).expect("it is fed from its start");
        matches!(reader.next_record_before(commit), Ok(None))
    }

    async fn stop(self) {
        assert!(self.postmaster.stop(Stop::Fast).await, "Postgres did not stop cleanly");
        assert_eq!(self.proposer.commit_lsn(), self.proposer.written_lsn());
        // The quorum has what Postgres wrote, byte for byte, and it ends in a shutdown checkpoint.
        let (begin, end) = (self.origin.point.lsn, self.proposer.commit_lsn());
        let wal = self.proposer.read_committed(begin, end).await.expect("it is there");
        let control = fs::read(self.folder.path().join("data/global/pg_control"));
        let control = ControlFile::decode(&control.expect("it is there")).expect("it is valid");
        let last = self.local(control.checkpoint, end);
        assert!(wal.ends_with(&last), "the quorum has other WAL than Postgres");
        assert!(end.since(control.checkpoint) < 200, "the WAL does not end in a checkpoint");
        self.proposer.shutdown().await;
        let mount = self.mount;
        spawn_blocking(move || mount.unmount()).await.expect("no panic").expect("it unmounts");
    }
}

/// The end and the bytes of the record at `start`, which is the last one.
fn last_record(pg_wal: &Path, start: Lsn, segment_bytes: u32) -> (Lsn, Vec<u8>) {
    let segment = Segment::containing(1, start, segment_bytes);
    let wal = fs::read(pg_wal.join(segment.file_name(segment_bytes))).expect("it is there");
    let rest = &wal[start.segment_offset(u64::from(segment_bytes)) as usize..];
    let mut reader = WalReader::new(Version::V15, segment_bytes, start, None);
    reader.feed(start, &rest[..8192.min(rest.len())]).expect("it is fed from its start");
    let record = reader.next_record().expect("it is valid").expect("it is complete");
    (record.end, rest[..record.end.since(start) as usize].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_flushed_under_load_is_what_the_quorum_has() {
    let mut quorum = Quorum::start().await;
    let cluster = Cluster::start(&quorum).await;
    let client = cluster.client();
    let load = {
        let client = client.clone();
        spawn_blocking(move || {
            assert!(client.pgbench(&["-i", "-s", "2", "-q"]).status.success());
            client.pgbench(&["-c", CLIENTS, "-j", "2", "-T", "12", "--no-vacuum"])
        })
    };
    let mut held_in_the_middle = 0;
    while !load.is_finished() {
        sleep(Duration::from_millis(700)).await;
        quorum.stop_one(0).await;
        quorum.stop_one(1).await;
        // Nothing is flushed any more: what is flushed now has been acknowledged before.
        sleep(Duration::from_millis(200)).await;
        let client = client.clone();
        let flushed = spawn_blocking(move || client.sql("select pg_current_wal_flush_lsn()"))
            .await
            .expect("readers go on");
        let flushed: Lsn = flushed.parse().expect("Postgres writes LSNs");
        assert!(cluster.flushed_is_committed(flushed), "{flushed} is flushed, not committed");
        held_in_the_middle += usize::from(cluster.proposer.written_lsn() > flushed);
        quorum.start_one(0).await;
        quorum.start_one(1).await;
    }
    assert!(load.await.expect("no panic").status.success(), "pgbench failed");
    assert!(held_in_the_middle > 0, "no commit was ever waiting");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_restart_goes_on_behind_the_last_complete_record() {
    let quorum = Quorum::start().await;
    let cluster = Cluster::start(&quorum).await;
    let client = cluster.client();
    let restarts = {
        let client = client.clone();
        spawn_blocking(move || {
            assert!(client.pgbench(&["-i", "-s", "1", "-q"]).status.success());
            for round in 0..4 {
                let bulk = "insert into pgbench_history select 1, 1, i % 100000, 0, now() \
                            from generate_series(1, 2000000) i";
                let mut bulk = client.command("psql").args(["-c", bulk]).spawn().expect("psql");
                let mut load = client.command("pgbench");
                let load =
                    load.args(["-c", CLIENTS, "-T", "20", "--no-vacuum", "postgres"]).spawn();
                let mut load = load.expect("pgbench is there");
                std::thread::sleep(Duration::from_millis(1500 + round * 333));
                let backend = "select pid from pg_stat_activity \
                               where application_name = 'pgbench' limit 1";
                let pid: i32 = client.sql(backend).parse().expect("a client is connected");
                let pid = nix::unistd::Pid::from_raw(pid);
                nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("it was there");
                assert!(!load.wait().expect("it ends").success());
                bulk.wait().expect("it ends");
                wait_until_ready(&client);
                let sums = "select (select sum(abalance) from pgbench_accounts) = \
                            (select sum(tbalance) from pgbench_tellers)";
                assert_eq!(client.sql(sums), "t");
                client.sql("select pg_switch_wal()");
            }
        })
    };
    restarts.await.expect("the test's expectations");
    assert!(cluster.proposer.commit_lsn() > cluster.origin.point.lsn);
    cluster.stop().await;
}

fn wait_until_ready(client: &Client) {
    for _ in 0..1800 {
        let answer = client.command("psql").args(["-c", "select 1"]).output();
        if answer.is_ok_and(|answer| answer.status.success()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("Postgres did not come back");
}
