//! The proxy's options, wherever a control plane runs.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use control_plane::{CertificateFiles, ConnectAt, ProxyConfig};

/// Where connection strings lead while there is no proxy: to the address that one is expected at.
const PROXY_EXPECTED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6432);
/// Names below it lead to this machine, but not on every system.
const DOMAIN_DEFAULT: &str = "localhost";
/// Seconds; Neon's default, too.
const SUSPEND_AFTER_DEFAULT: &str = "300";

/// The proxy: one address for every endpoint, which starts computes for their clients.
#[derive(Args, Clone)]
pub struct ProxyArgs {
    /// Where the proxy listens, which starts the compute of whoever connects; there is none if not said.
    #[arg(long, value_name = "HOST:PORT")]
    pub proxy: Option<SocketAddr>,
    /// Endpoints are called NAME.DOMAIN where TLS names them.
    #[arg(long, value_name = "DOMAIN", default_value = DOMAIN_DEFAULT)]
    pub domain: String,
    /// The proxy's certificate chain, PEM; it makes and keeps one of its own if not said.
    #[arg(long, value_name = "FILE", requires = "proxy_key")]
    pub proxy_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "proxy_cert")]
    pub proxy_key: Option<PathBuf>,
    /// Let the proxy's clients do without TLS.
    #[arg(long)]
    pub allow_plain: bool,
    /// With a proxy, stop a compute that had neither clients nor other work for so many seconds, where
    /// its endpoint says nothing else; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value = SUSPEND_AFTER_DEFAULT)]
    pub suspend_after: u64,
}

impl ProxyArgs {
    /// The proxy, where there is to be one; it keeps its own certificate in `folder`.
    pub fn config(&self, folder: PathBuf) -> Option<ProxyConfig> {
        let files = self.proxy_cert.clone().zip(self.proxy_key.clone());
        Some(ProxyConfig {
            listen: self.proxy?,
            domain: self.domain.clone(),
            certificate: files.map(|(certificate, key)| CertificateFiles { certificate, key }),
            folder,
            plain_allowed: self.allow_plain,
        })
    }

    /// Where connection strings lead. Without a domain of one's own they name the endpoint in their
    /// options.
    pub fn connect_at(&self) -> ConnectAt {
        let address = self.proxy.unwrap_or(PROXY_EXPECTED);
        let domain = (self.domain != DOMAIN_DEFAULT).then(|| self.domain.clone());
        ConnectAt { domain, host: address.ip(), port: address.port() }
    }

    /// After how long a compute is suspended: never where nothing would start it again.
    pub fn suspend_after(&self) -> Option<Duration> {
        let after = Duration::from_secs(self.suspend_after);
        (self.proxy.is_some() && !after.is_zero()).then_some(after)
    }
}
