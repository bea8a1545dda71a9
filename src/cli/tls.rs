//! How processes prove themselves to each other, and what goes between them is encrypted.

use std::path::PathBuf;

use clap::Args;

/// Whom this process believes.
#[derive(Args)]
#[command(next_help_heading = "TLS")]
pub struct TrustArgs {
    /// The certificates that those of the servers are signed by, in PEM. Where they are given, servers
    /// are called by TLS alone.
    #[arg(long, global = true, value_name = "FILE", env = "OFFSHOOT_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
}

/// What a server proves itself with.
#[derive(Args, Clone)]
#[command(next_help_heading = "TLS")]
pub struct CertificateArgs {
    /// The certificate for the addresses of this process, and those between it and --tls-ca, in PEM;
    /// read anew when it changes. With it all ports speak TLS, but for Postgres' own.
    #[arg(long, value_name = "FILE", env = "OFFSHOOT_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", env = "OFFSHOOT_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
}
