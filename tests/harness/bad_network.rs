//! A network between Offshoot and a store: it loses requests and answers, cuts answers short, is
//! slow, lets the store seem busy, as a seed says.
//!
//! HTTP/1.1 on loopback, one request a connection; the store sees every byte as it was sent, or the
//! signature of the request would be refused.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The longest head and body of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 64 << 20;
/// No client waits that long.
const SILENCE: Duration = Duration::from_secs(60);

/// What the network does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// Everything passes.
    Good,
    /// One request in four meets a fault.
    Bad,
    /// The store seems to take every create for an overwrite.
    ForgetsCreateOnly,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Late(Duration),
    Busy,
    TooMany,
    LostRequest,
    LostAnswer,
    ShortAnswer,
    Silence,
}

/// A proxy that is the network; it ends when this is dropped.
pub struct BadNetwork {
    address: SocketAddr,
    is_bad: Arc<AtomicBool>,
    faults: Arc<AtomicU64>,
    accepts: JoinHandle<()>,
}

impl BadNetwork {
    /// Listens on loopback, and passes to `store`.
    pub async fn start(store: SocketAddr, network: Network, seed: u64) -> Result<BadNetwork> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let is_bad = Arc::new(AtomicBool::new(network == Network::Bad));
        let faults = Arc::new(AtomicU64::new(0));
        let (bad, met) = (is_bad.clone(), faults.clone());
        let accepts = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            while let Ok((client, _)) = listener.accept().await {
                let fault = match bad.load(Ordering::SeqCst) {
                    true => draw(&mut random),
                    false => Fault::None,
                };
                if !matches!(fault, Fault::None) {
                    met.fetch_add(1, Ordering::SeqCst);
                }
                let forgets = network == Network::ForgetsCreateOnly;
                tokio::spawn(async move {
                    // Clients that leave are a part of what is tested.
                    let _left = pass(client, store, fault, forgets).await;
                });
            }
        });
        Ok(BadNetwork { address, is_bad, faults, accepts })
    }

    /// The store's URL as a client has to use it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets everything pass from now on.
    pub fn mend(&self) {
        self.is_bad.store(false, Ordering::SeqCst);
    }

    /// How many requests met a fault.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }
}

impl Drop for BadNetwork {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

fn draw(random: &mut StdRng) -> Fault {
    if !random.random_bool(0.25) {
        return Fault::None;
    }
    match random.random_range(0..20) {
        0..5 => Fault::Late(Duration::from_millis(random.random_range(10..1500))),
        5..8 => Fault::Busy,
        8..10 => Fault::TooMany,
        10..13 => Fault::LostRequest,
        13..16 => Fault::LostAnswer,
        16..19 => Fault::ShortAnswer,
        _ => Fault::Silence,
    }
}

async fn pass(mut client: TcpStream, store: SocketAddr, fault: Fault, forgets: bool) -> Result<()> {
    let request = read_request(&mut client).await?;
    match fault {
        Fault::Late(late) => tokio::time::sleep(late).await,
        Fault::Busy => return refuse(&mut client, "503 Slow Down", "SlowDown").await,
        Fault::TooMany => return refuse(&mut client, "429 Too Many Requests", "SlowDown").await,
        Fault::LostRequest => return Ok(()),
        Fault::Silence => {
            tokio::time::sleep(SILENCE).await;
            return Ok(());
        }
        Fault::None | Fault::LostAnswer | Fault::ShortAnswer => {}
    }
    let mut connection = TcpStream::connect(store).await?;
    connection.write_all(&request).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    match fault {
        Fault::LostAnswer => return Ok(()),
        Fault::ShortAnswer => answer.truncate(answer.len() / 2),
        _ => {}
    }
    if forgets && answer.starts_with(b"HTTP/1.1 412") {
        answer =
            b"HTTP/1.1 200 OK\r\nETag: \"0\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_vec();
    }
    client.write_all(&answer).await?;
    Ok(client.shutdown().await?)
}

async fn refuse(client: &mut TcpStream, status: &str, code: &str) -> Result<()> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let answer = format!(
        "HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await?;
    Ok(client.shutdown().await?)
}

/// The request, with the demand that the store ends the connection after its answer.
async fn read_request(client: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        ensure!(bytes.len() < HEAD_BYTES_MAX, "a head of more than {HEAD_BYTES_MAX} bytes");
        ensure!(client.read_buf(&mut bytes).await? > 0, "the client left");
    };
    let head = std::str::from_utf8(&bytes[..head_end])?;
    let mut body_bytes = 0;
    for line in head.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            body_bytes = value.trim().parse::<usize>().context("a content length")?;
        }
    }
    ensure!(body_bytes <= BODY_BYTES_MAX, "a body of {body_bytes} bytes");
    let mut request = head.as_bytes().to_vec();
    request.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < body_bytes {
        ensure!(client.read_buf(&mut body).await? > 0, "the client left");
    }
    request.extend_from_slice(&body);
    Ok(request)
}
