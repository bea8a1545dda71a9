//! Why a client is not let in: a SQLSTATE and a sentence, as Postgres' `ErrorResponse`.

use crate::Error;

/// The longest sentence that is sent; a compute's reason may quote its log.
const SENTENCE_BYTES_MAX: usize = 2_000;

/// Why a connection is refused. Each is fatal to it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The bytes are not Postgres' protocol.
    #[error("{0}")]
    Protocol(String),
    /// The protocol has it, the proxy does not.
    #[error("{0}")]
    Unsupported(String),
    /// The connection is not encrypted.
    #[error("connection is insecure: add sslmode=require to the connection string")]
    Insecure,
    /// Neither the TLS server name nor the options name an endpoint.
    #[error(
        "no endpoint is named: connect to NAME.{domain}, or add options=endpoint%3DNAME to the \
         connection string"
    )]
    NoEndpoint {
        /// The domain of the endpoints' names.
        domain: String,
    },
    /// No endpoint has this name.
    #[error("endpoint {name:?} does not exist: check its name for a typing error")]
    UnknownEndpoint {
        /// The name.
        name: String,
    },
    /// The moment that is asked for makes no sense, is in the future, or is not kept any more.
    #[error("{0}")]
    NoSuchMoment(String),
    /// The role is unknown, has no password for SCRAM, or another one.
    #[error("password authentication failed for user \"{role}\"")]
    WrongPassword {
        /// The role.
        role: String,
    },
    /// The client and the proxy do not agree on what the connection is bound to.
    #[error("SCRAM channel binding failed: {0}")]
    ChannelBinding(&'static str),
    /// No role is named.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoRole,
    /// The client took too long.
    #[error("canceling authentication due to timeout")]
    TooSlow,
    /// The compute does not run, and cannot be started.
    #[error("{0}")]
    NoCompute(String),
    /// The endpoint's project used up what it may.
    #[error("{0}")]
    Quota(String),
    /// The proxy has as many connections as it takes.
    #[error("the proxy has {max} connections already, which is its most: try again later")]
    TooMany {
        /// The most.
        max: usize,
    },
    /// The proxy is being stopped.
    #[error("the proxy is shutting down: connect again")]
    ShuttingDown,
}

impl Refusal {
    /// What a failed start or look-up of a compute tells the client.
    pub(crate) fn from_error(error: &Error, name: &str) -> Refusal {
        match error {
            Error::NotFound(_) => Refusal::UnknownEndpoint { name: name.to_owned() },
            Error::Quota(sentence) => Refusal::Quota(sentence.clone()),
            Error::Invalid(why) => Refusal::NoSuchMoment(why.clone()),
            other => {
                Refusal::NoCompute(format!("endpoint {name:?} cannot be connected to: {other}"))
            }
        }
    }

    /// The SQLSTATE: src/backend/utils/errcodes.txt.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            // protocol_violation
            Refusal::Protocol(_) => "08P01",
            // feature_not_supported
            Refusal::Unsupported(_) => "0A000",
            // invalid_authorization_specification
            Refusal::Insecure | Refusal::NoRole | Refusal::ChannelBinding(_) => "28000",
            // sqlserver_rejected_establishment_of_sqlconnection
            Refusal::NoEndpoint { .. } | Refusal::UnknownEndpoint { .. } => "08004",
            // invalid_parameter_value
            Refusal::NoSuchMoment(_) => "22023",
            // invalid_password
            Refusal::WrongPassword { .. } => "28P01",
            // query_canceled, as Postgres says of authentication_timeout
            Refusal::TooSlow => "57014",
            // cannot_connect_now
            Refusal::NoCompute(_) => "57P03",
            // configuration_limit_exceeded
            Refusal::Quota(_) => "53400",
            // too_many_connections
            Refusal::TooMany { .. } => "53300",
            // admin_shutdown
            Refusal::ShuttingDown => "57P01",
        }
    }

    /// The message `ErrorResponse`, its type and length included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut sentence = self.to_string().replace('\0', "");
        let cut = sentence.floor_char_boundary(SENTENCE_BYTES_MAX);
        sentence.truncate(cut);
        let fields = [('S', "FATAL"), ('V', "FATAL"), ('C', self.code()), ('M', &sentence)];
        let mut body = Vec::new();
        for (field, text) in fields {
            body.push(field as u8);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        super::message::encode(b'E', &body)
    }
}
