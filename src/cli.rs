//! The command line: what can be said, and the help that teaches it.

mod limits;
mod proxy;
mod roles;
mod verbs;

use clap::{Parser, Subcommand};

pub use limits::LimitsArgs;
pub use proxy::ProxyArgs;
pub use roles::{
    ComputeRunArgs, ControlPlaneArgs, ManagementArgs, PageserverArgs, PostgresArgs, SafekeeperArgs,
    UpArgs,
};
pub use verbs::{
    BranchVerb, ComputeVerb, HistoryArgs, PsqlArgs, ScrubArgs, SnapshotVerb, TemplateVerb,
    TenantVerb,
};

/// Where the control plane of `offshoot up` listens, unless it is told otherwise.
pub const CONTROL_PLANE_DEFAULT: &str = "127.0.0.1:6400";

const EXAMPLES: &str = "\
A first tour, as root (or with sudo), in two terminals:

  offshoot up                                     runs everything, until Ctrl-C
  offshoot tenant create acme                     a database of its own, in milliseconds
  offshoot psql acme                              starts its Postgres and connects
  offshoot branch create acme try                 a branch at head: copies nothing
  offshoot psql acme try                          change what you like, main does not see it
  offshoot branch restore acme main --at '2026-03-01T12:00:00Z' --keep-as before
                                                  main as it was then; the old state stays as a branch

Exit codes:
  0  done
  1  failed; the reason stands on standard error
  2  the command line is wrong
  3  compute run: fenced, a newer compute took the timeline over
  4  there is no such tenant, branch, snapshot, template or compute
  5  it clashes with what is there: a name or a port is taken
  6  the server cannot be reached, or cannot do it now: try again

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
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Everything that can be done.
#[derive(Subcommand)]
pub enum Command {
    /// Run everything in one process: three safekeepers, a pageserver and the control plane.
    Up(Box<UpArgs>),
    /// Tenants: one customer's databases and all their branches.
    #[command(subcommand)]
    Tenant(TenantVerb),
    /// Branches of a tenant: made at any moment of another branch's history, copying nothing.
    #[command(subcommand)]
    Branch(BranchVerb),
    /// Snapshots: moments of a branch that are kept under a name.
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Templates: what new tenants are branched from.
    #[command(subcommand)]
    Template(TemplateVerb),
    /// Computes: the Postgres of a branch, started and stopped.
    #[command(subcommand)]
    Compute(ComputeVerb),
    /// Connect with psql; the branch's compute is started where it does not run.
    Psql(PsqlArgs),
    /// Say what runs where.
    Status,
    /// Look for damage in the object store, and for what no manifest names.
    Scrub(ScrubArgs),
    /// Run one safekeeper: a member of the quorum that makes WAL durable.
    Safekeeper(SafekeeperArgs),
    /// Run the pageserver: it turns WAL into layers in the object store, and serves pages.
    Pageserver(PageserverArgs),
    /// Run the control plane: it starts and stops computes over HTTP.
    ControlPlane(ControlPlaneArgs),
}
