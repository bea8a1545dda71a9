//! `offshoot control-plane`, and the same inside `offshoot up`.

use std::env;

use control_plane::{Config, ControlPlane, ManagementConfig, Users};

use super::{access, stop::StopSignals};
use crate::{
    cli::{ControlPlaneArgs, ManagementArgs, PostgresArgs, ProxyArgs},
    failure::Failure,
    output::say,
};

/// Runs until it is told to stop; every compute is stopped with it.
pub async fn control_plane(args: ControlPlaneArgs) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    super::machine::check()?;
    super::machine::take_open_files();
    let folder = absolute(&args.folder)?;
    let catalog = match &args.catalog {
        Some(catalog) => absolute(catalog)?,
        None => folder.join("catalog"),
    };
    let tokens = access::signer(&args.signer, args.http)?;
    let control_plane = ControlPlane::start(Config {
        tokens,
        http: args.http,
        executable: this_executable()?,
        proxy: args.proxy.config(folder.clone()),
        suspend_after: args.proxy.suspend_after(),
        folder,
        pageserver_http: args.pageserver_http,
        pageserver: args.pageserver,
        other_pageservers: args.other_pageserver,
        safekeepers: args.safekeepers,
        compute_host: args.computes.compute_host,
        ports: args.computes.compute_ports,
        users: args.computes.compute_users,
        compute_arguments: compute_arguments(&args.postgres, args.computes.compute_users),
        management: Some(management(&args.management, catalog, &args.postgres, &args.proxy)),
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    say!("control plane on http://{}", control_plane.local_addr());
    if let Some(proxy) = control_plane.proxy_addr() {
        say!("proxy on {proxy}");
    }
    signals.next().await;
    control_plane.shutdown().await;
    Ok(())
}

/// The program whose `compute run` is a compute.
pub fn this_executable() -> Result<std::path::PathBuf, Failure> {
    env::current_exe().map_err(|error| Failure::new(format!("this program has no path: {error}")))
}

/// What the management API is told.
pub fn management(
    args: &ManagementArgs,
    folder: std::path::PathBuf,
    postgres: &PostgresArgs,
    proxy: &ProxyArgs,
) -> ManagementConfig {
    ManagementConfig {
        folder,
        connect_at: proxy.connect_at(),
        region: args.region.clone(),
        pg_bin: postgres.pg_bin.clone(),
    }
}

/// What every compute is told of Postgres.
pub fn compute_arguments(postgres: &PostgresArgs, users: Users) -> Vec<String> {
    let mut arguments = vec![];
    if users == Users::Shared {
        arguments.extend(["--user".to_owned(), postgres.user.clone()]);
    }
    if let Some(folder) = &postgres.pg_bin {
        arguments.extend(["--pg-bin".to_owned(), folder.display().to_string()]);
    }
    arguments
}

/// A folder, said so that it means the same in every working directory.
pub fn absolute(folder: &std::path::Path) -> Result<std::path::PathBuf, Failure> {
    std::path::absolute(folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))
}
