//! What a compute's Postgres preloads: its backends can be given their clients' sockets.
//!
//! The proxy comes to a backend by the compute's Unix socket. Once it has logged in it may pass the
//! client's own socket over that connection; from there on the backend talks to the client itself, and
//! no byte goes through the proxy any more. `docs/formats/proxy.md` has the protocol. Postgres is not
//! changed and knows nothing of it: four functions of the C library that it calls are these instead.
//! Where the client speaks TLS 1.3, it goes on here from where the proxy left it.
//!
//! Invariants:
//! - Only the connection that the postmaster accepted for this backend is ever replaced, once, and
//!   only by what root sent over it.
//! - Until the proxy has said that it is done with the client, the backend says nothing to the client.
//! - Whatever else is asked of these functions they do as the C library does.
//!
//! A Postgres process is one thread, and forks after `accept`: what is kept here is a backend's own.
//! There is no standard library in it, so that it needs nothing of the machine but a C library.

#![no_std]
#![expect(
    unsafe_code,
    reason = "it takes the place of functions of the C library, and calls others"
)]

mod c;
mod client;
mod crypto;
pub mod interposed;
mod proxy;
mod receive;
mod tls;
