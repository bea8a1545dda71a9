//! Branches of projects.

use std::time::Duration;

use clap::{Args, Subcommand};

/// What can be done to branches.
#[derive(Subcommand)]
pub enum BranchVerb {
    /// Create a branch of another one, at its head or at a moment of its history. It copies nothing.
    #[command(after_help = "\
Examples:
  offshoot branch create acme try                              of the default branch, as it is now
  offshoot branch create acme fix --parent try                 of another branch
  offshoot branch create acme old --lsn 0/1A2B3C8              at an LSN
  offshoot branch create acme old --timestamp 2026-03-01T12:00:00Z      the zone must be said
  offshoot branch create acme empty --schema-only              tables without rows
  offshoot branch create acme kept --no-compute                nothing to connect to, yet

A branch at head has every commit that was acknowledged before the command.")]
    Create {
        /// The project, by name or id.
        project: String,
        /// The new branch's name; one is made up where none is said.
        name: Option<String>,
        /// The branch that it is made of, by name or id; the default one where none is said.
        #[arg(long, value_name = "BRANCH")]
        parent: Option<String>,
        /// The moment.
        #[command(flatten)]
        moment: MomentArgs,
        /// Begin with the parent's tables, and none of their rows.
        #[arg(long)]
        schema_only: bool,
        /// Make no endpoint for it.
        #[arg(long)]
        no_compute: bool,
        /// Protect it against being deleted and put back.
        #[arg(long)]
        protected: bool,
        /// Have it delete itself after this time.
        #[arg(long, value_name = "TIME", value_parser = super::limits::time)]
        expires_in: Option<Duration>,
    },
    /// List a project's branches.
    #[command(after_help = "Example:\n  offshoot branch list acme --search try")]
    List {
        /// The project, by name or id.
        project: String,
        /// Only those whose name or id has this in it.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Show one branch.
    #[command(after_help = "Example:\n  offshoot branch show acme try")]
    Show(BranchArgs),
    /// Give a branch another name.
    #[command(after_help = "Example:\n  offshoot branch rename acme try trial")]
    Rename {
        /// Which branch.
        #[command(flatten)]
        of: BranchArgs,
        /// Its new name.
        name: String,
    },
    /// Make a branch the one that is meant where none is named.
    #[command(after_help = "Example:\n  offshoot branch set-default acme try")]
    SetDefault(BranchArgs),
    /// Protect a branch: it is neither deleted nor put back.
    #[command(after_help = "Example:\n  offshoot branch protect acme main")]
    Protect(BranchArgs),
    /// Take a branch's protection away.
    #[command(after_help = "Example:\n  offshoot branch unprotect acme main")]
    Unprotect(BranchArgs),
    /// Say when a branch deletes itself.
    #[command(after_help = "\
Examples:
  offshoot branch expire acme try --in 2d
  offshoot branch expire acme try --at 2026-03-01T12:00:00Z
  offshoot branch expire acme try --never")]
    Expire {
        /// Which branch.
        #[command(flatten)]
        of: BranchArgs,
        /// When.
        #[command(flatten)]
        when: ExpiryArgs,
    },
    /// Put a branch back to its parent as that is now.
    #[command(after_help = "\
Examples:
  offshoot branch reset acme try
  offshoot branch reset acme try --keep-as before      what it was stays as a branch

Its id, name and endpoint stay. A running compute is started anew.")]
    Reset {
        /// Which branch.
        #[command(flatten)]
        of: BranchArgs,
        /// The name under which the old state is kept; it is given up where none is said.
        #[arg(long, value_name = "NAME")]
        keep_as: Option<String>,
    },
    /// Put a branch back to a moment of its own history, or of another branch's.
    #[command(after_help = "\
Examples:
  offshoot branch restore acme main --timestamp 2026-03-01T11:59:59+01:00 --keep-as before
  offshoot branch restore acme main --lsn 0/1A2B3C8
  offshoot branch restore acme main --from try         as another branch is now

Its id, name and endpoint stay. A running compute is started anew.")]
    Restore {
        /// Which branch.
        #[command(flatten)]
        of: BranchArgs,
        /// The branch whose state it gets; itself where none is said.
        #[arg(long, value_name = "BRANCH", required_unless_present_any = ["lsn", "timestamp"])]
        from: Option<String>,
        /// The moment.
        #[command(flatten)]
        moment: MomentArgs,
        /// The name under which the old state is kept; it is given up where none is said.
        #[arg(long, value_name = "NAME")]
        keep_as: Option<String>,
    },
    /// Print the schema of a branch's database, as pg_dump has it.
    #[command(after_help = "\
Examples:
  offshoot branch schema acme main --database app
  offshoot branch schema acme main --database app --timestamp 2026-03-01T12:00:00Z > then.sql")]
    Schema {
        /// Which branch.
        #[command(flatten)]
        of: BranchArgs,
        /// Which database; the branch's only one where none is said.
        #[arg(long)]
        database: Option<String>,
        /// As of which moment; now where none is said.
        #[command(flatten)]
        moment: MomentArgs,
    },
    /// Delete a branch. What was made of it lives on.
    #[command(after_help = "\
Examples:
  offshoot branch delete acme try
  offshoot branch delete acme try --yes      where nobody can be asked")]
    Delete {
        /// Which branch.
        #[command(flatten)]
        of: BranchArgs,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// A branch of a project.
#[derive(Args)]
pub struct BranchArgs {
    /// The project, by name or id.
    pub project: String,
    /// The branch, by name or id.
    pub branch: String,
}

/// A moment of a branch's history.
#[derive(Args)]
#[group(multiple = false)]
pub struct MomentArgs {
    /// At this LSN.
    #[arg(long)]
    pub lsn: Option<String>,
    /// At this moment, with a zone (RFC 3339).
    #[arg(long)]
    pub timestamp: Option<String>,
}

/// When a branch deletes itself.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct ExpiryArgs {
    /// After this time: 90m, 2d.
    #[arg(long = "in", value_name = "TIME", value_parser = super::limits::time)]
    pub after: Option<Duration>,
    /// At this moment, with a zone (RFC 3339).
    #[arg(long, value_name = "TIMESTAMP")]
    pub at: Option<String>,
    /// It stays.
    #[arg(long)]
    pub never: bool,
}
