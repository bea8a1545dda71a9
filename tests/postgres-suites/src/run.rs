//! Runs a suite with Postgres' own drivers and understands their output.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Group, MINOR, Postgres, Report, Suite, Suites, contrib::Module, programs};

/// Tests of the core suite at a time: as `make installcheck-parallel` has it.
const CONCURRENT_TESTS_MAX: &str = "--max-concurrent-tests=20";

/// The server that the tests run against. It must be on this machine: it reads and writes the tests' files.
#[derive(Debug, Clone)]
pub struct Server {
    /// Whose `psql` and drivers are used.
    pub postgres: Postgres,
    /// Its address, or the folder of its socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// A superuser, who needs no password.
    pub user: String,
    /// The operating system's user and group that it runs as, where that is not this process': the drivers run as they do,
    /// because server and client write into the same folder.
    pub owner: Option<(u32, u32)>,
}

impl Suites {
    /// Runs a suite to its end; tests that fail are in the report. The databases `regression`, `isolation_regression` and
    /// `contrib_regression` are made anew and stay. Results are left in `output`, which must exist and be reachable by the
    /// server. Each line that the driver prints goes to `progress`.
    ///
    /// # Errors
    /// Where the server is another minor than [`MINOR`], or the driver could not run the tests.
    pub fn run(
        &self,
        suite: Suite,
        server: &Server,
        output: &Path,
        mut progress: impl FnMut(&str),
    ) -> Result<Report> {
        server.require_minor()?;
        let mut run = Run::new(self, server, &mut progress);
        match suite {
            Suite::Core => run.core(&self.core_schedule(), &output.join("core"), &[])?,
            Suite::Isolation => {
                let folder = self.isolation();
                let schedule = schedule(&folder.join("isolation_schedule"));
                let driver = server.postgres.pg_isolation_regress()?;
                run.drive(&driver, &folder, &output.join("isolation"), None, &[schedule])?;
            }
            Suite::Contrib => run.contrib(output)?,
        }
        Ok(run.report)
    }

    /// Runs one group of the core suite, as [`Suites::run`] runs all of them. The groups build on each other: the first
    /// makes the database `regression`, and each of the others wants all before it.
    ///
    /// # Errors
    /// As [`Suites::run`].
    pub fn run_group(
        &self,
        group: &Group,
        server: &Server,
        output: &Path,
        mut progress: impl FnMut(&str),
    ) -> Result<Report> {
        server.require_minor()?;
        let output = output.join(format!("core-{}", group.number));
        let schedule = output.with_extension("schedule");
        fs::write(&schedule, &group.line)
            .with_context(|| format!("writing {}", schedule.display()))?;
        fs::set_permissions(&schedule, fs::Permissions::from_mode(0o644))?;
        let mut run = Run::new(self, server, &mut progress);
        let first = group.number == 1;
        let existing: &[&str] = if first { &[] } else { &["--use-existing"] };
        run.core(&schedule, &output, existing)?;
        Ok(run.report)
    }
}

fn schedule(path: &Path) -> String {
    format!("--schedule={}", path.display())
}

impl Server {
    fn require_minor(&self) -> Result<()> {
        let version = self.query("SHOW server_version")?;
        let minor = version.split_whitespace().next().unwrap_or_default();
        ensure!(
            minor == MINOR,
            "the server is Postgres {version}; these tests are {MINOR}'s, whose packages are Debian's \
             postgresql-15={MINOR}-0+deb12u1 and postgresql-client-15={MINOR}-0+deb12u1"
        );
        Ok(())
    }

    fn query(&self, sql: &str) -> Result<String> {
        let mut psql = self.command(&self.postgres.program("psql"));
        psql.args(["-XAtq", "-d", "postgres", "-h", &self.host, "-U", &self.user, "-c", sql]);
        let said = programs::succeed(psql.arg("-p").arg(self.port.to_string()))?;
        Ok(said.trim().to_owned())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.stdin(Stdio::null());
        command
    }
}

struct Run<'a> {
    suites: &'a Suites,
    server: &'a Server,
    report: Report,
    progress: &'a mut dyn FnMut(&str),
}

impl<'a> Run<'a> {
    fn new(suites: &'a Suites, server: &'a Server, progress: &'a mut dyn FnMut(&str)) -> Run<'a> {
        Run { suites, server, report: Report::default(), progress }
    }

    fn core(&mut self, tests: &Path, output: &Path, options: &[&str]) -> Result<()> {
        let mut all = vec![schedule(tests), CONCURRENT_TESTS_MAX.to_owned()];
        all.extend(options.iter().map(|option| (*option).to_owned()));
        self.drive(&self.server.postgres.pg_regress()?, &self.suites.core(), output, None, &all)
    }

    /// Every extension, one after the other: they share the database and some roles.
    fn contrib(&mut self, output: &Path) -> Result<()> {
        let available = self.server.query("SELECT name FROM pg_available_extensions")?;
        let mut folders: Vec<PathBuf> = fs::read_dir(self.suites.contrib())?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        folders.sort();
        for folder in folders {
            let Ok(makefile) = fs::read_to_string(folder.join("Makefile")) else { continue };
            let name =
                folder.file_name().context("a folder's name")?.to_string_lossy().into_owned();
            let module = Module::parse(&makefile);
            if module.regress.is_empty() && module.isolation.is_empty() {
                continue;
            }
            if let Some(reason) = not_run(&name, &module, &available) {
                self.report.skipped.push((name, reason));
                continue;
            }
            let output = output.join("contrib").join(&name);
            let database = "--dbname=contrib_regression".to_owned();
            if !module.regress.is_empty() {
                let options = [std::slice::from_ref(&database), &module.regress].concat();
                self.drive(
                    &self.server.postgres.pg_regress()?,
                    &folder,
                    &output,
                    Some(&name),
                    &options,
                )?;
            }
            if !module.isolation.is_empty() {
                let load = module.load.map(|load| format!("--load-extension={load}"));
                let options: Vec<String> =
                    [database].into_iter().chain(load).chain(module.isolation).collect();
                let output = output.join("isolation");
                let driver = self.server.postgres.pg_isolation_regress()?;
                self.drive(&driver, &folder, &output, Some(&name), &options)?;
            }
        }
        Ok(())
    }

    /// Runs a driver to its end.
    fn drive(
        &mut self,
        driver: &Path,
        input: &Path,
        output: &Path,
        extension: Option<&str>,
        options: &[String],
    ) -> Result<()> {
        fs::create_dir_all(output)?;
        fs::set_permissions(output, fs::Permissions::from_mode(0o755))?;
        if let Some((user, group)) = self.server.owner {
            chown(output, Some(user), Some(group))?;
        }
        let mut command = self.server.command(driver);
        let text = |path: &Path| path.display().to_string();
        command
            .current_dir(input)
            .arg(format!("--bindir={}", text(&self.server.postgres.bin())))
            .arg(format!("--inputdir={}", text(input)))
            .arg(format!("--outputdir={}", text(output)))
            .arg(format!("--dlpath={}", text(&self.suites.libraries())))
            .arg(format!("--host={}", self.server.host))
            .arg(format!("--port={}", self.server.port))
            .arg(format!("--user={}", self.server.user))
            .args(options)
            .stdout(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("starting {}", driver.display()))?;
        let (before, failed) = (self.report.tests(), self.report.failed.len());
        for line in BufReader::new(child.stdout.take().context("the driver's output")?).lines() {
            let line = line?;
            self.report.take_line(extension, &line);
            (self.progress)(&line);
        }
        let status = child.wait()?;
        // 1 says that tests failed; more, that they could not be run.
        if self.report.tests() == before || !matches!(status.code(), Some(0 | 1)) {
            bail!("{} could not run the tests of {}: {status}", driver.display(), input.display());
        }
        if self.report.failed.len() > failed {
            self.report.differences.push(output.join("regression.diffs"));
        }
        Ok(())
    }
}

/// Why a module's tests are left out.
fn not_run(name: &str, module: &Module, available: &str) -> Option<String> {
    let is_there = |extension: &String| available.lines().any(|line| line == extension);
    match &module.extension {
        _ if name == "basic_archive" => {
            Some("wants an archive, which a server has from its start".to_owned())
        }
        Some(extension) if !is_there(extension) => {
            Some(format!("the server has no extension {extension}"))
        }
        _ => None,
    }
}
