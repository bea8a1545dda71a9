//! The way from the proxy to a compute's Postgres.

use std::{io, net::SocketAddr, path::PathBuf};

use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// A connection to Postgres, whichever way it goes.
pub(crate) type BackendStream = Either<UnixStream, TcpStream>;

/// Where a compute's Postgres is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// Its Unix socket, on this machine: Postgres trusts whoever may enter the socket's folder. The
    /// proxy asks for it as the role that has proven itself.
    Socket(PathBuf),
    /// Its address: Postgres asks the role for SCRAM once more.
    Address(SocketAddr),
}

impl Way {
    /// The Unix socket of a Postgres with this port, in this folder. Source: pqcomm.h,
    /// `UNIXSOCK_PATH`.
    pub fn socket(folder: &std::path::Path, port: u16) -> Way {
        Way::Socket(folder.join(format!(".s.PGSQL.{port}")))
    }

    /// Goes there.
    pub(crate) async fn connect(&self) -> io::Result<BackendStream> {
        match self {
            Way::Socket(path) => Ok(Either::Left(UnixStream::connect(path).await?)),
            Way::Address(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Either::Right(stream))
            }
        }
    }
}
