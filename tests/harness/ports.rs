//! Ports for the processes under test.

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range that Linux gives to outgoing connections: none of those takes a port between
/// the stop and the next start of a process that owns it.
const FIRST: u16 = 14_000;
const PORTS: u16 = 16_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on, never given twice by this process.
pub fn free_port() -> u16 {
    // Test binaries that run at the same time begin at different places.
    let base = (std::process::id() % 157) as u16 * 101;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (base + number) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The same as an address on loopback.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}
