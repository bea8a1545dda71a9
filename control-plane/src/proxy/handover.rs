//! A client's socket is given to its backend, which talks to the client itself from there on.
//!
//! It is offered as a `Sync` that comes with the socket. A backend whose Postgres has loaded the module
//! answers that it has it, and waits until it is told that the proxy will say nothing more to the client.
//! One without loses the socket and answers `ReadyForQuery`, as to any `Sync`: its session is passed on.
//!
//! Where the client speaks TLS, the backend goes on with it: it gets the keys, and memory in which it counts
//! what it says, since the socket has more bytes than that.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    socket::{ControlMessage, MsgFlags, sendmsg},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::UnixStream,
};

use super::{
    message::{BACKEND_BYTES_MAX, Message, encode},
    session_keys::SessionKeys,
};

/// The type of the message by which a backend says that it has the socket: none of Postgres'.
const TAKEN: u8 = b'h';
/// The answer to that, by which the backend begins to talk to the client; keys come with it.
const DONE: u8 = b'd';
/// A backend asks for the client's next key, and for its own.
const OPENS: u8 = b'o';
const SEALS: u8 = b's';

/// Offers a client's socket, and memory if there is TLS, to a backend that waits for a query; whether it
/// took them. What Postgres says meanwhile is told to `client`. Nothing of the client's may have been read
/// that the backend was not sent.
pub(crate) async fn offer(
    gifts: Vec<OwnedFd>,
    client: &mut (impl AsyncWrite + Unpin),
    backend: &mut UnixStream,
) -> io::Result<bool> {
    let sync = encode(b'S', &[]);
    let sent = backend.async_io(Interest::WRITABLE, || send_with(&*backend, &sync, &gifts)).await?;
    drop(gifts);
    backend.write_all(&sync[sent..]).await?;
    loop {
        let message = Message::read(backend, BACKEND_BYTES_MAX).await?;
        match message.kind {
            TAKEN => return Ok(true),
            b'Z' => return Ok(false),
            // A setting that was changed just now, the session's end.
            _ => {
                client.write_all(&message.encode()).await?;
                client.flush().await?;
            }
        }
    }
}

/// Leaves the client to a backend that took its socket, and waits for the backend's end: it keeps this
/// connection open for as long as it lives, and asks for keys over it.
pub(crate) async fn leave(
    mut keys: Option<SessionKeys>,
    backend: &mut UnixStream,
) -> io::Result<()> {
    let first = keys.as_ref().map_or(&[][..], SessionKeys::first);
    backend.write_all(&[&[DONE], first].concat()).await?;
    // It closes it by its end, over nothing that it could have read.
    while let Ok(asked) = backend.read_u8().await {
        let next = match (asked, &mut keys) {
            (OPENS, Some(keys)) => keys.next(true)?,
            (SEALS, Some(keys)) => keys.next(false)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it asks for no key")),
        };
        backend.write_all(&next).await?;
    }
    Ok(())
}

/// Memory that holds one number, 0.
pub(crate) fn number() -> io::Result<File> {
    let memory = File::from(memfd_create(c"sent", MFdFlags::MFD_CLOEXEC)?);
    memory.set_len(size_of::<u64>() as u64)?;
    Ok(memory)
}

/// Sends bytes, and with the first of them descriptors.
fn send_with(to: &impl AsFd, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let descriptors: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&descriptors)];
    let parts = [IoSlice::new(bytes)];
    let to = to.as_fd().as_raw_fd();
    Ok(sendmsg::<()>(to, &parts, &control, MsgFlags::MSG_NOSIGNAL, None)?)
}
