//! Stock Postgres' own programs, run as the user `postgres` in one folder.

use std::{
    fs,
    io::Write,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::User;

use crate::harness::program;

/// The role and the database that every tenant has.
const ROLE_AND_DATABASE: &str = "\
CREATE ROLE app LOGIN CREATEDB CREATEROLE;
CREATE DATABASE app OWNER app;
";
/// Bytes of a whole SLRU segment.
const SLRU_SEGMENT_BYTES: u64 = 32 * 8192;
/// The next transaction: 20 before the end of a segment of `pg_commit_ts`, 276 before that of one of `pg_xact`. The next multixact
/// and its first member: shortly before the ends of their first segments.
const NEXT: [&str; 6] = ["-x", "1048300", "-m", "65530,1", "-O", "52340"];

/// A folder that belongs to the user `postgres`.
pub struct Stock {
    folder: PathBuf,
    user: User,
}

impl Stock {
    pub fn new(folder: PathBuf) -> Result<Stock> {
        let user = User::from_name("postgres")?.context("there is no user postgres")?;
        let stock = Stock { folder, user };
        stock.create_folder(&stock.folder)?;
        Ok(stock)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A folder that only the user may enter.
    pub fn create_folder(&self, path: &Path) -> Result<()> {
        fs::create_dir(path).with_context(|| path.display().to_string())?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        Ok(chown(path, Some(self.user.uid.as_raw()), Some(self.user.gid.as_raw()))?)
    }

    /// Runs a program to its good end.
    pub fn run(&self, name: &str, arguments: &[&str], input: &str) -> Result<()> {
        let mut command = self.command(program(name));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| name.to_owned())?;
        child.stdin.take().context("a program's input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} {arguments:?}: {}\n{said}", output.status);
        Ok(())
    }

    /// Starts a server on a data directory; what it says goes to `log`.
    pub fn start(&self, data: &Path, settings: &[(&str, String)], log: &Path) -> Result<Child> {
        let mut command = self.command(program("postgres"));
        command.arg("-D").arg(data);
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().context("postgres does not run")
    }

    fn command(&self, program: Command) -> Command {
        let mut command = Command::new(program.get_program());
        command.uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw());
        command.current_dir(&self.folder).env("LC_ALL", "C").env("TZ", "UTC");
        command
    }

    /// A cleanly stopped cluster whose counters stand shortly before the ends of SLRU segments, so that a short run goes beyond them
    /// and lets the first ones go.
    pub fn make_base(&self, checksums: bool) -> Result<PathBuf> {
        let data = self.path("base");
        let text = data.to_str().context("a path in UTF-8")?;
        let options = ["-D", text, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"];
        let mut initdb = options.to_vec();
        initdb.push("--locale=C.UTF-8");
        initdb.extend(checksums.then_some("--data-checksums"));
        self.run("initdb", &initdb, "")?;
        let single = ["--single", "-D", text, "-c", "fsync=off", "-c", "exit_on_error=on"];
        self.run("postgres", &[&single[..], &["postgres"]].concat(), ROLE_AND_DATABASE)?;
        for slru in ["pg_xact", "pg_multixact/offsets", "pg_multixact/members"] {
            let segment = fs::File::options().write(true).open(data.join(slru).join("0000"))?;
            segment.set_len(SLRU_SEGMENT_BYTES)?;
        }
        self.run("pg_resetwal", &[&NEXT[..], &["-D", text]].concat(), "")?;
        // That leaves wal_level=minimal, from which nothing can be recovered: a start says what it is.
        self.run("postgres", &[&single[..], &["postgres"]].concat(), "SELECT 1;\n")?;
        Ok(data)
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.args(["-r", "--preserve=mode,ownership,timestamps"]).arg(from).arg(to);
    let status = command.status()?;
    ensure!(status.success(), "cp {} {}: {status}", from.display(), to.display());
    Ok(())
}
