//! The WAL that is replayed: pgbench's, from one clean stop of a stock Postgres to the next, with the files as they were at the first.
//! It is made once and kept in a folder below `/tmp` for the next run.

use std::{
    fmt, fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use wal_format::{ControlFile, Lsn, Version, WalReader};

use super::server::{Server, program, text};

/// What the server runs with beside a compute's own settings: WAL that nothing waits for, and all of it kept.
const GENERATING: [&str; 6] = [
    "fsync=off",
    "wal_keep_size=100GB",
    "max_wal_size=100GB",
    "checkpoint_timeout=1d",
    "shared_buffers=1GB",
    "max_connections=50",
];

/// Bytes of a WAL segment, initdb's default.
pub const SEGMENT_BYTES: u32 = 16 << 20;

/// Index builds over this table make full-page images.
const IMAGES: &str =
    "CREATE TABLE imaged AS SELECT n, md5(n::text) text FROM generate_series(1, 60000) n";

/// What pgbench does between the two clean stops.
#[derive(Clone, Copy, Debug)]
pub enum Workload {
    /// It makes its tables and fills them: 16 MB for each unit of scale.
    Load {
        /// pgbench's scale.
        scale: u32,
    },
    /// TPC-B, on tables that were filled before.
    Transactions {
        /// The least WAL that it makes.
        wal_bytes: u64,
        /// pgbench's scale.
        scale: u32,
        /// pgbench's clients.
        clients: u32,
    },
}

impl Workload {
    fn folder_name(self) -> String {
        match self {
            Workload::Load { scale } => format!("offshoot-bench-load-scale{scale}"),
            Workload::Transactions { wal_bytes, scale, clients } => {
                format!("offshoot-bench-redo-{}MiB-scale{scale}-{clients}", wal_bytes >> 20)
            }
        }
    }
}

/// A WAL and the files that it starts from.
pub struct Recorded {
    folder: PathBuf,
    marks: Marks,
}

/// Positions in the WAL, each the start of a record.
#[derive(Serialize, Deserialize)]
struct Marks {
    /// Where index builds began that made full-page images of each compression; of a load there are none, and it is the first stop.
    images: u64,
    /// The checkpoint of the first clean stop.
    first: u64,
    /// The checkpoint of the second one.
    last: u64,
}

impl Recorded {
    /// The WAL that an earlier run made by this work, or a new one.
    pub fn load_or_make(workload: Workload) -> Result<Recorded> {
        let folder = Path::new("/tmp").join(workload.folder_name());
        let marks = folder.join("marks.json");
        if let Ok(text) = fs::read_to_string(&marks) {
            return Ok(Recorded { folder, marks: serde_json::from_str(&text)? });
        }
        // What an interrupted run left behind is of no use.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let owner = Command::new("chown").arg("postgres").arg(&folder).status()?;
        ensure!(owner.success(), "chown: {owner}");
        let made = make(&folder, workload)?;
        fs::write(marks, serde_json::to_string(&made)?)?;
        Ok(Recorded { folder, marks: made })
    }

    /// The data directory at the first clean stop, without WAL.
    pub fn before(&self) -> PathBuf {
        self.folder.join("before")
    }

    /// The data directory at the second clean stop.
    pub fn after(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The segment that has this position.
    pub fn segment(&self, at: Lsn) -> PathBuf {
        let number = at.0 / u64::from(SEGMENT_BYTES);
        let name = format!("{:08X}{:08X}{:08X}", 1, number >> 8, number & 0xFF);
        self.after().join("pg_wal").join(name)
    }

    /// Makes a data directory as it was at the first clean stop, with all the WAL: in place of what was there. It shares the segments'
    /// files with the recording, but the last, to which a server would write what follows.
    pub fn copy_with_wal(&self, to: &Path) -> Result<()> {
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        copy(&self.before(), to)?;
        let segment_bytes = u64::from(SEGMENT_BYTES);
        for number in self.first().0 / segment_bytes..=self.last().0 / segment_bytes {
            let segment = self.segment(Lsn(number * segment_bytes));
            let own = to.join("pg_wal").join(segment.file_name().context("a segment's name")?);
            if number < self.last().0 / segment_bytes {
                fs::hard_link(&segment, own)?;
            } else {
                let copied = Command::new("cp").arg("-a").args([&segment, &own]).status()?;
                ensure!(copied.success(), "cp: {copied}");
            }
        }
        Ok(())
    }

    /// A folder for a server that recovers: not that of another process.
    pub fn scratch(&self) -> PathBuf {
        self.folder.join(format!("recovery-{}", std::process::id()))
    }

    /// Where the index builds began.
    pub fn images(&self) -> Lsn {
        Lsn(self.marks.images)
    }

    /// Where replay begins: the checkpoint of the first clean stop.
    pub fn first(&self) -> Lsn {
        Lsn(self.marks.first)
    }

    /// The last record's start: the checkpoint of the second clean stop.
    pub fn last(&self) -> Lsn {
        Lsn(self.marks.last)
    }

    /// The last record's end.
    pub fn end(&self) -> Result<Lsn> {
        let mut reader = WalReader::new(Version::V15, SEGMENT_BYTES, self.last(), None);
        loop {
            let at = reader.fed_to();
            let path = self.segment(at);
            let segment = fs::read(&path).with_context(|| path.display().to_string())?;
            reader.feed(at, &segment[at.segment_offset(u64::from(SEGMENT_BYTES)) as usize..])?;
            if let Some(record) = reader.next_record()? {
                return Ok(record.end);
            }
        }
    }

    /// The WAL that is replayed.
    pub fn bytes(&self) -> u64 {
        self.last().since(self.first())
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last, bytes) = (self.first(), self.last(), self.bytes());
        writeln!(f, "WAL of {bytes} bytes from {first} to {last} in {}", self.folder.display())?;
        writeln!(f, "made with {}", server_settings(&self.folder).join(" "))?;
        write!(f, "stock recovery with {}", super::recovery::SETTINGS.join(" "))
    }
}

/// The settings that a compute has, and then those that make this quick.
fn server_settings(folder: &Path) -> Vec<String> {
    // The port only names the socket in the folder, through which clients come.
    let listen = SocketAddr::from(([127, 0, 0, 1], 5432));
    let mut settings =
        compute_shim::postgres_command_line(&folder.join("data"), folder, listen, &[], &[], &[]);
    // Its first two are the data directory, which pg_ctl gives.
    settings.drain(..2);
    let more = GENERATING.into_iter().chain(["listen_addresses="]);
    settings.extend(more.flat_map(|setting| ["-c".to_owned(), setting.to_owned()]));
    settings
}

fn make(folder: &Path, workload: Workload) -> Result<Marks> {
    let data = folder.join("data");
    let arguments = ["--username=postgres", "--auth=trust", "--locale=C", "-E", "UTF8", "-N", "-D"];
    program(folder, "initdb", &[&arguments[..], &[text(&data)?]].concat())?;
    match workload {
        Workload::Load { scale } => make_load(folder, &data, scale),
        Workload::Transactions { wal_bytes, scale, clients } => {
            make_transactions(folder, &data, wal_bytes, scale, clients)
        }
    }
}

fn make_load(folder: &Path, data: &Path, scale: u32) -> Result<Marks> {
    let first = checkpoint(data)?;
    copy(data, &folder.join("before"))?;
    let server = Server::start(folder, data, &server_settings(folder), true)?;
    fill(&server, scale)?;
    server.stop()?;
    Ok(Marks { images: first.0, first: first.0, last: checkpoint(data)?.0 })
}

fn make_transactions(
    folder: &Path,
    data: &Path,
    wal_bytes: u64,
    scale: u32,
    clients: u32,
) -> Result<Marks> {
    let command_line = server_settings(folder);
    let server = Server::start(folder, data, &command_line, true)?;
    fill(&server, scale)?;
    server.sql(IMAGES)?;
    let images = record_start(&server)?;
    for compression in ["off", "pglz", "lz4", "zstd"] {
        let build = format!("SET wal_compression = {compression}; CREATE INDEX ON imaged (n)");
        server.sql(&build)?;
        server.sql(&build.replace("(n)", "(text)"))?;
    }
    server.stop()?;
    let first = checkpoint(data)?;
    copy(data, &folder.join("before"))?;

    let server = Server::start(folder, data, &command_line, true)?;
    let clients = clients.to_string();
    let load = ["-n", "-M", "prepared", "-j", "2", "-c", &clients, "-T", "10"];
    loop {
        let written = record_start(&server)?.since(first);
        eprintln!("{} of {} MB of WAL", written / 1_000_000, wal_bytes / 1_000_000);
        if written >= wal_bytes {
            break;
        }
        server.pgbench(&load)?;
    }
    server.stop()?;
    Ok(Marks { images: images.0, first: first.0, last: checkpoint(data)?.0 })
}

fn fill(server: &Server, scale: u32) -> Result<()> {
    server.pgbench(&["-i", "-q", "-s", &scale.to_string()])
}

/// Where the next record begins, but for a page's header.
fn record_start(server: &Server) -> Result<Lsn> {
    Ok(server.sql("SELECT pg_current_wal_insert_lsn()")?.parse()?)
}

/// Where the last checkpoint's record begins.
fn checkpoint(data: &Path) -> Result<Lsn> {
    let bytes = fs::read(data.join("global/pg_control"))?;
    Ok(ControlFile::decode(&bytes)?.checkpoint)
}

/// Copies a data directory without its WAL.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]).status()?;
    ensure!(status.success(), "cp: {status}");
    let wal = to.join("pg_wal");
    for entry in fs::read_dir(&wal).with_context(|| wal.display().to_string())? {
        let path = entry?.path();
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
