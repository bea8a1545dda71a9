//! Connecting to a branch.

use std::path::PathBuf;

use clap::Args;

use super::MomentArgs;

/// As whom, and to what.
#[derive(Args)]
pub struct ConnectArgs {
    /// The project, by name or id.
    pub project: String,
    /// The branch, by name or id; the default one where none is said.
    pub branch: Option<String>,
    /// The endpoint, by name or id: one to read only, of which a branch may have several.
    #[arg(long, conflicts_with = "branch")]
    pub endpoint: Option<String>,
    /// The role; the database's owner where none is said.
    #[arg(long)]
    pub role: Option<String>,
    /// The database; where the branch has but one, it need not be said.
    #[arg(long)]
    pub database: Option<String>,
    /// As the branch was then, for reading only; as it is now where no moment is said.
    #[command(flatten)]
    pub moment: MomentArgs,
}

/// Connect with psql through the proxy, which starts the branch's compute where it sleeps.
#[derive(Args)]
#[command(after_help = "\
Examples:
  offshoot psql acme
  offshoot psql acme try -- -c 'select count(*) from orders'
  offshoot psql acme --role reader --database orders
  offshoot psql acme --endpoint reports                        an endpoint to read only
  offshoot psql acme --trace -- -c 'select 1'                  what waking it took, stage by stage
  offshoot psql acme try --lsn 0/1A2B3C8                       as it was, for reading
  offshoot psql acme --timestamp 2026-03-01T12:00:00Z

The password goes to psql by its environment. `offshoot up --proxy HOST:PORT` runs a proxy.")]
pub struct PsqlArgs {
    /// To what.
    #[command(flatten)]
    pub to: ConnectArgs,
    /// The folder with psql, where it is neither on PATH nor in Debian's places.
    #[arg(long, value_name = "DIR", env = "OFFSHOOT_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// When psql has ended, say on standard error what each stage of the last start took, up to the
    /// first client that was in.
    #[arg(long)]
    pub trace: bool,
    /// What psql is told besides.
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// Print the connection string of a branch, password included.
#[derive(Args)]
#[command(after_help = "\
Examples:
  offshoot connection-string acme
  offshoot connection-string acme try --role reader --database orders
  offshoot connection-string acme --timestamp 2026-03-01T12:00:00Z      to read what was then
  DATABASE_URL=$(offshoot connection-string acme) ./server")]
pub struct ConnectionStringArgs {
    /// To what.
    #[command(flatten)]
    pub to: ConnectArgs,
    /// By the pooler's name.
    #[arg(long)]
    pub pooled: bool,
}
