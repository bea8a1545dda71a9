//! What a process shows to those who come to it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{IntGauge, register_int_gauge};
use tokio_rustls::rustls::{
    self, InconsistentKeys, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_cert::{Certificate as Parsed, der::Decode};

use super::{TlsError, watched::Watched};

/// A private key is not for everybody.
const EVERYBODY: u32 = 0o007;

/// When the certificate ends that is shown.
static ENDS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!(
        "offshoot_tls_certificate_not_after_seconds",
        "When the certificate ends that this process shows, in seconds since 1970"
    )
    .expect("the name is taken once")
});

/// A certificate and its key, in two files that are read again when they change.
#[derive(Clone)]
pub struct Certificate {
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads the chain, the own certificate first, and the private key, both in PEM.
    pub fn load(certificate: &Path, key: &Path) -> Result<Certificate, TlsError> {
        let files = vec![certificate.to_owned(), key.to_owned()];
        let shown = Shown(Watched::new(files, |files| read(files, SystemTime::now()))?);
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("the provider has TLS 1.3")
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(shown));
        // Connections live long; one that is taken up again would not be shown the certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Certificate { config: Arc::new(config) })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate(…)")
    }
}

struct Shown(Watched<Arc<CertifiedKey>>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shown({})", self.0.path().display())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.get()))
    }
}

fn read(files: &[PathBuf], now: SystemTime) -> Result<Arc<CertifiedKey>, TlsError> {
    let [certificate, key] = files else { unreachable!("they are the two that were given") };
    let chain = chain(certificate)?;
    let own = chain.first().expect("a chain has one at least");
    let ends = ends(own, certificate)?;
    if let Ok(ago) = now.duration_since(ends) {
        return Err(TlsError::Ended { path: certificate.clone(), ago: ago.as_secs() });
    }
    let pair = CertifiedKey::from_der(chain, private_key(key)?, &aws_lc_rs::default_provider());
    let pair = pair.map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::NoPair { certificate: certificate.clone(), key: key.clone() }
        }
        other => content(key, "a private key", other),
    })?;
    let seconds = ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    ENDS.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    Ok(Arc::new(pair))
}

/// All certificates in a file, one at least.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(path).map_err(|reason| TlsError::File { path: path.to_owned(), reason })?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| content(path, "a certificate", error))?;
    match chain.is_empty() {
        true => Err(content(path, "a certificate", "there is none")),
        false => Ok(chain),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |reason| TlsError::File { path: path.to_owned(), reason };
    let pem = fs::read(path).map_err(failed)?;
    if fs::metadata(path).map_err(failed)?.permissions().mode() & EVERYBODY != 0 {
        return Err(TlsError::Open { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| content(path, "a private key", error))
}

fn ends(certificate: &CertificateDer<'_>, path: &Path) -> Result<SystemTime, TlsError> {
    let parsed = Parsed::from_der(certificate);
    let parsed = parsed.map_err(|error| content(path, "a certificate", error))?;
    Ok(UNIX_EPOCH + parsed.tbs_certificate().validity().not_after.to_unix_duration())
}

pub(super) fn content(path: &Path, wanted: &'static str, reason: impl ToString) -> TlsError {
    TlsError::Content { path: path.to_owned(), wanted, reason: reason.to_string() }
}
