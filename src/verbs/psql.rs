//! `offshoot tenant psql`: the branch's compute, started where it does not run, and psql in this place.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::StartRequest;

use super::{compute::start, text};
use crate::{api::Api, cli::TenantPsqlArgs, failure::Failure, programs};

/// Becomes psql; returns only where it cannot.
pub async fn psql(api: &Api, args: TenantPsqlArgs) -> Result<(), Failure> {
    // Found first: a compute that nobody can connect to need not be started.
    let psql = programs::find("psql", args.pg_bin.as_deref())?;
    let TenantPsqlArgs { tenant, branch, .. } = args;
    let request = StartRequest::of(tenant, branch);
    let compute = start(api, request).await?.value;
    let sockets = PathBuf::from(text(&compute, "/sockets"));
    check_reachable(&sockets)?;
    // By the environment, so that -U and -d after -- still have their way.
    let error = Command::new(&psql)
        .env("PGHOST", &sockets)
        .env("PGPORT", text(&compute, "/port"))
        .env("PGUSER", "app")
        .env("PGDATABASE", "app")
        .args(&args.arguments)
        .exec();
    Err(Failure::new(format!("{} does not run: {error}", psql.display())))
}

/// The compute trusts whoever may enter the folder of its socket.
fn check_reachable(sockets: &Path) -> Result<(), Failure> {
    let error = match std::fs::read_dir(sockets) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let mend = match error.kind() {
        io::ErrorKind::PermissionDenied => "run this with sudo",
        io::ErrorKind::NotFound => "run this on the machine of the control plane",
        _ => return Err(Failure::new(format!("{}: {error}", sockets.display()))),
    };
    Err(Failure::new(format!(
        "the compute's socket in {} cannot be reached ({error}): {mend}, or give the role a password \
         and connect through the proxy",
        sockets.display()
    )))
}
