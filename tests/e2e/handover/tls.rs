//! Clients with TLS: where it is TLS 1.3, the backend goes on with it.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::ensure;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_postgres::{Client, NoTls};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, SupportedCipherSuite,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

use super::{config, given, has_socket, hears_its_end, one, serves, up};
use crate::{
    consumption,
    harness::{Database, PATIENCE, eventually, turn},
};

/// A client's side of TLS, in two hands: the session's, and the test's.
#[derive(Clone)]
struct Encrypted(Arc<Mutex<Inner>>);

struct Inner {
    stream: TlsStream<TcpStream>,
    /// What was sent to it.
    heard: Vec<u8>,
    /// Whether the server said that it is the end.
    is_told_the_end: bool,
}

impl Encrypted {
    async fn connect(
        at: SocketAddr,
        certificate: &Path,
        config: ClientConfig,
    ) -> anyhow::Result<Encrypted> {
        let mut socket = TcpStream::connect(at).await?;
        // SSLRequest.
        socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        ensure!(socket.read_u8().await? == b'S', "{}", certificate.display());
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        let inner = Inner { stream, heard: Vec::new(), is_told_the_end: false };
        Ok(Encrypted(Arc::new(Mutex::new(inner))))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.lock().stream.get_ref().0.local_addr()
    }

    /// Takes new keys, and asks for such; with what is written next.
    fn refresh_keys(&self) -> anyhow::Result<()> {
        Ok(self.0.lock().stream.get_mut().1.refresh_traffic_keys()?)
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut inner.stream).poll_read(context, buffer);
        inner.heard.extend_from_slice(&buffer.filled()[before..]);
        inner.is_told_the_end |=
            matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        polled
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_shutdown(context)
    }
}

/// A client that trusts this certificate, and speaks one cipher.
fn speaking(suite: SupportedCipherSuite, certificate: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let version = if suite.tls13().is_some() { &TLS13 } else { &TLS12 };
    let provider = CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() };
    let config = ClientConfig::builder_with_provider(Arc::new(provider));
    Ok(config
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

async fn session(
    at: SocketAddr,
    suite: SupportedCipherSuite,
    certificate: &Path,
) -> anyhow::Result<(Client, Encrypted)> {
    let stream = Encrypted::connect(at, certificate, speaking(suite, certificate)?).await?;
    let (client, connection) = config().connect_raw(stream.clone(), NoTls).await?;
    tokio::spawn(connection);
    Ok((client, stream))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_goes_on_with_its_clients_tls_whatever_the_cipher() -> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = up()?;
    up.tenant("acme").await?;
    let certificate = up.folder.path().join("data/proxy/proxy.crt");
    let port = up.api.start("acme", "main").await?.port;
    let database = Database::connect(port).await?;
    for (number, suite) in (1..).zip(aws_lc_rs::ALL_CIPHER_SUITES) {
        if suite.tls13().is_none() {
            continue;
        }
        let (client, stream) = session(up.proxy, *suite, &certificate).await?;
        let backend = one(&client, "SELECT pg_backend_pid()::text").await?;
        ensure!(has_socket(&backend, stream.local_addr()?)?, "{suite:?} is passed on");
        ensure!(given(&up).await? == number, "{suite:?}");
        serves(&client).await?;
        // New keys for both directions, again and again.
        for _ in 0..3 {
            stream.refresh_keys()?;
            serves(&client).await?;
        }
        // The end is said in TLS, too.
        hears_its_end(&client, &backend, &database).await?;
        eventually("it is told the end", PATIENCE, async || {
            ensure!(stream.0.lock().is_told_the_end, "{suite:?}");
            Ok(())
        })
        .await?;
    }
    let before = given(&up).await?;
    ensure!(before == 3, "{before} of three ciphers");
    let old = aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let (client, _) = session(up.proxy, old, &certificate).await?;
    serves(&client).await?;
    ensure!(given(&up).await? == before, "a session with TLS 1.2 was given away");
    drop((client, database));
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_tls_loses_its_session_and_nothing_else() -> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = up()?;
    up.tenant("acme").await?;
    let certificate = up.folder.path().join("data/proxy/proxy.crt");
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let port = up.api.start("acme", "main").await?.port;
    let database = Database::connect(port).await?;
    let long = [&[23, 3, 3, 255, 255][..], &[7; 70_000]].concat();
    let sealed = [&[23, 3, 3, 0, 32][..], &[7; 32]].concat();
    let nothing = [23, 3, 3, 0, 0].to_vec();
    let short = [23, 3, 3, 0, 16].iter().chain(&[0; 16]).copied().collect();
    let alert = [21, 3, 3, 0, 2, 2, 40].to_vec();
    let noise = (0..70_000_u32).map(|number| (number * 167 % 251) as u8).collect();
    for broken in [long, sealed, nothing, short, alert, noise] {
        let (client, stream) = session(up.proxy, suite, &certificate).await?;
        one(&client, "SELECT ''").await?;
        // By the socket itself, as much of it as it takes.
        let sent = stream.0.lock().stream.get_ref().0.try_write(&broken)?;
        ensure!(sent > 0);
        super::nobody_is_left(&database).await?;
        ensure!(client.simple_query("SELECT 1").await.is_err(), "the session goes on: {sent}");
    }
    // Its end in the middle of a record.
    let (_client, stream) = session(up.proxy, suite, &certificate).await?;
    {
        let inner = stream.0.lock();
        let socket = inner.stream.get_ref().0;
        socket.try_write(&[23, 3, 3])?;
        nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Write)?;
    }
    super::nobody_is_left(&database).await?;
    let (client, _) = session(up.proxy, suite, &certificate).await?;
    serves(&client).await?;
    drop((client, database));
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_says_in_tls_is_counted_to_the_byte() -> anyhow::Result<()> {
    let mut up = consumption::Up::start().await?;
    let settings = json!({ "suspend_timeout_seconds": -1 });
    let project = up.project(json!({ "default_endpoint_settings": settings })).await?;
    let certificate = up.folder.path().join("data/proxy/proxy.crt");
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384;
    let at = up.address("proxy")?;
    let stream = Encrypted::connect(at, &certificate, speaking(suite, &certificate)?).await?;
    let mut config = config();
    config.password(&project.password).options(format!("endpoint=ep-{}", project.id));
    let (client, connection) = config.connect_raw(stream.clone(), NoTls).await?;
    tokio::spawn(connection);
    for rows in [0, 1, 10, 20_000] {
        client.query("SELECT repeat('x', 100) FROM generate_series(1, $1)", &[&rows]).await?;
        eventually("all is counted", PATIENCE, async || {
            let used = up.month(&project).await?;
            let sent = consumption::in_session(&stream.0.lock().heard);
            ensure!(used["data_transfer_bytes"] == sent, "{sent} were sent: {used}");
            Ok(())
        })
        .await?;
    }
    drop(client);
    let path = format!("projects/{0}/endpoints/ep-{0}/suspend", project.id);
    up.api.post(&path, Value::Null).await?;
    up.is_idle(&project).await?;
    let used = up.month(&project).await?;
    let sent = consumption::in_session(&stream.0.lock().heard);
    ensure!(used["data_transfer_bytes"] == sent, "{sent} were sent: {used}");
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}
