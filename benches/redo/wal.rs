//! The WAL that is replayed: pgbench's, from one clean stop of a stock Postgres to the next, with the files as they were at the first.

use std::{
    fmt, fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use wal_format::{ControlFile, Lsn};

use crate::{
    Settings,
    server::{Server, program, text},
};

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

/// A WAL and the files that it starts from.
pub struct Recorded {
    folder: PathBuf,
    marks: Marks,
}

/// Positions in the WAL, each the start of a record.
#[derive(Serialize, Deserialize)]
struct Marks {
    /// Where index builds began that made full-page images of each compression.
    images: u64,
    /// The checkpoint of the first clean stop.
    first: u64,
    /// The checkpoint of the second one.
    last: u64,
}

impl Recorded {
    /// The WAL of an earlier run with these settings, or a new one.
    pub fn load_or_make(settings: Settings) -> Result<Recorded> {
        let Settings { wal_bytes, scale, clients, .. } = settings;
        let name = format!("offshoot-bench-redo-{}MiB-scale{scale}-{clients}", wal_bytes >> 20);
        let folder = Path::new("/tmp").join(name);
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
        let made = make(&folder, settings)?;
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

    /// A folder for a server that recovers.
    pub fn scratch(&self) -> PathBuf {
        self.folder.join("recovery")
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
        write!(f, "stock recovery with {}", crate::recovery::SETTINGS.join(" "))
    }
}

/// The settings that a compute has, and then those that make this quick.
fn server_settings(folder: &Path) -> Vec<String> {
    // The port only names the socket in the folder, through which clients come.
    let listen = SocketAddr::from(([127, 0, 0, 1], 5432));
    let mut settings =
        compute_shim::postgres_command_line(&folder.join("data"), folder, listen, 0, &[]);
    // Its first two are the data directory, which pg_ctl gives.
    settings.drain(..2);
    let more = GENERATING.into_iter().chain(["listen_addresses="]);
    settings.extend(more.flat_map(|setting| ["-c".to_owned(), setting.to_owned()]));
    settings
}

fn make(folder: &Path, settings: Settings) -> Result<Marks> {
    let data = folder.join("data");
    let arguments = ["--username=postgres", "--auth=trust", "--locale=C", "-E", "UTF8", "-N", "-D"];
    program(folder, "initdb", &[&arguments[..], &[text(&data)?]].concat())?;
    let command_line = server_settings(folder);

    let server = Server::start(folder, &data, &command_line, true)?;
    server.pgbench(&["-i", "-q", "-s", &settings.scale.to_string()])?;
    server.sql(IMAGES)?;
    let images = record_start(&server)?;
    for compression in ["off", "pglz", "lz4", "zstd"] {
        let build = format!("SET wal_compression = {compression}; CREATE INDEX ON imaged (n)");
        server.sql(&build)?;
        server.sql(&build.replace("(n)", "(text)"))?;
    }
    server.stop()?;
    let first = checkpoint(&data)?;
    copy(&data, &folder.join("before"))?;

    let server = Server::start(folder, &data, &command_line, true)?;
    let clients = settings.clients.to_string();
    let load = ["-n", "-M", "prepared", "-j", "2", "-c", &clients, "-T", "10"];
    loop {
        let written = record_start(&server)?.since(first);
        eprintln!("{} of {} MB of WAL", written / 1_000_000, settings.wal_bytes / 1_000_000);
        if written >= settings.wal_bytes {
            break;
        }
        server.pgbench(&load)?;
    }
    server.stop()?;
    Ok(Marks { images: images.0, first: first.0, last: checkpoint(&data)?.0 })
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
