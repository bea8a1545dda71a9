//! Who may ask the processes for what.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use protocol::{TenantId, token::Scope};

use super::limits::time;

/// Where `offshoot up` leaves the token for those who operate it.
pub const TOKEN_FILE_DEFAULT: &str = "/var/lib/offshoot/auth/operator-token";

/// How long a compute's token is good.
const COMPUTE_TOKEN_LIFE_DEFAULT: &str = "5m";

/// The token of whoever operates the storage: for tenants and what is below them.
#[derive(Args)]
#[command(next_help_heading = "Storage")]
pub struct OperatorArgs {
    /// The file with an operator's token.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "OFFSHOOT_TOKEN_FILE",
        default_value = TOKEN_FILE_DEFAULT
    )]
    pub token_file: PathBuf,
}

/// Whom a safekeeper or a pageserver lets in, and what it shows to others.
#[derive(Args, Clone)]
#[command(next_help_heading = "Tokens")]
pub struct DoorArgs {
    /// The public keys whose tokens are taken: one, and two while keys are exchanged.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',', env = "OFFSHOOT_AUTH_PUBLIC_KEY")]
    pub auth_public_key: Vec<PathBuf>,
    /// The file with the token that the other servers are shown; read anew for each connection.
    #[arg(long, value_name = "FILE", env = "OFFSHOOT_AUTH_TOKEN")]
    pub auth_token: Option<PathBuf>,
    /// Let everybody in who reaches this process; on loopback only.
    #[arg(long, conflicts_with_all = ["auth_public_key", "auth_token"])]
    pub no_auth: bool,
}

/// What a control plane signs tokens with.
#[derive(Args, Clone)]
#[command(next_help_heading = "Tokens")]
pub struct SignerArgs {
    /// The key that signs tokens for computes and for this control plane.
    #[arg(long, value_name = "FILE", env = "OFFSHOOT_AUTH_KEY")]
    pub auth_key: Option<PathBuf>,
    /// Further public keys whose tokens are taken, while keys are exchanged.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',', requires = "auth_key")]
    pub auth_public_key: Vec<PathBuf>,
    /// Let everybody in who reaches this process; on loopback only.
    #[arg(long, conflicts_with = "auth_key")]
    pub no_auth: bool,
    /// The computes' tokens.
    #[command(flatten)]
    pub computes: ComputeTokenArgs,
}

/// The computes' tokens.
#[derive(Args, Clone)]
pub struct ComputeTokenArgs {
    /// How long a compute's token is good. A running compute is brought a newer one after half of it.
    #[arg(
        long,
        value_name = "TIME",
        env = "OFFSHOOT_COMPUTE_TOKEN_LIFE",
        default_value = COMPUTE_TOKEN_LIFE_DEFAULT,
        value_parser = life
    )]
    pub compute_token_life: Duration,
}

/// Keys, tokens and certificates.
#[derive(Subcommand)]
pub enum AuthVerb {
    /// Make a key that signs tokens, and its public half beside it as FILE.pub.
    #[command(after_help = "\
Example:
  offshoot auth key /srv/offshoot/key
  offshoot control-plane --auth-key /srv/offshoot/key …
  offshoot pageserver --auth-public-key /srv/offshoot/key.pub --auth-token /srv/offshoot/peer-token …

Who has the key may do everything: it belongs to the control plane alone. To exchange it, have every
process take both public keys, then sign with the new one, then have them take that alone.")]
    Key {
        /// The key's file, which must not exist.
        file: PathBuf,
    },
    /// Sign a token, and print it.
    #[command(after_help = "\
Examples:
  offshoot auth token --key key --for peer --life 365d > peer-token      for --auth-token
  offshoot auth token --key key --for operator > operator-token          for OFFSHOOT_TOKEN_FILE
  offshoot auth token --key key --for TENANT-ID --life 1h                for one tenant's timelines")]
    Token {
        /// The key that signs it.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// What it is for: operator, peer (a pageserver or a safekeeper), or a tenant's id.
        #[arg(long = "for", value_name = "operator|peer|TENANT-ID", value_parser = scope)]
        scope: Scope,
        /// How long it is good.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = life)]
        life: Duration,
    },
    /// Make a certificate for TLS between the processes, and one that signs it.
    #[command(after_help = "\
Example:
  offshoot auth certificates /srv/tls --for 10.0.0.1,10.0.0.2,127.0.0.1,db.example.com
  offshoot up --tls-cert /srv/tls/server.crt --tls-key /srv/tls/server.key --tls-ca /srv/tls/ca.crt
  export OFFSHOOT_TLS_CA=/srv/tls/ca.crt                        for the command line

The same command later makes a newer certificate, signed by the same one; processes take it without
being started anew. ca.key is for no process: keep it elsewhere.")]
    Certificates {
        /// The folder for ca.crt, ca.key, server.crt and server.key.
        folder: PathBuf,
        /// The addresses, and the names, that the processes are called by.
        #[arg(long = "for", value_name = "LIST", value_delimiter = ',', required = true)]
        names: Vec<String>,
        /// How long it is good.
        #[arg(long, value_name = "TIME", default_value = "365d", value_parser = life)]
        life: Duration,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "operator" => Ok(Scope::Operator),
        "peer" => Ok(Scope::Peer),
        id => id.parse::<TenantId>().map(Scope::Tenant).map_err(|_| {
            format!("{id:?} is neither operator nor peer nor a tenant's id of 32 digits")
        }),
    }
}

fn life(text: &str) -> Result<Duration, String> {
    let life = time(text)?;
    if life < Duration::from_secs(2) {
        return Err(format!("{text:?} is too short for a token: at least 2s"));
    }
    Ok(life)
}
