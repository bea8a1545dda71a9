//! The proxy's certificate: a given one, or one that it makes for itself and keeps.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use access::files::{PUBLIC, SECRET, replace};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_cert::{
    Certificate,
    der::{Decode, oid::ObjectIdentifier},
};

use super::{scram::signature, session_keys::Secrets};
use crate::Error;

/// The name of Postgres' protocol in ALPN: src/include/libpq/pqcomm.h of Postgres 17.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// Where a certificate's chain and its key are, both in PEM.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What TLS needs, made once.
pub(crate) struct Tls {
    config: ServerConfig,
    /// The digest that connections are bound to (RFC 5929, `tls-server-end-point`); none where the
    /// certificate's signature has no digest that libpq would know.
    pub binding: Option<Vec<u8>>,
    /// A secret that stays the same as long as the key does.
    pub secret: [u8; 32],
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: &CertificateFiles) -> Result<Tls, Error> {
        let bad = |path: &Path, reason: String| Error::Folder {
            path: path.to_owned(),
            reason: io::Error::new(io::ErrorKind::InvalidData, reason),
        };
        let certificate = &files.certificate;
        let chain: Vec<CertificateDer> =
            CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(
                |error| bad(certificate, format!("a certificate in PEM was expected: {error}")),
            )?;
        let first = chain.first().ok_or_else(|| {
            bad(certificate, "a certificate in PEM was expected, and none is there".to_owned())
        })?;
        let binding = end_point(first).map_err(|error| {
            bad(certificate, format!("the certificate cannot be read: {error}"))
        })?;
        if binding.is_none() {
            tracing::warn!(
                certificate = %certificate.display(),
                "no channel binding is offered: the certificate's signature names no digest of RFC 5929"
            );
        }
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
            bad(&files.key, format!("a private key in PEM was expected: {error}"))
        })?;
        let secret = signature(key.secret_der(), &[b"offshoot: roles that do not exist"]);
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
                .map_err(|error| {
                    bad(&files.key, format!("certificate and key do not fit: {error}"))
                })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // For backends that go on with a session.
        config.enable_secret_extraction = true;
        Ok(Tls { config, binding, secret })
    }

    /// The settings for one connection, whose secrets are noted.
    pub(crate) fn config_with(&self, secrets: Arc<Secrets>) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.key_log = secrets;
        Arc::new(config)
    }
}

/// The files of a certificate that signs itself, for the domain, everything below it, and loopback;
/// made now where they are not there. Clients that check certificates name it as their root.
pub(crate) fn self_made(folder: &Path, domain: &str) -> Result<CertificateFiles, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |reason| Error::Folder { path, reason }
    };
    let files =
        CertificateFiles { certificate: folder.join("proxy.crt"), key: folder.join("proxy.key") };
    if files.certificate.exists() {
        return Ok(files);
    }
    let names = [domain, &format!("*.{domain}"), "localhost", "127.0.0.1", "::1"];
    let mut names: Vec<String> = names.map(str::to_owned).into();
    names.dedup();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(names).map_err(|error| {
            Error::Invalid(format!("no certificate can be made for the domain {domain:?}: {error}"))
        })?;
    // The certificate last: where it is, its key is, too.
    replace(&files.key, &signing_key.serialize_pem(), SECRET).map_err(failed(&files.key))?;
    replace(&files.certificate, &cert.pem(), PUBLIC).map_err(failed(&files.certificate))?;
    Ok(files)
}

/// The digest of a certificate by the hash of its own signature, MD5 and SHA-1 raised to SHA-256:
/// `be_tls_get_certificate_hash` (src/backend/libpq/be-secure-openssl.c).
fn end_point(certificate: &[u8]) -> Result<Option<Vec<u8>>, x509_cert::der::Error> {
    let parsed = Certificate::from_der(certificate)?;
    Ok(match hash_of(parsed.signature_algorithm().oid) {
        Some(Hash::Sha224) => Some(Sha224::digest(certificate).to_vec()),
        Some(Hash::Sha256) => Some(Sha256::digest(certificate).to_vec()),
        Some(Hash::Sha384) => Some(Sha384::digest(certificate).to_vec()),
        Some(Hash::Sha512) => Some(Sha512::digest(certificate).to_vec()),
        None => None,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Which hash a signature algorithm has; RSA-PSS and Ed25519 have none of their own.
fn hash_of(algorithm: ObjectIdentifier) -> Option<Hash> {
    // RFC 8017 (1.2.840.113549.1.1) and RFC 5758 (1.2.840.10045.4).
    match algorithm.to_string().as_str() {
        // MD5, SHA-1, SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => {
            Some(Hash::Sha256)
        }
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => Some(Hash::Sha256),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(Hash::Sha224),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Hash::Sha384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Hash::Sha512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    #[test]
    fn the_self_made_certificate_is_kept_and_its_key_is_closed_to_others() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let first = Tls::load(&self_made(folder.path(), "db.test")?)?;
        let files = self_made(folder.path(), "db.test")?;
        let again = Tls::load(&files)?;
        assert_eq!((first.binding, first.secret), (again.binding, again.secret));
        assert_eq!(fs::metadata(&files.key)?.permissions().mode() & 0o777, 0o600);
        Ok(())
    }

    #[test]
    fn a_connection_is_bound_by_the_hash_of_the_certificates_own_signature() -> anyhow::Result<()> {
        let made = |algorithm| -> anyhow::Result<Vec<u8>> {
            let key = KeyPair::generate_for(algorithm)?;
            let certificate = CertificateParams::new(vec!["db.test".into()])?.self_signed(&key)?;
            Ok(certificate.der().to_vec())
        };
        let certificate = made(&PKCS_ECDSA_P384_SHA384)?;
        let expected = Sha384::digest(&certificate).to_vec();
        assert_eq!(end_point(&certificate)?, Some(expected));
        assert_eq!(end_point(&made(&PKCS_ED25519)?)?, None);
        let md5 = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4");
        assert_eq!(hash_of(md5), Some(Hash::Sha256));
        Ok(())
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let files = self_made(folder.path(), "db.test")?;
        fs::write(&files.certificate, "nonsense")?;
        let refused = Tls::load(&files).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("proxy.crt"), "{refused}");
        Ok(())
    }
}
