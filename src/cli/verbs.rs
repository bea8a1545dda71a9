//! The verbs that talk to a running `offshoot up`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ComputeRunArgs, roles::setting};

/// What can be done to tenants.
#[derive(Subcommand)]
pub enum TenantVerb {
    /// Make a tenant: one small write, whatever the size of the template.
    #[command(after_help = "\
Examples:
  offshoot tenant create acme
  offshoot tenant create acme --template shop    from a template of your own
  offshoot tenant create acme --json")]
    Create {
        /// Its name: small letters, digits, '-' and '_'.
        name: String,
        /// The template that its first branch, main, begins as; `default` where none is said.
        #[arg(long)]
        template: Option<String>,
        /// How much history is kept.
        #[command(flatten)]
        history: HistoryArgs,
    },
    /// List all tenants.
    List,
    /// Say how much history a tenant keeps. What a shorter window leaves behind is given up for
    /// ever; what branches begin at is kept as long as they are there.
    #[command(after_help = "\
Examples:
  offshoot tenant keep acme --days 30                     every moment of the last 30 days
  offshoot tenant keep acme --days 1 --wal-bytes 10000000000    the more of both")]
    Keep {
        /// Its name or id.
        tenant: String,
        /// How much.
        #[command(flatten)]
        history: HistoryArgs,
    },
    /// Say what tenants take and give: their size, what they store, WAL written, pages read.
    #[command(after_help = "\
Examples:
  offshoot tenant usage           every tenant
  offshoot tenant usage acme      one, by branch

size     bytes of its relations, as of the last layer written
stored   bytes of its layers in the object store
unique   of those, what no branch made from it reads
shared   of those, what branches made from it read as well
inherits bytes of others' layers that it reads
wal      bytes of WAL since it began
reads    pages that computes have read")]
    Usage {
        /// Its name or id; all tenants where none is said.
        tenant: Option<String>,
    },
    /// Show one tenant and its branches.
    Show {
        /// Its name or id.
        tenant: String,
    },
    /// Have another pageserver serve a tenant. Its computes run on: what they read pauses for a
    /// moment.
    #[command(after_help = "\
Example:
  offshoot tenant move acme --to b    b is what its pageserver was started with as --name")]
    Move {
        /// Its name or id.
        tenant: String,
        /// The pageserver's name.
        #[arg(long, value_name = "PAGESERVER")]
        to: String,
    },
    /// Branches of a tenant, as the storage has them.
    #[command(subcommand)]
    Branch(TenantBranchVerb),
    /// Connect to a tenant's branch with psql, without the proxy and without a password; the branch's
    /// compute is started where it does not run.
    Psql(TenantPsqlArgs),
    /// Delete a tenant with all its branches and their history. There is no way back.
    Delete {
        /// Its name or id.
        tenant: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// A window of history.
#[derive(Args, Clone, Copy)]
pub struct HistoryArgs {
    /// Keep every moment of so many days; a week where nothing is said.
    #[arg(long, value_name = "N")]
    pub days: Option<u64>,
    /// Keep so many bytes of WAL until the last record.
    #[arg(long, value_name = "N")]
    pub wal_bytes: Option<u64>,
}

/// Compare the object store with what manifests name, and read every layer.
#[derive(Args)]
#[command(after_help = "\
Examples:
  offshoot scrub --store s3://bucket/prefix
  offshoot scrub --store file:///var/lib/offshoot/store --remove-unnamed

It finds objects that no manifest names, as a crash leaves them; objects that one names and that are
not there; and damage in any part of any layer. It mends nothing. It may run beside a pageserver.
The exit code is 1 where something is missing or damaged.")]
pub struct ScrubArgs {
    /// The object store: s3://bucket/prefix or file:///folder.
    #[arg(long, value_name = "URL", env = "OFFSHOOT_STORE")]
    pub store: String,
    /// Remove the objects that no manifest names.
    #[arg(long)]
    pub remove_unnamed: bool,
    /// Of those, only such as are older than so many hours: a younger one may still get its name.
    #[arg(long, value_name = "HOURS", default_value_t = 24, requires = "remove_unnamed",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub older_than: u64,
}

/// What can be done to a tenant's branches.
#[derive(Subcommand)]
pub enum TenantBranchVerb {
    /// Make a branch of another one, at its head or at a moment of its history.
    #[command(after_help = "\
Examples:
  offshoot tenant branch create acme try                               main, now
  offshoot tenant branch create acme fix --from try                    another branch, now
  offshoot tenant branch create acme old --at 0/1A2B3C8                an LSN
  offshoot tenant branch create acme old --at 2026-03-01T12:00:00Z     a moment; the zone must be said
  offshoot tenant branch create acme old --at snapshot:release-7       a snapshot

An LSN inside a WAL record is rounded down to the record before it, and the answer says so.
A branch at head has every commit that was acknowledged before the command.")]
    Create {
        /// The tenant, by name or id.
        tenant: String,
        /// The new branch's name.
        name: String,
        /// The branch that it is made of: main where none is said. A snapshot says it itself.
        #[arg(long)]
        from: Option<String>,
        /// The moment: an LSN, a timestamp with a zone (RFC 3339), or a snapshot; now where none is
        /// said.
        #[arg(long, value_name = "LSN|TIMESTAMP|snapshot:NAME")]
        at: Option<String>,
    },
    /// List a tenant's branches with their sizes and ancestry.
    List {
        /// The tenant, by name or id.
        tenant: String,
    },
    /// Show one branch.
    Show {
        /// The tenant, by name or id.
        tenant: String,
        /// The branch, by name or id.
        branch: String,
    },
    /// Put a branch back to a moment of its history, in place. A running compute is started anew
    /// on the same port.
    #[command(after_help = "\
Examples:
  offshoot tenant branch restore acme main --at 2026-03-01T11:59:59+01:00
  offshoot tenant branch restore acme main --at 0/1A2B3C8 --keep-as before-the-mistake
  offshoot tenant branch restore acme main --at snapshot:release-7

The state before the restore stays as a branch of its own; nothing is lost by a restore.")]
    Restore {
        /// The tenant, by name or id.
        tenant: String,
        /// The branch, by name or id.
        branch: String,
        /// The moment: an LSN, a timestamp with a zone (RFC 3339), or a snapshot.
        #[arg(long, value_name = "LSN|TIMESTAMP|snapshot:NAME")]
        at: String,
        /// The name under which the old state is kept; one is made up where none is said.
        #[arg(long, value_name = "NAME")]
        keep_as: Option<String>,
    },
    /// Delete a branch that no other was made of and that has no snapshots.
    Delete {
        /// The tenant, by name or id.
        tenant: String,
        /// The branch, by name or id.
        branch: String,
    },
}

/// What can be done to snapshots.
#[derive(Subcommand)]
pub enum SnapshotVerb {
    /// Keep a moment of a branch's history under a name, however short the tenant's window is.
    #[command(after_help = "\
Examples:
  offshoot snapshot create acme main release-7                           now
  offshoot snapshot create acme main noon --at 2026-03-01T12:00:00Z      a moment of its history

Later: offshoot tenant branch create acme try --at snapshot:release-7
       offshoot tenant branch restore acme main --at snapshot:release-7")]
    Create {
        /// The tenant, by name or id.
        tenant: String,
        /// The branch, by name or id.
        branch: String,
        /// The snapshot's name, which no other of the tenant has.
        name: String,
        /// The moment: an LSN, a timestamp with a zone (RFC 3339), or another snapshot of the
        /// branch; now where none is said.
        #[arg(long, value_name = "LSN|TIMESTAMP|snapshot:NAME")]
        at: Option<String>,
    },
    /// List a branch's snapshots.
    List {
        /// The tenant, by name or id.
        tenant: String,
        /// The branch, by name or id.
        #[arg(default_value = "main")]
        branch: String,
    },
    /// Delete a snapshot. What it alone kept is given up within some minutes, and for ever.
    Delete {
        /// The tenant, by name or id.
        tenant: String,
        /// The branch, by name or id.
        branch: String,
        /// The snapshot's name.
        name: String,
    },
}

/// What can be done to templates.
#[derive(Subcommand)]
pub enum TemplateVerb {
    /// Make a template of a cleanly stopped data directory, its extensions and data included.
    #[command(after_help = "\
Example:
  pg_ctl stop -D /srv/seed -m fast
  offshoot template import shop --pgdata /srv/seed
  offshoot tenant create acme --template shop

The directory is only read. One that is running, was not stopped cleanly, or is of a Postgres major
that is not served is refused, with the reason.")]
    Import {
        /// The template's name.
        name: String,
        /// The data directory, on the pageserver's machine.
        #[arg(long, value_name = "DIR")]
        pgdata: PathBuf,
    },
    /// Publish a moment of a project's branch as a template, without its roles' passwords.
    #[command(after_help = "\
Examples:
  offshoot template create shop --project acme                        the default branch, as it is now
  offshoot template create shop-2 --project acme --branch seed --lsn 0/1A2B3C8
  offshoot project create zeta --template shop

It is a copy: what happens to the project afterwards changes nothing of it. A new version is a template
of another name; projects that were made of the old one stay as they are. It is in its project's region,
and projects of that region can be made of it: publish one in each region that is to have it.")]
    Create {
        /// The template's name.
        name: String,
        /// The project, by name or id.
        #[arg(long)]
        project: String,
        /// The branch, by name or id; the default one where none is said.
        #[arg(long)]
        branch: Option<String>,
        /// The moment; the branch's head where none is said.
        #[command(flatten)]
        moment: super::MomentArgs,
    },
    /// List all templates.
    #[command(after_help = "Example:\n  offshoot template list")]
    List,
    /// Show one template, and how far it is where it is being made.
    #[command(after_help = "Example:\n  offshoot template show shop")]
    Show {
        /// Its name or id.
        template: String,
        /// Its region, where several have one of this name.
        #[arg(long, value_name = "ID")]
        region: Option<String>,
    },
    /// Delete a template that no project or tenant is made of.
    #[command(after_help = "\
Examples:
  offshoot template delete shop
  offshoot template delete shop --region eu")]
    Delete {
        /// Its name or id.
        template: String,
        /// Its region, where several have one of this name.
        #[arg(long, value_name = "ID")]
        region: Option<String>,
    },
}

/// What can be done to API keys.
#[derive(Subcommand)]
pub enum ApiKeyVerb {
    /// Make an API key. It is shown this once.
    #[command(after_help = "Example:\n  offshoot api-key create deploy")]
    Create {
        /// What it is for.
        name: String,
    },
    /// List the API keys, without themselves.
    #[command(after_help = "Example:\n  offshoot api-key list")]
    List,
    /// Revoke an API key. It is refused from the next request on.
    #[command(after_help = "Example:\n  offshoot api-key revoke 3")]
    Revoke {
        /// Its id: `offshoot api-key list` has it.
        id: i64,
    },
}

/// What can be done to computes.
#[derive(Subcommand)]
pub enum ComputeVerb {
    /// Start the compute of a branch, and wait until it accepts connections.
    #[command(after_help = "\
Examples:
  offshoot compute start acme
  offshoot compute start acme try --port 5433
  offshoot compute start acme main@0/1A2B3C8      as the branch was then, read-only
  offshoot compute start acme --trace             what each stage of the start took
  offshoot compute start acme --set work_mem=64MB --set max_prepared_transactions=10")]
    Start {
        /// The tenant, by name or id.
        tenant: String,
        /// The branch, by name or id.
        #[arg(default_value = "main")]
        branch: String,
        /// The port; the branch's last one, or a free one, where none is said.
        #[arg(long)]
        port: Option<u16>,
        /// A setting for postgresql.conf; may be said more than once. The branch's last ones where
        /// none is said.
        #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
        settings: Vec<(String, String)>,
        /// Say what each stage of its start took; of the last one, where it runs already.
        #[arg(long)]
        trace: bool,
    },
    /// Stop the compute of a branch. Its folder is thrown away: nothing in it is needed.
    Stop {
        /// The tenant, by name or id.
        tenant: String,
        /// The branch, by name or id.
        #[arg(default_value = "main")]
        branch: String,
    },
    /// List the computes.
    List,
    /// Be a compute, in this process, until it is told to stop. The control plane runs this.
    Run(Box<ComputeRunArgs>),
}

/// Connect with psql.
#[derive(Args)]
#[command(after_help = "\
Examples:
  offshoot tenant psql acme
  offshoot tenant psql acme try -- -c 'select count(*) from orders'
  offshoot tenant psql acme -- -U postgres -d postgres     as the superuser

The role and the database are app, unless psql is told otherwise after --. It goes by the compute's
Unix socket, whose folder only root may enter: as another user, run it with sudo.")]
pub struct TenantPsqlArgs {
    /// The tenant, by name or id.
    pub tenant: String,
    /// The branch, by name or id.
    #[arg(default_value = "main")]
    pub branch: String,
    /// The folder with psql, where it is neither on PATH nor in Debian's places.
    #[arg(long, value_name = "DIR", env = "OFFSHOOT_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// What psql is told besides.
    #[arg(last = true)]
    pub arguments: Vec<String>,
}
