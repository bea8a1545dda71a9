//! Certificates for a fleet that has none of its own: one that signs, and one for the processes.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{TlsError, certificate::content};
use crate::files;

/// How long the signing certificate is good.
const SIGNER_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Clocks differ: what is made is good since a little earlier.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

/// What is in a folder of certificates.
pub struct SignerFiles {
    /// The signing certificate, for `--tls-ca`.
    pub ca: PathBuf,
    /// Its key, which no process needs.
    pub ca_key: PathBuf,
    /// The processes' certificate, for `--tls-cert`.
    pub certificate: PathBuf,
    /// Its key, for `--tls-key`.
    pub key: PathBuf,
}

impl SignerFiles {
    /// Those in this folder.
    pub fn of(folder: &Path) -> SignerFiles {
        let [ca, ca_key, certificate, key] =
            ["ca.crt", "ca.key", "server.crt", "server.key"].map(|name| folder.join(name));
        SignerFiles { ca, ca_key, certificate, key }
    }

    /// Makes a certificate for these addresses and names, in place of the one that is there. Who
    /// signs it is made, too, where nobody is there yet.
    pub fn make(&self, names: &[String], now: SystemTime, life: Duration) -> Result<(), TlsError> {
        let issuer = self.issuer(now)?;
        let mut params = params(now, life);
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => name.as_str().try_into().map(SanType::DnsName),
            })
            .collect::<Result<_, _>>()
            .map_err(|error| content(&self.certificate, "an address or a name", error))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = made(&self.key, KeyPair::generate())?;
        let certificate = made(&self.certificate, params.signed_by(&key, &issuer))?;
        write(&self.key, &key.serialize_pem(), files::SECRET)?;
        write(&self.certificate, &certificate.pem(), files::PUBLIC)
    }

    /// Who signs: what it says of itself is the same each time, so its key is all that is kept.
    fn issuer(&self, now: SystemTime) -> Result<Issuer<'static, KeyPair>, TlsError> {
        let mut params = params(now, SIGNER_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "Offshoot's processes");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = match fs::read_to_string(&self.ca_key) {
            Ok(pem) => made(&self.ca_key, KeyPair::from_pem(&pem))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = made(&self.ca_key, KeyPair::generate())?;
                let certificate = made(&self.ca, params.self_signed(&key))?;
                // The key last: where it is, its certificate is, too.
                write(&self.ca, &certificate.pem(), files::PUBLIC)?;
                write(&self.ca_key, &key.serialize_pem(), files::SECRET)?;
                key
            }
            Err(reason) => return Err(TlsError::File { path: self.ca_key.clone(), reason }),
        };
        Ok(Issuer::new(params, key))
    }
}

fn params(now: SystemTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (now - CLOCKS_DIFFER).into();
    params.not_after = (now + life).into();
    params
}

fn made<T>(path: &Path, made: Result<T, rcgen::Error>) -> Result<T, TlsError> {
    made.map_err(|error| content(path, "a certificate or a key", error))
}

fn write(path: &Path, pem: &str, mode: u32) -> Result<(), TlsError> {
    files::replace(path, pem, mode)
        .map_err(|reason| TlsError::File { path: path.to_owned(), reason })
}
