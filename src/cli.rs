//! The command line: what can be said, and the help that teaches it.

mod access;
mod api;
mod branches;
mod connect;
mod contents;
mod endpoints;
mod limits;
mod projects;
mod proxy;
mod roles;
mod tls;
mod usage;
mod verbs;

use clap::{Parser, Subcommand};

pub use access::{
    AuthVerb, ComputeTokenArgs, DoorArgs, OperatorArgs, SignerArgs, TOKEN_FILE_DEFAULT,
};
pub use api::{ApiArgs, KEY_FILE_DEFAULT};
pub use branches::{BranchArgs, BranchVerb, ExpiryArgs, MomentArgs};
pub use connect::{ConnectArgs, ConnectionStringArgs, PsqlArgs};
pub use contents::{DatabaseVerb, RoleVerb, WhereArgs};
pub use endpoints::{EndpointArgs, EndpointOptions, EndpointVerb, LogsArgs};
pub use limits::LimitsArgs;
pub use projects::{CreateProjectArgs, OperationVerb, ProjectOptions, ProjectVerb, RegionVerb};
pub use proxy::ProxyArgs;
pub use roles::{
    ComputeRunArgs, ComputesArgs, ControlPlaneArgs, PageserverArgs, PostgresArgs, SafekeeperArgs,
    UpArgs, pageserver_at,
};
pub use tls::{CertificateArgs, TrustArgs};
pub use usage::{QuotaArgs, UsageArgs};
pub use verbs::{
    ApiKeyVerb, ComputeVerb, HistoryArgs, ScrubArgs, SnapshotVerb, TemplateVerb, TenantBranchVerb,
    TenantPsqlArgs, TenantVerb,
};

/// Where the control plane of `offshoot up` listens, unless it is told otherwise.
pub const CONTROL_PLANE_DEFAULT: &str = "127.0.0.1:6400";

const EXAMPLES: &str = "\
A first tour, as root (or with sudo), in two terminals:

  offshoot up --proxy 127.0.0.1:6432              runs everything, until Ctrl-C
  offshoot project create acme                    a database of its own, in milliseconds
  offshoot psql acme                              wakes its Postgres and connects
  offshoot branch create acme try                 a branch at head: copies nothing
  offshoot psql acme try                          change what you like, main does not see it
  offshoot branch restore acme main --timestamp '2026-03-01T12:00:00Z' --keep-as before
                                                  main as it was then; the old state stays as a branch

Projects have endpoints, roles and passwords, and sleep when nobody uses them. Below them are tenants,
which have none of these: whoever runs the storage sees every database as one.

Exit codes:
  0  done
  1  failed; the reason stands on standard error
  2  the command line is wrong
  3  compute run: fenced, a newer compute took the timeline over
  4  there is no such project, branch, endpoint, role, database, tenant, snapshot or template
  5  it clashes with what is there: a name or a port is taken
  6  the server cannot be reached, or cannot do it now: try again
  7  the API key is missing, or refused

Programs add --json and read one JSON object, or one list, on standard output.
Logs go to standard error; OFFSHOOT_LOG=debug shows more.";

/// Offshoot: a storage engine that gives every tenant its own stock Postgres database. A new
/// database is a branch of a template and takes milliseconds; any of them goes back to any moment
/// of its history without touching another.
#[derive(Parser)]
#[command(name = "offshoot", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// Print JSON for programs instead of tables for people.
    #[arg(long, global = true)]
    pub json: bool,
    /// The control plane's HTTP address, for the verbs that talk to a running `offshoot up`.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "OFFSHOOT_CONTROL_PLANE",
        default_value = CONTROL_PLANE_DEFAULT
    )]
    pub control_plane: String,
    /// The management API.
    #[command(flatten)]
    pub api: ApiArgs,
    /// The storage.
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Whom it believes.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Everything that can be done.
#[derive(Subcommand)]
pub enum Command {
    /// Run everything in one process: three safekeepers, a pageserver and the control plane.
    Up(Box<UpArgs>),
    /// Projects: a customer's databases with all their branches, endpoints and roles.
    #[command(subcommand)]
    Project(ProjectVerb),
    /// Regions: where projects can be.
    #[command(subcommand)]
    Region(RegionVerb),
    /// Branches of a project: made at any moment of another branch's history, copying nothing.
    #[command(subcommand)]
    Branch(BranchVerb),
    /// Endpoints: what connections are made to. Their computes sleep when nobody uses them.
    #[command(subcommand)]
    Endpoint(EndpointVerb),
    /// Roles of a branch, and their passwords.
    #[command(subcommand)]
    Role(RoleVerb),
    /// Databases of a branch.
    #[command(subcommand)]
    Database(DatabaseVerb),
    /// Operations: what was done to a project, and what is under way.
    #[command(subcommand)]
    Operation(OperationVerb),
    /// Connect to a project's branch with psql.
    Psql(PsqlArgs),
    /// Print the connection string of a project's branch.
    ConnectionString(ConnectionStringArgs),
    /// Print what an endpoint's Postgres logged.
    Logs(LogsArgs),
    /// API keys: who has one can do everything.
    #[command(subcommand)]
    ApiKey(ApiKeyVerb),
    /// Tenants: what a project is for the storage, with branches and computes of their own.
    #[command(subcommand)]
    Tenant(TenantVerb),
    /// Snapshots: moments of a tenant's branch that are kept under a name.
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Templates: what new projects and tenants are branched from.
    #[command(subcommand)]
    Template(TemplateVerb),
    /// Computes: the Postgres of a tenant's branch, started and stopped.
    #[command(subcommand)]
    Compute(ComputeVerb),
    /// Say what runs where.
    Status,
    /// Look for damage in the object store, and for what no manifest names.
    Scrub(ScrubArgs),
    /// Keys, the tokens that they sign, and certificates: who may ask the processes for what.
    #[command(subcommand)]
    Auth(AuthVerb),
    /// Run one safekeeper: a member of the quorum that makes WAL durable.
    Safekeeper(SafekeeperArgs),
    /// Run the pageserver: it turns WAL into layers in the object store, and serves pages.
    Pageserver(PageserverArgs),
    /// Run the control plane: it starts and stops computes over HTTP.
    ControlPlane(Box<ControlPlaneArgs>),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_for_projects_teaches_with_an_example_of_itself() {
        let mut found = 0;
        let cli = Cli::command();
        for name in [
            "project",
            "region",
            "branch",
            "endpoint",
            "role",
            "database",
            "operation",
            "template",
            "api-key",
        ] {
            let command = cli.find_subcommand(name).expect("it is one");
            for verb in command.get_subcommands() {
                let example = format!("offshoot {name} {}", verb.get_name());
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(&example), "{example} has no example");
                found += 1;
            }
        }
        for name in ["psql", "connection-string", "logs"] {
            let command = cli.find_subcommand(name).expect("it is one");
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("offshoot {name} acme")), "{name} has no example");
        }
        assert!(found > 30, "{found} commands");
    }
}
