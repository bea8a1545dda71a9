//! A wire between two processes, with somebody who listens.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Passes on whatever comes, and keeps it; it ends when this is dropped.
pub struct Wiretap {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    accepts: JoinHandle<()>,
}

impl Wiretap {
    /// Listens on loopback, and passes to `server`.
    pub async fn start(server: SocketAddr) -> Result<Wiretap> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let all = heard.clone();
        let accepts = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await?;
                    client.set_nodelay(true)?;
                    server.set_nodelay(true)?;
                    let (client, server) = (client.into_split(), server.into_split());
                    let asked = pass(client.0, server.1, &all);
                    let answered = pass(server.0, client.1, &all);
                    tokio::try_join!(asked, answered)
                });
            }
        });
        Ok(Wiretap { address, heard, accepts })
    }

    /// How much went over the wire.
    pub fn bytes(&self) -> usize {
        self.heard.lock().len()
    }

    /// Whether this did, as it is.
    pub fn heard(&self, text: &str) -> bool {
        self.heard.lock().windows(text.len()).any(|bytes| bytes == text.as_bytes())
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

/// Passes one direction on. What is kept of it is kept together, whatever the other one says: a text
/// that goes over in two pieces is found where nothing comes between them.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    all: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 256 << 10];
    while let count @ 1.. = from.read(&mut bytes).await? {
        all.lock().extend_from_slice(&bytes[..count]);
        to.write_all(&bytes[..count]).await?;
    }
    to.shutdown().await
}
