//! One walreceiver's connection.

use std::{io, time::Duration};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::mpsc,
    time::timeout,
};
use wal_format::Lsn;

use super::{
    Replayed, Shared,
    messages::{self, Command, Message, Startup},
    source,
};
use crate::wal_source::POSTGRES_TIMELINE;

/// How often something is said: `wal_receiver_timeout` may be as low as people like.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
/// Pieces of WAL, of at most 1 MiB, that wait to be sent.
const PIECES_WAITING_MAX: usize = 4;

/// Serves a walreceiver until either side ends.
pub(super) async fn serve(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while messages::read_startup(&mut read).await? == Startup::Encryption {
        write.write_all(b"N").await?;
    }
    write.write_all(&messages::welcome()).await?;
    while let Some(message) = messages::read(&mut read).await? {
        match message {
            Message { tag: b'Q', body } => match Command::parse(&body) {
                Command::IdentifySystem => {
                    let (id, end) = (shared.config.origin.system_id, shared.replayed.lsn());
                    write.write_all(&messages::system(id, POSTGRES_TIMELINE, end)).await?;
                }
                Command::StartReplication(from) => {
                    write.write_all(&messages::copy_both()).await?;
                    return replicate(&mut read, &mut write, shared, from).await;
                }
                Command::Other => {
                    let why = "only WAL is to be had here";
                    write.write_all(&messages::refusal(why)).await?;
                }
            },
            // It is about to leave.
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Sends WAL and listens to how far it is replayed, until either side ends.
async fn replicate(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    from: Lsn,
) -> io::Result<()> {
    let (pieces, received) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::select! {
        sent = send(write, from, received) => sent,
        heard = listen(read, &shared.replayed) => heard,
        why = source::read(&shared.config, from, pieces) => {
            shared.gone.send_replace(Some(why.clone()));
            Err(io::Error::new(io::ErrorKind::NotFound, why))
        }
    }
}

async fn send(
    write: &mut (impl AsyncWrite + Unpin),
    from: Lsn,
    mut pieces: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut at = from;
    loop {
        match timeout(KEEPALIVE_EVERY, pieces.recv()).await {
            Ok(Some(wal)) => {
                let head = messages::wal_head(at, wal.len());
                at += wal.len() as u64;
                write.write_all_buf(&mut head.chain(wal)).await?;
            }
            Ok(None) => return Ok(()),
            Err(_) => write.write_all(&messages::keepalive(at)).await?,
        }
    }
}

/// Hears how far Postgres has replayed; its feedback on old transactions is nobody's concern here.
async fn listen(read: &mut (impl AsyncRead + Unpin), replayed: &Replayed) -> io::Result<()> {
    while let Some(Message { tag: b'd', body }) = messages::read(read).await? {
        if let Some(lsn) = messages::replayed(&body) {
            replayed.reach(lsn);
        }
    }
    Ok(())
}
