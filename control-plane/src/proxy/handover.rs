//! A client's socket is given to its backend, which talks to the client itself from there on.
//!
//! It is offered as a `Sync` that comes with the socket. A backend whose Postgres has loaded the module
//! answers that it has it, and waits until it is told that the proxy will say nothing more to the client.
//! One without loses the socket and answers `ReadyForQuery`, as to any `Sync`: its session is passed on.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::UnixStream,
};

use super::message::{BACKEND_BYTES_MAX, Message, encode};

/// The type of the message by which a backend says that it has the socket: none of Postgres'.
const TAKEN: u8 = b'h';
/// The answer to that, by which the backend begins to talk to the client.
const DONE: u8 = b'd';

/// Offers a client's socket to a backend that waits for a query; whether it took it. What Postgres says
/// meanwhile is told to `client`. Nothing of the client's may have been read that the backend was not
/// sent.
pub(crate) async fn offer(
    socket: OwnedFd,
    client: &mut (impl AsyncWrite + Unpin),
    backend: &mut UnixStream,
) -> io::Result<bool> {
    let sync = encode(b'S', &[]);
    let sent = backend
        .async_io(Interest::WRITABLE, || send_with(&*backend, &sync, socket.as_fd()))
        .await?;
    drop(socket);
    backend.write_all(&sync[sent..]).await?;
    loop {
        let message = Message::read(backend, BACKEND_BYTES_MAX).await?;
        match message.kind {
            TAKEN => return Ok(true),
            b'Z' => return Ok(false),
            // A setting that was changed just now, the session's end.
            _ => client.write_all(&message.encode()).await?,
        }
    }
}

/// Leaves the client to a backend that took its socket, and waits for the backend's end: it keeps this
/// connection open for as long as it lives, and says nothing over it.
pub(crate) async fn leave(backend: &mut UnixStream) -> io::Result<()> {
    backend.write_all(&[DONE]).await?;
    match backend.read_u8().await {
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a backend speaks to the proxy")),
        // It closes it by its end, over nothing that it could have read.
        Err(_) => Ok(()),
    }
}

/// Sends bytes, and with the first of them a descriptor.
fn send_with(to: &impl AsFd, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let descriptors = [descriptor.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    let parts = [IoSlice::new(bytes)];
    let to = to.as_fd().as_raw_fd();
    Ok(sendmsg::<()>(to, &parts, &control, MsgFlags::MSG_NOSIGNAL, None)?)
}
