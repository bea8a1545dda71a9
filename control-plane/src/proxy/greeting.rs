//! The beginning of a connection: encryption, and what the client wants.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Ended, Refusal,
    by_record::ByRecord,
    session_keys::Secrets,
    startup::{self, CancelKey, Packet, Startup},
    stream::ClientStream,
    tls::{ALPN, Tls},
};

/// The first byte of TLS' handshake: no packet's length begins so.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client wants.
pub(crate) enum Wish {
    Session(Startup),
    Cancel(CancelKey),
}

/// Answers requests for encryption until the client says what it wants. The stream comes back in any
/// case, so that a refusal can be said on it; `None` where it is broken.
pub(crate) async fn greet(
    socket: TcpStream,
    tls: &Tls,
    plain_allowed: bool,
) -> (Option<ClientStream>, Result<Wish, Ended>) {
    let mut first = [0];
    let is_direct = match socket.peek(&mut first).await {
        Ok(1) => first == [TLS_HANDSHAKE],
        Ok(_) => return (None, Err(Ended::Lost(io::ErrorKind::UnexpectedEof.into()))),
        Err(error) => return (None, Err(Ended::Lost(error))),
    };
    let mut stream = ClientStream::plain(socket);
    if is_direct {
        stream = match encrypt(stream, tls, true).await {
            Ok(stream) => stream,
            Err(ended) => return (None, Err(ended)),
        };
    }
    // Each of the two kinds of encryption can be asked for once.
    for _ in 0..3 {
        match read_packet(&mut stream).await {
            Ok(Packet::Ssl) if !stream.is_encrypted() => {
                // From here on every byte is TLS': none was read ahead.
                if let Err(error) = stream.write_all(b"S").await {
                    return (None, Err(Ended::Lost(error)));
                }
                stream = match encrypt(stream, tls, false).await {
                    Ok(stream) => stream,
                    Err(ended) => return (None, Err(ended)),
                };
            }
            Ok(Packet::GssEncryption) if !stream.is_encrypted() => {
                if let Err(error) = stream.write_all(b"N").await {
                    return (None, Err(Ended::Lost(error)));
                }
            }
            Ok(Packet::Ssl | Packet::GssEncryption) => {
                let sentence = "the connection is encrypted already".to_owned();
                return (Some(stream), Err(Refusal::Protocol(sentence).into()));
            }
            // Whoever has the key may cancel: an older libpq never encrypts that.
            Ok(Packet::Cancel(key)) => return (Some(stream), Ok(Wish::Cancel(key))),
            Ok(Packet::Startup(_)) if !stream.is_encrypted() && !plain_allowed => {
                return (Some(stream), Err(Refusal::Insecure.into()));
            }
            Ok(Packet::Startup(startup)) => return (Some(stream), Ok(Wish::Session(startup))),
            Err(ended) => return (Some(stream), Err(ended)),
        }
    }
    let sentence = "encryption was asked for again and again".to_owned();
    (Some(stream), Err(Refusal::Protocol(sentence).into()))
}

async fn read_packet(stream: &mut ClientStream) -> Result<Packet, Ended> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut body = vec![0; startup::body_length(length)?];
    stream.read_exact(&mut body).await?;
    Ok(startup::decode(&body)?)
}

/// TLS' handshake. `must_name_protocol`: without a request before it, only ALPN tells that the client
/// means Postgres (be_tls_open_server of Postgres 17).
async fn encrypt(
    plain: ClientStream,
    tls: &Tls,
    must_name_protocol: bool,
) -> Result<ClientStream, Ended> {
    let secrets = Arc::new(Secrets::default());
    let acceptor = TlsAcceptor::from(tls.config_with(secrets.clone()));
    let socket = ByRecord::new(plain.into_socket());
    let encrypted = acceptor.accept(socket).await.map_err(Ended::Lost)?;
    if must_name_protocol && encrypted.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(Ended::Lost(io::Error::new(
            io::ErrorKind::InvalidData,
            "a direct TLS connection did not name Postgres' protocol",
        )));
    }
    Ok(ClientStream::encrypted(encrypted, secrets))
}
