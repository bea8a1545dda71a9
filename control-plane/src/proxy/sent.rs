//! Bytes of Postgres' protocol that an endpoint's clients are sent: those that the proxy passes on, and those
//! that backends write to sockets that they were given. Of these the kernel counts; with TLS it counts more
//! than the protocol's, and the backend does it.

use std::{
    collections::BTreeMap,
    fs::File,
    io, mem,
    net::{Shutdown, TcpStream},
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::{errno::Errno, libc};
use parking_lot::Mutex;

/// Counts the bytes that an endpoint's clients are sent.
#[derive(Default)]
pub struct Sent {
    /// What nobody took note of yet.
    bytes: AtomicU64,
    given: Mutex<Given>,
}

/// The sockets that were given away.
#[derive(Default)]
struct Given {
    next: u64,
    sockets: BTreeMap<u64, Counter>,
}

struct Counter {
    socket: TcpStream,
    /// Where the backend counts, if it does.
    number: Option<File>,
    /// What was written to it before, or is counted.
    counted: u64,
}

impl Counter {
    /// Bytes that were written since this was asked last.
    fn count(&mut self) -> u64 {
        // It is asked of a socket that is there: it never fails.
        let written = written(&self.socket, self.number.as_ref()).unwrap_or(self.counted);
        let more = written.saturating_sub(self.counted);
        self.counted += more;
        more
    }
}

impl Sent {
    /// Counts bytes that the proxy wrote.
    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what is written to a client's socket from now on, by whomever.
    /// `number` is memory in which the writer counts, if it does.
    pub(crate) fn watch(
        self: &Arc<Sent>,
        socket: TcpStream,
        number: Option<File>,
    ) -> io::Result<Watched> {
        let counted = written(&socket, number.as_ref())?;
        let mut given = self.given.lock();
        let place = given.next;
        given.next += 1;
        given.sockets.insert(place, Counter { socket, number, counted });
        Ok(Watched { sent: self.clone(), place })
    }

    /// The bytes that nobody took note of yet; from here on they are taken note of.
    pub(crate) fn take(&self) -> u64 {
        let given: u64 = self.given.lock().sockets.values_mut().map(Counter::count).sum();
        given + self.bytes.swap(0, Ordering::Relaxed)
    }
}

/// A client's socket that was given away. When this is dropped the client's connection ends, whoever
/// else has it.
pub(crate) struct Watched {
    sent: Arc<Sent>,
    place: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(mut counter) = self.sent.given.lock().sockets.remove(&self.place) else { return };
        // Before the end is said, which is counted as a byte.
        self.sent.add(counter.count());
        // A client that went has ended it already.
        let _ended = counter.socket.shutdown(Shutdown::Both);
    }
}

/// Bytes that were ever written to a connection, as its writer counts them or else the kernel.
fn written(socket: &TcpStream, number: Option<&File>) -> io::Result<u64> {
    let Some(number) = number else { return written_to(socket) };
    let mut bytes = [0; size_of::<u64>()];
    number.read_exact_at(&mut bytes, 0)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// How often a connection is asked whose other side takes bytes between the questions.
const TRIES: usize = 100;

/// Bytes that the kernel was ever given for a connection: those that the other side has, and those that it does
/// not have yet. Bytes that arrive between the two questions would be in neither answer, so the first is asked
/// again.
fn written_to(socket: &TcpStream) -> io::Result<u64> {
    let mut arrived = arrived_from(socket)?;
    let mut written = arrived;
    for _ in 0..TRIES {
        written = arrived + outstanding_to(socket)?;
        let since = arrived_from(socket)?;
        if since == arrived {
            break;
        }
        arrived = since;
    }
    Ok(written)
}

/// Bytes of a connection that the other side has said to have.
#[expect(unsafe_code, reason = "this question to the kernel has no safe function")]
fn arrived_from(socket: &TcpStream) -> io::Result<u64> {
    // SAFETY: it is integers alone, which may be zero.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    let (socket, place) = (socket.as_raw_fd(), (&raw mut info).cast());
    // SAFETY: there is room for so many bytes.
    let asked =
        unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, place, &mut length) };
    Errno::result(asked)?;
    Ok(info.tcpi_bytes_acked)
}

/// Bytes of a connection that the other side has not said to have.
#[expect(unsafe_code, reason = "this question to the kernel has no safe function")]
fn outstanding_to(socket: &TcpStream) -> io::Result<u64> {
    nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, libc::c_int);
    let mut outstanding = 0;
    // SAFETY: the kernel writes one integer, for which there is room.
    unsafe { siocoutq(socket.as_raw_fd(), &mut outstanding)? };
    Ok(u64::from(outstanding.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    fn connected() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    }

    #[test]
    fn what_somebody_else_writes_is_counted_once_also_what_nobody_reads() -> io::Result<()> {
        let sent = Arc::new(Sent::default());
        let (mut client, mut server) = connected()?;
        server.write_all(b"before")?;
        let mut elsewhere = server.try_clone()?;
        let watched = sent.watch(server, None)?;
        sent.add(5);
        elsewhere.write_all(&[1; 1000])?;
        assert_eq!(sent.take(), 1005);
        assert_eq!(sent.take(), 0, "counted twice");
        let mut rest = vec![0; 1006];
        client.read_exact(&mut rest)?;
        assert_eq!(sent.take(), 0, "counted again as it arrived");

        // More than a client that reads nothing takes.
        elsewhere.set_nonblocking(true)?;
        let mut unread = 0;
        while let Ok(count) = elsewhere.write(&[2; 65536]) {
            unread += count as u64;
        }
        assert_eq!(sent.take(), unread);
        elsewhere.set_nonblocking(false)?;
        client.read_exact(&mut vec![0; unread as usize])?;
        elsewhere.write_all(b"last")?;
        drop(watched);
        assert_eq!(sent.take(), 4);
        let mut last = Vec::new();
        client.read_to_end(&mut last)?;
        assert_eq!(last, b"last", "the connection goes on, though it was ended");
        Ok(())
    }

    #[test]
    fn what_arrives_while_it_is_counted_is_counted() -> io::Result<()> {
        let (mut client, mut server) = connected()?;
        server.set_nodelay(true)?;
        let reader = std::thread::spawn(move || io::copy(&mut client, &mut io::sink()));
        for number in 1..=50_000 {
            server.write_all(&[1; 4])?;
            assert_eq!(written_to(&server)?, 4 * number);
        }
        drop(server);
        assert_eq!(reader.join().expect("it reads")?, 200_000);
        Ok(())
    }

    #[test]
    fn a_client_that_breaks_off_was_sent_what_was_written() -> io::Result<()> {
        let sent = Arc::new(Sent::default());
        let (client, server) = connected()?;
        let mut elsewhere = server.try_clone()?;
        let watched = sent.watch(server, None)?;
        elsewhere.write_all(&[1; 500])?;
        // Over unread bytes: the connection is reset.
        drop(client);
        assert_eq!(sent.take(), 500);
        drop(watched);
        assert_eq!(sent.take(), 0);
        Ok(())
    }
}
