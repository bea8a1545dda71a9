//! A stock Postgres 15 in a temporary folder, run as an unprivileged user where this process is root. A machine without one gets
//! it installed.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use postgres_suites::Postgres;
use wal_format::ControlFile;

/// A cluster; its server is stopped and its folder removed when it goes out of scope.
pub struct Cluster {
    postgres: Postgres,
    folder: tempfile::TempDir,
    owner: Option<(u32, u32)>,
    running: bool,
}

impl Cluster {
    /// A new cluster, not running, with these lines in its configuration.
    pub fn create(settings: &str) -> Result<Cluster> {
        Cluster::create_with(&[], settings)
    }

    /// [`Cluster::create`] with more options for initdb.
    pub fn create_with(options: &[&str], settings: &str) -> Result<Cluster> {
        Cluster::create_of(Postgres::of_this_machine()?, options, settings)
    }

    /// [`Cluster::create_with`], of this Postgres.
    pub fn create_of(postgres: Postgres, options: &[&str], settings: &str) -> Result<Cluster> {
        let folder = tempfile::Builder::new().prefix("redo-oracle").tempdir()?;
        let cluster = Cluster { postgres, folder, owner: unprivileged_user()?, running: false };
        if let Some((user, group)) = cluster.owner {
            chown(cluster.folder.path(), Some(user), Some(group))?;
        }
        let data = cluster.data();
        let plain = ["-N", "--no-locale", "-E", "UTF8", "-U", "postgres", "-A", "trust", "-D"];
        cluster.run("initdb", &[&plain[..], &[text(&data)], options].concat())?;
        let socket = text(cluster.folder.path());
        cluster.configure(&format!(
            "{settings}\nlisten_addresses = ''\nunix_socket_directories = '{socket}'\n"
        ))?;
        Ok(cluster)
    }

    /// Adds lines to the configuration; the last of a name counts.
    pub fn configure(&self, settings: &str) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let configuration = fs::read_to_string(&path)?;
        Ok(fs::write(path, format!("{configuration}\n{settings}"))?)
    }

    /// The folder of the data directory and of the server's socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The user and group that the server runs as, where those are not this process'.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// What `pg_control` says of a server that is stopped.
    pub fn control_file(&self) -> Result<ControlFile> {
        Ok(ControlFile::decode(&fs::read(self.data().join("global/pg_control"))?)?)
    }

    /// An empty file that the server can remove.
    pub fn signal(&self, name: &str) -> Result<()> {
        let path = self.data().join(name);
        fs::write(&path, "")?;
        if let Some((user, group)) = self.owner {
            chown(&path, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// Has the next transaction, multixact and member be the last ones of their first SLRU segments, so that a short run goes beyond
    /// them and old segments can go. The server must be stopped.
    pub fn advance_to_segment_ends(&self) -> Result<()> {
        const SEGMENT_BYTES: usize = 32 * 8192;
        for slru in ["pg_xact", "pg_multixact/offsets", "pg_multixact/members"] {
            let path = self.data().join(slru).join("0000");
            let mut bytes = fs::read(&path)?;
            bytes.resize(SEGMENT_BYTES, 0);
            fs::write(&path, bytes)?;
        }
        let data = self.data();
        let next = ["-x", "1048560", "-m", "65530,1", "-O", "52340"];
        self.run("pg_resetwal", &[&next[..], &["-D", text(&data)]].concat()).map(|_| ())
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A file in the temporary folder.
    pub fn write_file(&self, name: &str, contents: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, contents)?;
        Ok(path)
    }

    /// Starts the server, and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        let log = self.folder.path().join("log");
        self.running = true;
        self.run("pg_ctl", &["-w", "-D", text(&self.data()), "-l", text(&log), "start"])
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(())
    }

    /// A clean stop: the WAL ends in a shutdown checkpoint.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_as("fast")
    }

    /// A stop without a checkpoint, as a crash.
    pub fn crash(&mut self) -> Result<()> {
        self.stop_as("immediate")
    }

    fn stop_as(&mut self, mode: &str) -> Result<()> {
        self.run("pg_ctl", &["-w", "-m", mode, "-t", "300", "-D", text(&self.data()), "stop"])?;
        self.running = false;
        Ok(())
    }

    /// Makes a standby a primary.
    pub fn promote(&self) -> Result<()> {
        self.run("pg_ctl", &["-w", "-D", text(&self.data()), "promote"]).map(|_| ())
    }

    /// Runs SQL in one session, which must succeed.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let output = self.psql(database, sql)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn psql(&self, database: &str, sql: &str) -> Result<Output> {
        let host = self.folder.path();
        let arguments =
            ["-X", "-q", "-A", "-t", "-U", "postgres", "-h", text(host), "-d", database];
        let mut command = self.command("psql");
        // The tests of pg_stat_statements list every statement: not the oracle's own.
        command.env("PGOPTIONS", "-c pg_stat_statements.track=none");
        command.args(arguments).args(["-v", "ON_ERROR_STOP=1", "-f", "-"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("psql's input")?;
        let sql = sql.to_owned();
        let writer =
            std::thread::spawn(move || std::io::Write::write_all(&mut input, sql.as_bytes()));
        let output = child.wait_with_output()?;
        // A psql that stopped at an error closes its input early.
        let _ = writer.join();
        Ok(output)
    }

    /// Runs pgbench with these arguments.
    pub fn pgbench(&self, arguments: &[&str]) -> Result<()> {
        let host = ["-U", "postgres", "-h", text(self.folder.path())];
        let all: Vec<&str> = host.into_iter().chain(arguments.iter().copied()).collect();
        self.run("pgbench", &all).map(|_| ())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(program);
        // A server that pg_ctl starts keeps its output open: it goes nowhere.
        let keeps_output = program != "pg_ctl";
        let pipe = || if keeps_output { Stdio::piped() } else { Stdio::null() };
        let output =
            command.args(arguments).stdin(Stdio::null()).stdout(pipe()).stderr(pipe()).output()?;
        if !output.status.success() {
            bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.postgres.program(program));
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        // Some tests have the server connect to itself.
        command.env("PGHOST", self.folder.path());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running {
            let data = self.data();
            let _ = self.run("pg_ctl", &["-w", "-m", "immediate", "-D", text(&data), "stop"]);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// The user `postgres`, where this process is root, as which the server does not run.
fn unprivileged_user() -> Result<Option<(u32, u32)>> {
    let is_root =
        fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)?;
    if !is_root {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let fields: Vec<&str> = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&"postgres"))
        .context("root runs Postgres as the user postgres, which does not exist here: install Debian's postgresql-15")?;
    Ok(Some((fields[2].parse()?, fields[3].parse()?)))
}
