//! Roles and databases of branches.

use clap::{Args, Subcommand};

/// Which project and branch.
#[derive(Args)]
pub struct WhereArgs {
    /// The project, by name or id.
    pub project: String,
    /// The branch, by name or id; the default one where none is said.
    #[arg(long)]
    pub branch: Option<String>,
}

/// What can be done to roles.
#[derive(Subcommand)]
pub enum RoleVerb {
    /// Create a role, and say its password.
    #[command(after_help = "\
Examples:
  offshoot role create acme reader
  offshoot role create acme reader --branch try
  offshoot role create acme team --no-login      to be granted to others")]
    Create {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
        /// Its name.
        name: String,
        /// It has no password, and cannot connect.
        #[arg(long)]
        no_login: bool,
    },
    /// List a branch's roles.
    #[command(after_help = "Example:\n  offshoot role list acme")]
    List {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
    },
    /// Delete a role that owns no database.
    #[command(after_help = "Example:\n  offshoot role delete acme reader")]
    Delete {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
        /// Its name.
        name: String,
    },
    /// Give a role a new password, and say it.
    #[command(after_help = "Example:\n  offshoot role reset-password acme app")]
    ResetPassword {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
        /// Its name.
        name: String,
    },
    /// Say a role's password.
    #[command(after_help = "Example:\n  offshoot role reveal-password acme app")]
    RevealPassword {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
        /// Its name.
        name: String,
    },
}

/// What can be done to databases.
#[derive(Subcommand)]
pub enum DatabaseVerb {
    /// Create a database.
    #[command(after_help = "\
Examples:
  offshoot database create acme orders
  offshoot database create acme orders --owner reader --branch try")]
    Create {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
        /// Its name.
        name: String,
        /// The role that owns it; where the branch has but one role, it need not be said.
        #[arg(long, value_name = "ROLE")]
        owner: Option<String>,
    },
    /// List a branch's databases.
    #[command(after_help = "Example:\n  offshoot database list acme")]
    List {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
    },
    /// Give a database another name or owner, one at a time.
    #[command(after_help = "\
Examples:
  offshoot database update acme orders --name sales
  offshoot database update acme orders --owner reader")]
    Update {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
        /// Its name.
        database: String,
        /// What it is to be.
        #[command(flatten)]
        change: DatabaseChange,
    },
    /// Delete a database.
    #[command(after_help = "\
Examples:
  offshoot database delete acme orders
  offshoot database delete acme orders --yes      where nobody can be asked")]
    Delete {
        /// Where.
        #[command(flatten)]
        at: WhereArgs,
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// What of a database is to be changed.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct DatabaseChange {
    /// Its new name.
    #[arg(long)]
    pub name: Option<String>,
    /// Its new owner.
    #[arg(long, value_name = "ROLE")]
    pub owner: Option<String>,
}
