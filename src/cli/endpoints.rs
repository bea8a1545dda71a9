//! Endpoints of projects, and what their Postgres logs.

use clap::{Args, Subcommand};

use super::{projects::suspend_after, roles::setting};

/// What can be done to endpoints.
#[derive(Subcommand)]
pub enum EndpointVerb {
    /// Create an endpoint of a branch: the one to read and write, where it has none, or one to read
    /// only. Its compute starts when somebody connects.
    #[command(after_help = "\
Examples:
  offshoot endpoint create acme try
  offshoot endpoint create acme try --suspend-after 60 --set work_mem=64MB
  offshoot endpoint create acme main --read-only --name reports")]
    Create {
        /// The project, by name or id.
        project: String,
        /// The branch, by name or id.
        branch: String,
        /// To read only: what is written through the branch's other endpoint is there as soon as it is
        /// committed. A branch may have several.
        #[arg(long)]
        read_only: bool,
        /// What it is to be like.
        #[command(flatten)]
        options: EndpointOptions,
    },
    /// List a project's endpoints.
    #[command(after_help = "Example:\n  offshoot endpoint list acme")]
    List {
        /// The project, by name or id.
        project: String,
    },
    /// Show one endpoint.
    #[command(after_help = "Example:\n  offshoot endpoint show acme main")]
    Show(EndpointArgs),
    /// Start an endpoint's compute, and wait until it accepts connections.
    #[command(after_help = "\
Examples:
  offshoot endpoint start acme main
  offshoot endpoint start acme main --trace      what each stage of the start took")]
    Start {
        /// Which endpoint.
        #[command(flatten)]
        of: EndpointArgs,
        /// Say what each stage of its start took; of the last one, where it runs already.
        #[arg(long)]
        trace: bool,
    },
    /// Suspend an endpoint's compute, and wait until nothing of it is left.
    #[command(after_help = "Example:\n  offshoot endpoint suspend acme main")]
    Suspend(EndpointArgs),
    /// Restart an endpoint's compute, and wait until it accepts connections.
    #[command(after_help = "Example:\n  offshoot endpoint restart acme main")]
    Restart(EndpointArgs),
    /// Change an endpoint. Settings count from its compute's next start on.
    #[command(after_help = "\
Examples:
  offshoot endpoint update acme main --suspend-after never
  offshoot endpoint update acme main --set work_mem=64MB --set jit=off
  offshoot endpoint update acme main --disable      nobody gets in, and nothing starts it")]
    Update {
        /// Which endpoint.
        #[command(flatten)]
        of: EndpointArgs,
        /// What is to be changed.
        #[command(flatten)]
        options: EndpointOptions,
        /// Let nothing start it.
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Let it be started again.
        #[arg(long)]
        enable: bool,
    },
    /// Delete an endpoint. Its compute is suspended; the branch stays.
    #[command(after_help = "Example:\n  offshoot endpoint delete acme try")]
    Delete(EndpointArgs),
}

/// An endpoint of a project.
#[derive(Args)]
pub struct EndpointArgs {
    /// The project, by name or id.
    pub project: String,
    /// The endpoint, by name or id; or a branch, by name or id, for the one to read and write.
    pub endpoint: String,
}

/// What can be said of an endpoint at its making, and changed later.
#[derive(Args)]
pub struct EndpointOptions {
    /// What it is called.
    #[arg(long)]
    pub name: Option<String>,
    /// The least compute units; kept and shown.
    #[arg(long, value_name = "UNITS")]
    pub min_cu: Option<f64>,
    /// The most compute units, each a processor and 4 GiB: its Postgres is held to them.
    #[arg(long, value_name = "UNITS")]
    pub max_cu: Option<f64>,
    /// After how long it is suspended when nobody uses it: seconds, `default` or `never`.
    #[arg(long, value_name = "SECONDS|default|never", value_parser = suspend_after)]
    pub suspend_after: Option<i64>,
    /// A setting for Postgres; may be said more than once.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
}

/// Print what an endpoint's Postgres logged since its compute started, or until it ended.
#[derive(Args)]
#[command(after_help = "\
Examples:
  offshoot logs acme                  the default branch's endpoint, its last lines
  offshoot logs acme try --tail 1000

Passwords in statements are left out. Only the last compute's log is kept.")]
pub struct LogsArgs {
    /// The project, by name or id.
    pub project: String,
    /// The endpoint, by name or id, or its branch; the default branch's where none is said.
    pub endpoint: Option<String>,
    /// So many lines, counted from the end.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub tail: usize,
}
