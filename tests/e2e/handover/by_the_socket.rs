//! Who comes by the compute's Unix socket without being the proxy.

use std::{
    io::{IoSlice, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::PathBuf,
};

use anyhow::{Context, ensure};
use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};

use super::up;
use crate::harness::{Database, turn};

const SYNC: &[u8] = b"S\0\0\0\x04";

/// Has this thread alone act as a user.
#[expect(unsafe_code, reason = "the C library's function would change the whole process")]
fn become_user(user: u32) -> anyhow::Result<()> {
    let unchanged = -1_i32;
    // SAFETY: the system call takes three numbers.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, unchanged, user, unchanged) };
    nix::errno::Errno::result(done).map(drop).context("becoming another user")
}

fn message(stream: &mut UnixStream) -> anyhow::Result<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    stream.read_exact(&mut vec![0; length - 4])?;
    Ok(head[0])
}

/// Logs in as this user by the socket, offers the descriptors, and says what kind of answer came.
fn offer(user: u32, socket: PathBuf, descriptors: &[i32]) -> anyhow::Result<(u8, UnixStream)> {
    std::thread::scope(|scope| {
        let offered = scope.spawn(|| {
            become_user(user)?;
            let mut stream = UnixStream::connect(socket)?;
            let parameters = b"\0\x03\0\0user\0app\0database\0app\0\0";
            stream.write_all(&(parameters.len() as u32 + 4).to_be_bytes())?;
            stream.write_all(parameters)?;
            while message(&mut stream)? != b'Z' {}
            let control = [ControlMessage::ScmRights(descriptors)];
            let parts = [IoSlice::new(SYNC)];
            sendmsg::<()>(stream.as_raw_fd(), &parts, &control, MsgFlags::empty(), None)?;
            Ok((message(&mut stream)?, stream))
        });
        offered.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_takes_a_socket_from_root_alone_and_only_as_it_is_offered() -> anyhow::Result<()>
{
    let _turn = turn().await;
    let mut up = up()?;
    up.tenant("acme").await?;
    let compute = up.api.start("acme", "main").await?;
    let socket = compute.sockets.join(format!(".s.PGSQL.{}", compute.port));
    let postgres = std::fs::metadata(&compute.sockets)?.uid();
    ensure!(postgres != 0);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut far = TcpStream::connect(listener.local_addr()?)?;
    let (near, _) = listener.accept()?;
    near.set_nonblocking(true)?;
    let database = Database::connect(compute.port).await?;

    // The user that runs Postgres, as a backend that connects to its own server does: the descriptor is
    // closed, and `Sync` is what it is.
    let (answer, mut stream) = offer(postgres, socket.clone(), &[near.as_raw_fd()])?;
    ensure!(answer == b'Z', "{}", answer as char);
    stream.write_all(SYNC)?;
    ensure!(message(&mut stream)? == b'Z', "the session is over");
    drop(stream);
    // Two of them, from root.
    let (answer, mut stream) = offer(0, socket.clone(), &[near.as_raw_fd(); 2])?;
    ensure!(answer == b'Z', "{}", answer as char);
    stream.write_all(SYNC)?;
    ensure!(message(&mut stream)? == b'Z', "the session is over");
    drop(stream);

    // Root's is taken; it is used when root says so, and never if it goes without a word.
    let (answer, stream) = offer(0, socket.clone(), &[near.as_raw_fd()])?;
    ensure!(answer == b'h', "{}", answer as char);
    drop(stream);
    super::nobody_is_left(&database).await?;
    let (answer, mut stream) = offer(0, socket, &[near.as_raw_fd()])?;
    ensure!(answer == b'h', "{}", answer as char);
    stream.write_all(b"d")?;
    far.write_all(SYNC)?;
    let mut ready = [0; 6];
    far.read_exact(&mut ready)?;
    ensure!(ready == *b"Z\0\0\0\x05I", "{ready:?}");
    drop((far, near));
    ensure!(stream.read(&mut [0])? == 0, "the backend says that it has ended");
    super::nobody_is_left(&database).await?;
    drop(database);
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}
