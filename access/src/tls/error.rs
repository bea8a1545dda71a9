//! What can be wrong with certificates, and the sentences for it.

use std::{error::Error, io, path::PathBuf};

use tokio_rustls::rustls;

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// It holds something else.
    #[error("{path}: {wanted} in PEM was expected: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What it holds instead.
        reason: String,
    },
    /// Everybody may read the key.
    #[error("{path} holds a private key that everybody may read: run chmod o= {path}")]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// Key and certificate are not a pair.
    #[error(
        "the key in {key} is not that of the certificate in {certificate}: give the two that belong \
         together, the server's own certificate first in its file"
    )]
    NoPair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// The own certificate is not valid any more.
    #[error("the certificate in {path} ended {ago} s ago: put a newer one there")]
    Ended {
        /// Its file.
        path: PathBuf,
        /// Since when.
        ago: u64,
    },
    /// The certificate of whom was called is not taken.
    #[error("the certificate of {server} is not taken: {reason}")]
    Refused {
        /// Who showed it.
        server: String,
        /// Why.
        reason: String,
    },
    /// Whoever was called speaks plainly.
    #[error(
        "{server} speaks no TLS, or has closed the connection: start it with --tls-cert and --tls-key, \
         or leave out --tls-ca here"
    )]
    SpeaksPlainly {
        /// Who was called.
        server: String,
    },
    /// The handshake failed for another reason.
    #[error("TLS with {server}: {reason}")]
    Handshake {
        /// Who was called.
        server: String,
        /// Why.
        reason: io::Error,
    },
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// What a failed handshake with this server means.
pub(super) fn handshake(server: &str, error: io::Error) -> TlsError {
    let server = server.to_owned();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => TlsError::SpeaksPlainly { server },
        Some(rustls::Error::Other(refused)) => match refused.0.downcast_ref() {
            Some(TlsError::Refused { server, reason }) => {
                TlsError::Refused { server: server.clone(), reason: reason.clone() }
            }
            _ => TlsError::Handshake { server, reason: error },
        },
        None if is_end(&error) => TlsError::SpeaksPlainly { server },
        _ => TlsError::Handshake { server, reason: error },
    }
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// The cause at the bottom of an HTTP client's error: `Connection refused`, or what is wrong with a
/// certificate, says more than `error sending request`.
pub fn why(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    loop {
        // An I/O error names as its source what its inner error has as one, not that error itself.
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref()).or(cause.downcast_ref()) {
            return of_tls(found);
        }
        match inner.map(|inner| inner as &(dyn Error + 'static)).or(cause.source()) {
            Some(deeper) => cause = deeper,
            None => return cause.to_string(),
        }
    }
}

fn of_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => {
            TlsError::SpeaksPlainly { server: "the server".to_owned() }.to_string()
        }
        rustls::Error::Other(refused) => refused.0.to_string(),
        other => format!("TLS: {other}"),
    }
}
