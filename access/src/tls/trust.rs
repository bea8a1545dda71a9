//! Whom a process trusts when it comes to others.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
        SignatureScheme,
        client::{
            Resumption, WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::{
    Connection, TlsError,
    certificate::{chain, content},
    error::handshake,
    watched::Watched,
};

/// Whose certificates are taken from those who are called; where nobody's are, it is called plainly.
#[derive(Clone, Default)]
pub struct Trust(Option<Arc<Authority>>);

struct Authority {
    path: PathBuf,
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts whom the certificates in this file have signed. It is read again when it changes.
    pub fn load(path: &Path) -> Result<Trust, TlsError> {
        let roots = Watched::new(vec![path.to_owned()], |files| verifier(&files[0]))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Checked(roots)))
            .with_no_client_auth();
        // A connection that is taken up again is not shown the certificate again.
        config.resumption = Resumption::disabled();
        Ok(Trust(Some(Arc::new(Authority { path: path.to_owned(), config: Arc::new(config) }))))
    }

    /// The file that says whom it trusts, where it calls others by TLS.
    pub fn file(&self) -> Option<&Path> {
        self.0.as_ref().map(|authority| &*authority.path)
    }

    /// Connects, and has the other side prove itself by the address. Small frames are sent at once.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let Some(authority) = &self.0 else { return Ok(Connection::plain(socket)) };
        let connector = TlsConnector::from(Arc::clone(&authority.config));
        let name = ServerName::IpAddress(address.ip().into());
        match connector.connect(name, socket).await {
            Ok(stream) => Ok(Connection::encrypted(stream.into())),
            Err(error) => Err(handshake(&address.to_string(), error).into()),
        }
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        match self.0 {
            Some(_) => "https",
            None => "http",
        }
    }

    /// A client for HTTP; where it trusts somebody, it asks nobody plainly.
    pub fn http(&self) -> reqwest::Client {
        let Some(authority) = &self.0 else { return reqwest::Client::new() };
        reqwest::Client::builder()
            .https_only(true)
            .tls_backend_preconfigured(ClientConfig::clone(&authority.config))
            .build()
            .expect("a client with its own certificates needs nothing of the system")
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({:?})", self.file())
    }
}

fn verifier(path: &Path) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| content(path, "a certificate", error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| content(path, "a certificate", error))
}

/// Checks certificates by those in a file, and says in a sentence what is wrong.
struct Checked(Watched<Arc<WebPkiServerVerifier>>);

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checked({})", self.0.path().display())
    }
}

impl Checked {
    fn refused(&self, server: &ServerName<'_>, error: &rustls::Error) -> TlsError {
        use CertificateError as Bad;
        let server = server.to_str().into_owned();
        let reason = match error {
            rustls::Error::InvalidCertificate(bad) => match bad {
                Bad::Expired | Bad::ExpiredContext { .. } => {
                    "it has ended: put a newer one into its --tls-cert file".to_owned()
                }
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                    "it is not valid yet: look at the clocks of both machines".to_owned()
                }
                Bad::UnknownIssuer | Bad::BadSignature => format!(
                    "nobody in {} has signed it: give --tls-ca the certificate that did",
                    self.0.path().display()
                ),
                Bad::NotValidForNameContext { presented, .. } => format!(
                    "it is for {}: have one made with {server} among its subject's alternative names",
                    if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") }
                ),
                other => format!("{other}"),
            },
            other => other.to_string(),
        };
        TlsError::Refused { server, reason }
    }
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.get().verify_server_cert(own, others, server, ocsp, now).map_err(|error| {
            rustls::Error::Other(OtherError(Arc::new(self.refused(server, &error))))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.get().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.get().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.get().supported_verify_schemes()
    }
}
