//! The compute's side of a session: its login, with keys instead of a password.

use std::io;

use tokio::io::{AsyncWriteExt, BufReader};

use super::{
    Refusal,
    message::{BACKEND_BYTES_MAX, Message, OK, SASL, SASL_CONTINUE, SASL_FINAL, encode},
    scram::{self, ClientFirst, Keys, NotTheSame},
    startup::{CancelKey, Startup},
    way::BackendStream,
};

/// The most that a backend says before it is ready for a query.
const GREETING_BYTES_MAX: usize = 4 << 20;

/// A session that is ready for its first query.
pub(crate) struct Backend {
    pub stream: BackendStream,
    /// What is for the client: settings, notices, `ReadyForQuery`; all but the key.
    pub greeting: Vec<u8>,
    /// What cancels its queries.
    pub key: Option<CancelKey>,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The compute is not there, or not yet, or not any more: waking it may help.
    Away(String),
    /// Postgres refuses the session; its `ErrorResponse` is for the client.
    Refused(Message),
    /// The proxy and the compute do not understand each other.
    Broken(Refusal),
}

/// An I/O error comes from a compute that ends.
impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        match error.kind() {
            io::ErrorKind::InvalidData => Failed::Broken(Refusal::NoCompute(error.to_string())),
            _ => Failed::Away(error.to_string()),
        }
    }
}

impl From<NotTheSame> for Failed {
    fn from(error: NotTheSame) -> Failed {
        Failed::Broken(Refusal::NoCompute(error.to_string()))
    }
}

/// Logs in. `nonce` is used where the backend wants SCRAM; over its Unix socket it wants nothing.
pub(crate) async fn login(
    stream: BackendStream,
    startup: &Startup,
    keys: &Keys,
    nonce: &str,
) -> Result<Backend, Failed> {
    let mut stream = BufReader::new(stream);
    stream.write_all(&startup.encode()).await?;
    let mut greeting = Vec::new();
    let mut key = None;
    loop {
        let message = Message::read(&mut stream, BACKEND_BYTES_MAX).await?;
        match message.kind {
            b'R' => authenticate(&mut stream, &message, keys, nonce).await?,
            b'E' => return Err(refused(message)),
            b'K' => key = CancelKey::decode(&message.body),
            kind => {
                greeting.extend_from_slice(&message.encode());
                if kind == b'Z' {
                    break;
                }
            }
        }
        if greeting.len() > GREETING_BYTES_MAX {
            let sentence = "the compute said too much before it was ready".to_owned();
            return Err(Failed::Broken(Refusal::NoCompute(sentence)));
        }
    }
    // Notices that came right after it.
    greeting.extend_from_slice(stream.buffer());
    Ok(Backend { stream: stream.into_inner(), greeting, key })
}

async fn authenticate(
    stream: &mut BufReader<BackendStream>,
    request: &Message,
    keys: &Keys,
    nonce: &str,
) -> Result<(), Failed> {
    let (code, offered) = authentication(request)?;
    match code {
        OK => return Ok(()),
        SASL if offered.split(|byte| *byte == 0).any(|it| it == scram::PLAIN.as_bytes()) => {}
        _ => return Err(unexpected(code)),
    }
    let first = ClientFirst::new(nonce);
    let data = first.message();
    let length = data.len() as u32;
    let body = [scram::PLAIN.as_bytes(), &[0], &length.to_be_bytes(), data.as_bytes()].concat();
    stream.write_all(&encode(b'p', &body)).await?;
    let challenge = authentication_message(stream, SASL_CONTINUE).await?;
    let last = first.answer(&challenge, keys)?;
    stream.write_all(&encode(b'p', last.message.as_bytes())).await?;
    last.check(&authentication_message(stream, SASL_FINAL).await?)?;
    // AuthenticationOk follows, as it would without a password.
    Ok(())
}

/// Reads the authentication request of this code; what it carries.
async fn authentication_message(
    stream: &mut BufReader<BackendStream>,
    expected: u32,
) -> Result<Vec<u8>, Failed> {
    let message = Message::read(stream, BACKEND_BYTES_MAX).await?;
    if message.kind == b'E' {
        return Err(refused(message));
    }
    match authentication(&message)? {
        (code, data) if code == expected => Ok(data.to_vec()),
        (code, _) => Err(unexpected(code)),
    }
}

fn authentication(message: &Message) -> Result<(u32, &[u8]), Failed> {
    let parsed = message.body.split_first_chunk::<4>().filter(|_| message.kind == b'R');
    let (code, data) = parsed.ok_or_else(|| unexpected(u32::from(message.kind)))?;
    Ok((u32::from_be_bytes(*code), data))
}

fn unexpected(code: u32) -> Failed {
    Failed::Broken(Refusal::NoCompute(format!(
        "the compute asks for authentication of kind {code}: its pg_hba.conf has to say trust or \
         scram-sha-256 for the proxy"
    )))
}

/// A compute that starts or stops says so; anything else is the client's to know.
fn refused(error: Message) -> Failed {
    match error.field(b'C').as_deref() {
        // cannot_connect_now, admin_shutdown
        Some("57P03" | "57P01") => Failed::Away(error.field(b'M').unwrap_or_default()),
        _ => Failed::Refused(error),
    }
}
