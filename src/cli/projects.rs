//! Projects, and the operations that change them.

use std::time::Duration;

use clap::{Args, Subcommand};

/// What can be done to projects.
#[derive(Subcommand)]
pub enum ProjectVerb {
    /// Create a project: a branch, an endpoint, a role and a database. It takes milliseconds, and
    /// starts nothing before somebody connects.
    #[command(after_help = "\
Examples:
  offshoot project create acme
  offshoot project create acme --template shop --history 30d
  offshoot project create acme --region eu          `offshoot region list` has them
  offshoot project create acme --role owner --database orders --suspend-after never
  offshoot project create acme --json | jq -r '.connection_uris[0].connection_uri'

The password stands in the connection string, and can be revealed later: offshoot role --help")]
    Create(CreateProjectArgs),
    /// List all projects.
    #[command(after_help = "\
Examples:
  offshoot project list
  offshoot project list --search acme
  offshoot project list --deleted      those that can be restored")]
    List {
        /// Only those whose name or id has this in it.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// The deleted ones that can be restored, instead of the others.
        #[arg(long)]
        deleted: bool,
    },
    /// Show one project.
    #[command(after_help = "Example:\n  offshoot project show acme")]
    Show {
        /// Its name or id.
        project: String,
    },
    /// Change a project.
    #[command(after_help = "\
Examples:
  offshoot project update acme --name shop
  offshoot project update acme --history 30d          what a shorter one leaves behind is gone
  offshoot project update acme --suspend-after 60     for endpoints that are made from now on")]
    Update {
        /// Its name or id.
        project: String,
        /// Its new name.
        #[arg(long)]
        name: Option<String>,
        /// What else is to be changed.
        #[command(flatten)]
        options: ProjectOptions,
    },
    /// Show what a project used: time, WAL, bytes sent to clients, and what it holds.
    #[command(after_help = "\
Examples:
  offshoot project usage acme                       this month, by day
  offshoot project usage acme --by hour --from 2026-03-01T00:00:00Z --to 2026-03-02T00:00:00Z
  offshoot project usage --by month                 all projects together")]
    Usage(super::UsageArgs),
    /// Bound what a project may use. One that used it up sleeps until the next month, or until it may
    /// use more.
    #[command(after_help = "\
Examples:
  offshoot project set-quota acme --active-time 100h --written-data 5G
  offshoot project set-quota acme --logical-size 10G      what each of its branches may hold
  offshoot project set-quota acme --active-time none

How far they are used up: offshoot project show acme")]
    SetQuota {
        /// Its name or id.
        project: String,
        /// What it may use.
        #[command(flatten)]
        quota: super::QuotaArgs,
    },
    /// Delete a project with all its branches. It can be restored for a week.
    #[command(after_help = "\
Examples:
  offshoot project delete acme
  offshoot project delete acme --yes      where nobody can be asked")]
    Delete {
        /// Its name or id.
        project: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Restore a project that was deleted within the last week.
    #[command(after_help = "Example:\n  offshoot project restore acme")]
    Restore {
        /// Its name or id; `offshoot project list --deleted` has them.
        project: String,
    },
}

/// A project to be created.
#[derive(Args)]
pub struct CreateProjectArgs {
    /// Its name; one is made up where none is said.
    pub name: Option<String>,
    /// The template that it begins as; `default` where none is said.
    #[arg(long)]
    pub template: Option<String>,
    /// The id of the region that it is to be in, for ever; the default one where none is said.
    #[arg(long, value_name = "ID")]
    pub region: Option<String>,
    /// The major version of Postgres.
    #[arg(long, value_name = "MAJOR")]
    pub pg_version: Option<u32>,
    /// What its first branch is called.
    #[arg(long)]
    pub branch: Option<String>,
    /// What its first role is called.
    #[arg(long)]
    pub role: Option<String>,
    /// What its first database is called.
    #[arg(long)]
    pub database: Option<String>,
    /// What can be changed later, too.
    #[command(flatten)]
    pub options: ProjectOptions,
}

/// What can be said of a project at its making, and changed later.
#[derive(Args)]
pub struct ProjectOptions {
    /// How much history is kept: 36h, 7d, at most 30d.
    #[arg(long, value_name = "TIME", value_parser = super::limits::time)]
    pub history: Option<Duration>,
    /// After how long new endpoints are suspended that nobody uses: seconds, `default` or `never`.
    #[arg(long, value_name = "SECONDS|default|never", value_parser = suspend_after)]
    pub suspend_after: Option<i64>,
}

/// What can be done to regions.
#[derive(Subcommand)]
pub enum RegionVerb {
    /// List the regions that projects can be in: the default one is that of projects that ask for none.
    #[command(after_help = "\
Examples:
  offshoot region list
  offshoot project create acme --region eu
  offshoot region list --json | jq -r '.regions[].region_id'

A project stays in its region, with all its bytes, its WAL and its computes. Projects of a region that
is not available are listed, and can be used once it is back. Who runs the control plane says which
regions there are: offshoot control-plane --help")]
    List,
}

/// What can be done to operations: they are what takes time.
#[derive(Subcommand)]
pub enum OperationVerb {
    /// List a project's operations of the last 30 days, the newest first.
    #[command(after_help = "Example:\n  offshoot operation list acme --limit 20")]
    List {
        /// The project, by name or id.
        project: String,
        /// At most so many; all where nothing is said.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show one operation.
    #[command(after_help = "\
Examples:
  offshoot operation show acme 5e3c…            as it is now
  offshoot operation show acme 5e3c… --wait     as it ended")]
    Show {
        /// The project, by name or id.
        project: String,
        /// The operation's id.
        operation: String,
        /// Wait until it has ended.
        #[arg(long)]
        wait: bool,
    },
}

/// Reads `60`, `default` or `never`, as the API takes it.
pub(super) fn suspend_after(text: &str) -> Result<i64, String> {
    match text {
        "default" => Ok(0),
        "never" => Ok(-1),
        _ => {
            let seconds = text.parse::<u32>().ok().filter(|seconds| *seconds > 0);
            seconds.map(i64::from).ok_or_else(|| {
                format!("{text:?} is no such time; write seconds, `default` or `never`")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::suspend_after;

    #[test]
    fn a_suspend_timeout_is_seconds_or_a_word() {
        for (text, seconds) in [("60", 60), ("default", 0), ("never", -1)] {
            assert_eq!(suspend_after(text), Ok(seconds), "{text}");
        }
        for bad in ["0", "-1", "5m", "", "99999999999"] {
            assert!(suspend_after(bad).is_err(), "{bad:?} was taken for seconds");
        }
    }
}
