//! The default template: a stock `initdb` with a role and a database, frozen and cleanly stopped.
//!
//! Data checksums stay off, as `initdb` of Postgres 15 has them: layers carry checksums of their
//! own, and with Postgres' on every hint bit is logged (docs/decisions/0005-default-template.md).

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Stdio,
};

use nix::unistd::User;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{failure::Failure, programs};

/// Its name.
pub const NAME: &str = "default";

/// The role and the database that every new tenant has.
const ROLE_AND_DATABASE: &str = "\
CREATE ROLE app LOGIN CREATEDB CREATEROLE;
CREATE DATABASE app OWNER app;
";

/// Every database that accepts connections: nothing is left to be frozen later, in each tenant
/// anew. `initdb` itself froze template0.
const DATABASES: [&str; 3] = ["template1", "postgres", "app"];

/// Makes the data directory in `folder`, which must not exist yet.
pub async fn make(folder: &Path, user: &User, pg_bin: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("{}: {error}", folder.display()));
    fs::create_dir(folder).map_err(failed)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed)?;
    chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(failed)?;

    let initdb = programs::find("initdb", pg_bin)?;
    let postgres = programs::find("postgres", pg_bin)?;
    let options = [
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-instructions",
        "--no-sync",
    ];
    let mut command = as_user(&initdb, user, folder);
    command.args(options).arg("-D").arg(folder);
    run(command, "").await?;
    single_user(&postgres, user, folder, "postgres", ROLE_AND_DATABASE).await?;
    for database in DATABASES {
        single_user(&postgres, user, folder, database, "VACUUM FREEZE;\n").await?;
    }
    Ok(())
}

/// Runs statements, one a line, in a Postgres without a socket that stops cleanly at the end.
async fn single_user(
    postgres: &Path,
    user: &User,
    folder: &Path,
    database: &str,
    statements: &str,
) -> Result<(), Failure> {
    let mut command = as_user(postgres, user, folder);
    command.arg("--single").arg("-D").arg(folder);
    // What follows is read by the pageserver at once: the page cache is enough.
    command.args(["-c", "exit_on_error=on", "-c", "fsync=off", database]);
    run(command, statements).await
}

fn as_user(program: &Path, user: &User, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .env_clear()
        .env("HOME", folder)
        .env("PATH", "/usr/bin:/bin")
        .env("TZ", "UTC")
        // The caller's folder may be closed to this user.
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(mut command: Command, input: &str) -> Result<(), Failure> {
    let program = command.as_std().get_program().display().to_string();
    let failed = |error: io::Error| Failure::new(format!("{program} does not run: {error}"));
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{program} failed ({}):\n{}", output.status, said.trim_end())))
}
