//! What the roles prove themselves with, and whom they believe.

use ::access::tls::{Certificate, Trust};

use crate::{
    cli::{CertificateArgs, TrustArgs},
    failure::Failure,
};

/// Whom this process believes when it calls others.
pub fn trust(args: &TrustArgs) -> Result<Trust, Failure> {
    match &args.tls_ca {
        None => Ok(Trust::default()),
        Some(file) => {
            let file = super::control_plane::absolute(file)?;
            Trust::load(&file).map_err(|error| Failure::new(format!("--tls-ca: {error}")))
        }
    }
}

/// What a server shows that believes these. Its ports and its calls are all encrypted, or none is.
pub fn certificate(args: &CertificateArgs, trust: &Trust) -> Result<Option<Certificate>, Failure> {
    let given = [
        ("--tls-cert", args.tls_cert.is_some()),
        ("--tls-key", args.tls_key.is_some()),
        ("--tls-ca", trust.file().is_some()),
    ];
    match (&args.tls_cert, &args.tls_key, trust.file()) {
        (None, None, None) => Ok(None),
        (Some(certificate), Some(key), Some(_)) => Certificate::load(certificate, key)
            .map(Some)
            .map_err(|error| Failure::new(format!("--tls-cert and --tls-key: {error}"))),
        _ => {
            let missing = given.iter().filter(|(_, is_given)| !is_given);
            let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
            Err(Failure::new(format!(
                "missing: {}. A server is given --tls-cert, --tls-key and --tls-ca together (or \
                 OFFSHOOT_TLS_CERT, OFFSHOOT_TLS_KEY and OFFSHOOT_TLS_CA), or none of them; the \
                 proxy's own certificate is --proxy-cert",
                missing.join(" and ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_half_of_what_tls_needs_is_refused_with_what_is_missing() {
        let certificate = |tls_cert: Option<&str>, tls_key: Option<&str>| {
            let args = CertificateArgs {
                tls_cert: tls_cert.map(Into::into),
                tls_key: tls_key.map(Into::into),
            };
            certificate(&args, &Trust::default()).map(|it| it.is_some())
        };
        assert!(certificate(None, None).is_ok_and(|is_some| !is_some));
        let refused = certificate(Some("cert"), None).err().map(|failure| failure.to_string());
        assert!(refused.is_some_and(|it| it.starts_with("missing: --tls-key and --tls-ca.")));
    }
}
