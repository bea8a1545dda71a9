//! The proxy's options, wherever a control plane runs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use control_plane::{CertificateFiles, ProxyConfig};

/// Seconds; Neon's default, too.
const SUSPEND_AFTER_DEFAULT: &str = "300";

/// The proxy: one address for every endpoint, which starts computes for their clients.
#[derive(Args, Clone)]
pub struct ProxyArgs {
    /// Where the proxy listens, which starts the compute of whoever connects; there is none if not said.
    #[arg(long, value_name = "HOST:PORT")]
    pub proxy: Option<SocketAddr>,
    /// Endpoints are called NAME.DOMAIN where TLS names them.
    #[arg(long, value_name = "DOMAIN", default_value = "localhost")]
    pub domain: String,
    /// The proxy's certificate chain, PEM; it makes and keeps one of its own if not said.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Let the proxy's clients do without TLS.
    #[arg(long)]
    pub allow_plain: bool,
    /// With a proxy, stop a compute that had neither clients nor other work for so many seconds; 0
    /// for never.
    #[arg(long, value_name = "SECONDS", default_value = SUSPEND_AFTER_DEFAULT)]
    pub suspend_after: u64,
}

impl ProxyArgs {
    /// The proxy, where there is to be one; it keeps its own certificate in `folder`.
    pub fn config(&self, folder: PathBuf) -> Option<ProxyConfig> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        Some(ProxyConfig {
            listen: self.proxy?,
            domain: self.domain.clone(),
            certificate: files.map(|(certificate, key)| CertificateFiles { certificate, key }),
            folder,
            plain_allowed: self.allow_plain,
        })
    }

    /// After how long a compute is suspended: never where nothing would start it again.
    pub fn suspend_after(&self) -> Option<Duration> {
        let after = Duration::from_secs(self.suspend_after);
        (self.proxy.is_some() && !after.is_zero()).then_some(after)
    }
}
