//! One client's connection from its first byte to its last.

use std::{io, os::fd::AsFd, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::either::Either;

use super::{
    Awake, EndpointRef, Refusal, Shared,
    authentication::authenticate,
    backend::{self, Backend, Failed},
    counted::Counted,
    greeting::{Wish, greet},
    handover,
    message::{self, encode},
    name::{self, Named},
    scram::{self, Binding, Keys, NONCE_BYTES, Verifier},
    startup::Startup,
    stream::ClientStream,
    way::BackendStream,
};
use crate::{metrics::METRICS, trace};

/// How long a client may take for its part of the beginning: Postgres' default `authentication_timeout`.
const CLIENT_MAX: Duration = Duration::from_secs(60);

/// How long a compute that is away, though it was woken, is woken again: one that was killed has to
/// be noticed first, one that is being stopped has to end.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(30);
pub(crate) const AWAY_PAUSE: Duration = Duration::from_millis(100);

/// What is read at once in each direction. It stays with an idle connection.
const BUFFER_BYTES: usize = 16 << 10;

/// How long a refused client may go on sending, and how much of it is read: a connection that is
/// closed over unread bytes is reset, and the refusal lost with it.
const LINGER_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: u64 = 1 << 20;

/// Why a connection ended before its session began.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The client is told why.
    Refused(Refusal),
    /// The client is told what Postgres said.
    Said(Vec<u8>),
    /// There is nobody to be told.
    Lost(io::Error),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Ended {
        Ended::Refused(refusal)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        match error.kind() {
            io::ErrorKind::InvalidData => Ended::Refused(Refusal::Protocol(error.to_string())),
            _ => Ended::Lost(error),
        }
    }
}

/// A session on both sides.
struct Session {
    backend: Backend,
    awake: Awake,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(shared: &Shared, socket: TcpStream) {
    let greeted = timeout(CLIENT_MAX, greet(socket, &shared.tls, shared.plain_allowed)).await;
    // Without a stream there is nobody to be told that it took too long.
    let Ok((Some(mut stream), wish)) = greeted else { return };
    let begun = match wish {
        Ok(Wish::Cancel(key)) => {
            if let Err(error) = shared.cancels.forward(&key).await {
                tracing::info!(%error, "a cancel request did not reach its compute");
            }
            return;
        }
        Ok(Wish::Session(startup)) => tokio::select! {
            begun = begin(shared, &mut stream, startup) => begun,
            () = shared.stop.cancelled() => Err(Refusal::ShuttingDown.into()),
        },
        Err(ended) => Err(ended),
    };
    match begun {
        Ok(session) => serve_session(shared, stream, session).await,
        Err(Ended::Refused(refusal)) => {
            METRICS.proxy_refused.inc();
            tracing::info!(code = refusal.code(), %refusal, "a client was refused");
            say_last(stream, &refusal.encode()).await;
        }
        Err(Ended::Said(error)) => say_last(stream, &error).await,
        Err(Ended::Lost(error)) => {
            tracing::debug!(%error, "a client went before its session began")
        }
    }
}

async fn begin(
    shared: &Shared,
    stream: &mut ClientStream,
    mut startup: Startup,
) -> Result<Session, Ended> {
    let Named { name, moment } = name::take(&mut startup, stream.server_name(), &shared.domain)?;
    let role = startup.get("user").filter(|role| !role.is_empty()).ok_or(Refusal::NoRole)?;
    let role = String::from_utf8_lossy(role).into_owned();
    let unknown = || Refusal::UnknownEndpoint { name: name.clone() };
    let refused = |error: std::sync::Arc<crate::Error>| Refusal::from_error(&error, &name);
    let endpoint = shared.directory.find(&name).await.map_err(refused)?.ok_or_else(unknown)?;
    if startup.minor > 0 || startup.extensions().next().is_some() {
        stream.write_all(&message::negotiate_version(startup.extensions())).await?;
    }
    let verifier = shared.roles.verifier(&endpoint, &role).await.map_err(refused)?;
    let verifier = verifier.unwrap_or_else(|| {
        tracing::info!(
            endpoint = name,
            role,
            "a role without a password for SCRAM wants to log in"
        );
        Verifier::mock(&shared.tls.secret, &format!("{name}/{role}"))
    });
    let binding = match &shared.tls.binding {
        Some(digest) if stream.is_encrypted() => Binding::EndPoint(digest),
        _ => Binding::None,
    };
    let began = Instant::now();
    let nonce = new_nonce();
    let authenticated = authenticate(stream, &role, verifier, binding, &nonce);
    let keys = timeout(CLIENT_MAX, authenticated).await.map_err(|_| Refusal::TooSlow)??;
    let proven = began.elapsed();
    shared.directory.note(&endpoint, "proxy: the client's proof", proven);
    let endpoint = match moment {
        // Only for who has proven its password is a moment looked for, and a compute started.
        Some(moment) => shared.directory.at(&endpoint, &moment).await.map_err(refused)?,
        None => endpoint,
    };
    connect(shared, &endpoint, &name, &startup, &keys).await
}

/// Wakes the compute and logs in to it, again for a while where it goes away meanwhile.
async fn connect(
    shared: &Shared,
    endpoint: &EndpointRef,
    name: &str,
    startup: &Startup,
    keys: &Keys,
) -> Result<Session, Ended> {
    let began = Instant::now();
    loop {
        let woken = shared.directory.wake(endpoint).await;
        let awake = woken.map_err(|error| Refusal::from_error(&error, name))?;
        let logging_in = Instant::now();
        let logged_in = async {
            let backend = awake.way.connect().await?;
            backend::login(backend, startup, keys, &new_nonce()).await
        };
        match logged_in.await {
            Ok(backend) => {
                shared.directory.note(endpoint, trace::LAST, logging_in.elapsed());
                return Ok(Session { backend, awake });
            }
            Err(Failed::Refused(error)) => return Err(Ended::Said(error.encode())),
            Err(Failed::Broken(refusal)) => return Err(refusal.into()),
            Err(Failed::Away(reason)) if began.elapsed() > AWAY_MAX => {
                let sentence = format!("endpoint {name:?} cannot be connected to: {reason}");
                return Err(Refusal::NoCompute(sentence).into());
            }
            Err(Failed::Away(_)) => sleep(AWAY_PAUSE).await,
        }
    }
}

/// Serves a session until either side ends.
async fn serve_session(shared: &Shared, stream: ClientStream, session: Session) {
    let Session { backend, awake } = session;
    let mut stream = Counted::new(stream, awake.sent.clone());
    let Backend { stream: compute, greeting, key } = backend;
    let random = || rand::random::<[u8; 4]>();
    let registered = key.map(|key| shared.cancels.register(awake.way.clone(), key, random));
    let shown = registered.as_ref().map(|session| encode(b'K', &session.key.encode()));
    let passed = async {
        // The key may stand anywhere before the greeting's end, `ReadyForQuery`.
        stream.write_all(&[shown.unwrap_or_default(), greeting].concat()).await?;
        stream.flush().await?;
        hand_over(stream, compute, &awake).await
    };
    if let Err(error) = passed.await {
        tracing::debug!(%error, "a session ended");
    }
}

/// Has the backend talk to the client itself, where it can; passes bytes both ways where it cannot.
async fn hand_over(
    mut stream: Counted<ClientStream>,
    mut compute: BackendStream,
    awake: &Awake,
) -> io::Result<()> {
    if let Either::Left(backend) = &mut compute
        && let Some(socket) = stream.get_mut().socket_to_give()
    {
        let mut gifts = vec![socket.as_fd().try_clone_to_owned()?];
        let number = stream.get_ref().is_encrypted().then(handover::number).transpose()?;
        if let Some(number) = &number {
            gifts.push(number.try_clone()?.into());
        }
        if handover::offer(gifts, &mut stream, backend).await? {
            let (socket, keys) = stream.into_inner().into_parts()?;
            // The runtime does not wait for the client any more: it would wake up with each query.
            let _watched = awake.sent.watch(socket.into_std()?, number)?;
            METRICS.proxy_handed_over.inc();
            return handover::leave(keys, backend).await;
        }
    }
    stream.get_mut().keep();
    copy_bidirectional_with_sizes(&mut stream, &mut compute, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

/// Refuses a client before a word of it was read.
pub(crate) async fn refuse(socket: TcpStream, refusal: &Refusal) {
    METRICS.proxy_refused.inc();
    say_last(ClientStream::plain(socket), &refusal.encode()).await;
}

/// Says a refusal, and closes the connection so that it arrives.
async fn say_last(mut stream: ClientStream, bytes: &[u8]) {
    let said = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        let mut rest = stream.into_socket().take(LINGER_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // A client that stays or goes early knows already, or does not want to.
    let _heard = timeout(LINGER_MAX, said).await;
}

fn new_nonce() -> String {
    scram::nonce(rand::random::<[u8; NONCE_BYTES]>())
}
