//! `offshoot tenant psql`: the branch's compute, started where it does not run, and psql in this place.

use std::{os::unix::process::CommandExt, process::Command};

use control_plane::StartRequest;

use super::{compute::start, text};
use crate::{api::Api, cli::TenantPsqlArgs, failure::Failure, programs};

/// Becomes psql; returns only where it cannot.
pub async fn psql(api: &Api, args: TenantPsqlArgs) -> Result<(), Failure> {
    // Found first: a compute that nobody can connect to need not be started.
    let psql = programs::find("psql", args.pg_bin.as_deref())?;
    let TenantPsqlArgs { tenant, branch, .. } = args;
    let request = StartRequest { tenant, branch, port: None, settings: None };
    let compute = start(api, request).await?.value;
    // By the environment, so that -U and -d after -- still have their way.
    let error = Command::new(&psql)
        .env("PGHOST", text(&compute, "/host"))
        .env("PGPORT", text(&compute, "/port"))
        .env("PGUSER", "app")
        .env("PGDATABASE", "app")
        .args(&args.arguments)
        .exec();
    Err(Failure::new(format!("{} does not run: {error}", psql.display())))
}
