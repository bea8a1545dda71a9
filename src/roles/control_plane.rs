//! `offshoot control-plane`, and the same inside `offshoot up`.

use std::{env, path::PathBuf};

use ::access::tls::Trust;
use control_plane::{
    ComputesAt, Config, ControlPlane, ManagementConfig, PageserverAt, RegionConfig, RegionConfigs,
    Users,
};

use super::{access, regions::Common, stop::StopSignals, tls};
use crate::{
    cli::{ComputesArgs, ControlPlaneArgs, PostgresArgs, ProxyArgs},
    failure::Failure,
    output::say,
};

/// Runs until it is told to stop; every compute is stopped with it.
pub async fn control_plane(args: ControlPlaneArgs, trust: Trust) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    super::machine::check()?;
    super::machine::take_open_files();
    let folder = absolute(&args.folder)?;
    let catalog = match &args.catalog {
        Some(catalog) => absolute(catalog)?,
        None => folder.join("catalog"),
    };
    let certificate = tls::certificate(&args.certificate, &trust)?;
    let scheme = trust.scheme();
    let control_plane = ControlPlane::start(Config {
        certificate,
        trust,
        http: args.http,
        executable: this_executable()?,
        proxy: args.proxy.config(folder.clone()),
        suspend_after: args.proxy.suspend_after(),
        regions: regions(&args, folder)?,
        management: Some(management(catalog, &args.postgres, &args.proxy)),
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    say!("control plane on {scheme}://{}", control_plane.local_addr());
    if let Some(proxy) = control_plane.proxy_addr() {
        say!("proxy on {proxy}");
    }
    signals.next().await;
    control_plane.shutdown().await;
    Ok(())
}

/// The program whose `compute run` is a compute.
pub fn this_executable() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(|error| Failure::new(format!("this program has no path: {error}")))
}

/// The regions: those of the file, or the one that the flags say.
fn regions(args: &ControlPlaneArgs, folder: PathBuf) -> Result<RegionConfigs, Failure> {
    let Some(file) = &args.regions else {
        return Ok(RegionConfigs::one(region(args, folder)?));
    };
    if args.signer.no_auth {
        access::refuse_open(&[args.http])?;
    }
    let life = args.signer.computes.compute_token_life;
    let common = Common {
        folder: &folder,
        postgres: &args.postgres,
        compute_token_life: (!args.signer.no_auth).then_some(life),
    };
    super::regions::read(file, &common)
}

/// The one region that the flags say.
fn region(args: &ControlPlaneArgs, folder: PathBuf) -> Result<RegionConfig, Failure> {
    let id = args.management.region.clone();
    let first = PageserverAt { pages: args.pageserver, http: args.pageserver_http };
    Ok(RegionConfig {
        name: id.to_string(),
        id,
        store: None,
        pageservers: [vec![first], args.other_pageserver.clone()].concat(),
        safekeepers: args.safekeepers.clone(),
        computes: computes_at(&args.computes, folder, &args.postgres),
        tokens: access::signer(&args.signer, args.http)?,
    })
}

/// Where computes run whose folders are in this one.
pub fn computes_at(args: &ComputesArgs, folder: PathBuf, postgres: &PostgresArgs) -> ComputesAt {
    ComputesAt {
        folder,
        host: args.compute_host,
        ports: args.compute_ports,
        users: args.compute_users,
        arguments: compute_arguments(postgres, args.compute_users),
    }
}

/// What the management API is told.
pub fn management(folder: PathBuf, postgres: &PostgresArgs, proxy: &ProxyArgs) -> ManagementConfig {
    ManagementConfig { folder, connect_at: proxy.connect_at(), pg_bin: postgres.pg_bin.clone() }
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
pub fn absolute(folder: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))
}
