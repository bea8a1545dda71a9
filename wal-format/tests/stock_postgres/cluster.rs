//! A stock Postgres 15 in a temporary folder, without TCP, run as user `postgres` where the tests run as root.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use wal_format::{ControlFile, Lsn, Segment, Version, WalReader};

/// Where Debian keeps Postgres 15.
const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A data directory, and the server on it where one runs. Stopped when dropped.
pub struct Cluster {
    folder: TempDir,
    user: Option<(u32, u32)>,
}

impl Cluster {
    /// initdb, with these lines in `postgresql.conf`.
    pub fn init(settings: &[&str]) -> Cluster {
        Cluster::init_with(&[], settings)
    }

    /// initdb with these options of its own.
    pub fn init_with(options: &[&str], settings: &[&str]) -> Cluster {
        let folder = tempfile::Builder::new().prefix("wal-format-").tempdir().unwrap();
        let user = is_root().then(postgres_user);
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let cluster = Cluster { folder, user };
        let data = cluster.data();
        let data = data.to_str().unwrap();
        let fixed = ["-D", data, "-A", "trust", "-U", "postgres", "-N", "--no-locale"];
        cluster.run("initdb", &[&fixed[..], options].concat());
        let mut conf = fs::read_to_string(cluster.data().join("postgresql.conf")).unwrap();
        let socket = cluster.folder.path().display();
        conf += &format!("\nlisten_addresses=''\nunix_socket_directories='{socket}'\nfsync=off\n");
        conf += "autovacuum=off\nwal_keep_size='4GB'\ncheckpoint_timeout='1d'\n";
        conf += &settings.join("\n");
        fs::write(cluster.data().join("postgresql.conf"), conf).unwrap();
        cluster
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn wal_folder(&self) -> PathBuf {
        self.data().join("pg_wal")
    }

    pub fn control_file(&self) -> ControlFile {
        ControlFile::decode(&fs::read(self.data().join("global/pg_control")).unwrap()).unwrap()
    }

    pub fn start(&self) {
        let (data, log) = (self.data(), self.folder.path().join("log"));
        let (data, log) = (data.to_str().unwrap(), log.to_str().unwrap());
        self.run("pg_ctl", &["-D", data, "-l", log, "-w", "-t", "60", "start"]);
    }

    /// `fast`: a clean stop. `immediate`: as a crash, but for the processes' exit.
    pub fn stop(&self, mode: &str) {
        let data = self.data();
        self.run("pg_ctl", &["-D", data.to_str().unwrap(), "-w", "-m", mode, "stop"]);
    }

    /// What the server wrote to its log since the folder was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs the statements, each in a transaction of its own, and gives the last result as text.
    pub fn sql(&self, statements: &str) -> String {
        let host = self.folder.path().to_str().unwrap();
        let script = self.folder.path().join("script.sql");
        fs::write(&script, statements).unwrap();
        let script = script.to_str().unwrap();
        let options = ["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", "postgres"];
        let output = self.run("psql", &[&options[..], &["-h", host, "-f", script]].concat());
        output.lines().last().unwrap_or_default().to_owned()
    }

    pub fn pgbench(&self, options: &[&str]) {
        let host = self.folder.path().to_str().unwrap();
        self.run("pgbench", &[&["-h", host, "-U", "postgres"], options].concat());
    }

    /// Runs one of Postgres' programs as the cluster's owner; what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(Path::new(BIN).join(program));
        command.args(arguments).current_dir(self.folder.path());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        // pg_ctl's server keeps its standard output, so it must not be one that we wait for.
        let out = self.folder.path().join("out");
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&out).unwrap());
        let status = command.status().unwrap();
        let printed = String::from_utf8_lossy(&fs::read(&out).unwrap()).into_owned();
        assert!(status.success(), "{program}: {printed}\n{}", self.log());
        printed
    }

    /// Makes a file in the data directory that Postgres may read and write.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        if let Some((uid, gid)) = self.user {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    /// A reader of the WAL files from the record at `start`, all of them fed.
    pub fn wal_reader(&self, start: Lsn) -> WalReader {
        let control = self.control_file();
        let segment_bytes = control.geometry.wal_segment_bytes;
        let mut reader = WalReader::new(Version::V15, segment_bytes, start, None)
            .with_system_id(control.system_id);
        loop {
            let at = reader.fed_to();
            let name = Segment::containing(1, at, segment_bytes).file_name(segment_bytes);
            let Ok(bytes) = fs::read(self.wal_folder().join(name)) else { return reader };
            let skip = at.segment_offset(u64::from(segment_bytes)) as usize;
            reader.feed(at, &bytes[skip..]).unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            self.stop("immediate");
        }
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn postgres_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}
