//! Clients that do not speak the protocol, or speak it to do harm.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::{
    STRICT, ask,
    stock::{DOMAIN, Fixture, NAME},
};

/// Sends bytes, then reads to the end; a refusal's fields between zero bytes.
async fn answer(fixture: &Fixture, bytes: &[u8]) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(fixture.address()).await?;
    socket.write_all(bytes).await?;
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(60), read).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 + 8;
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

const VERSION: u32 = 3 << 16;

#[tokio::test(flavor = "multi_thread")]
async fn packets_out_of_shape_are_refused_by_name_and_the_next_client_gets_in() -> anyhow::Result<()>
{
    let fixture = Fixture::with(true).await?;
    let long = packet(VERSION, &vec![b'x'; 100_000]);
    let cases: [(Vec<u8>, &str, &str); 8] = [
        (long, "C08P01", "invalid length of startup packet: 100008"),
        (vec![0; 8], "C08P01", "invalid length of startup packet: 0"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "C08P01", "invalid length of startup packet"),
        (packet(2 << 16, b"\0"), "C0A000", "unsupported frontend protocol 2.0"),
        (packet(VERSION, b"user\0app"), "C08P01", "expected terminator"),
        (packet(VERSION, b"options\0endpoint=acme\0\0"), "C28000", "no PostgreSQL user name"),
        (packet(VERSION, b"user\0app\0\0"), "C08004", "no endpoint is named"),
        // A session after a session was asked for.
        (
            [packet(VERSION, b"user\0app\0options\0endpoint=acme\0\0"), vec![b'Q'; 3000]].concat(),
            "C08P01",
            "a message of type 'Q'",
        ),
    ];
    for (bytes, code, sentence) in cases {
        let said = answer(&fixture, &bytes).await?;
        assert!(said.contains(code) && said.contains(sentence), "{sentence}: {said:?}");
    }
    assert_eq!(ask(&fixture.by_options(STRICT), "secret", "SELECT 1").await?, "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_before_and_inside_tls_end_their_own_connection_alone() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let ssl_request = packet(1234 << 16 | 5679, b"");
    for seed in 0..200_u32 {
        // A xorshift: the same bytes each time.
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let random = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        });
        let garbage: Vec<u8> = random.take(1 + seed as usize * 7).collect();
        let bytes = match seed % 4 {
            0 => garbage,
            1 => [ssl_request.clone(), garbage].concat(),
            2 => packet(VERSION, &garbage),
            _ => [&[0x16, 3, 1][..], &garbage].concat(),
        };
        let mut socket = TcpStream::connect(fixture.address()).await?;
        // It may be refused while bytes are still being sent.
        let _sent = socket.write_all(&bytes).await;
        if seed % 3 != 0 {
            let _ended = socket.shutdown().await;
            let mut rest = Vec::new();
            let read = socket.read_to_end(&mut rest);
            let _reset = tokio::time::timeout(Duration::from_secs(60), read).await?;
        }
    }
    assert!(!fixture.stock.is_running(), "noise woke a database");
    assert_eq!(ask(&fixture.by_options(STRICT), "secret", "SELECT 1").await?, "1");
    Ok(())
}

/// TLS at once, as `sslnegotiation=direct` of newer clients has it; the answer to a startup message.
async fn directly(fixture: &Fixture, protocols: &[&[u8]]) -> anyhow::Result<u8> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture.folder.path().join("proxy.crt"))?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let socket = TcpStream::connect(fixture.address()).await?;
    let name = ServerName::try_from(format!("{NAME}.{DOMAIN}"))?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    stream.write_all(&packet(VERSION, b"user\0app\0\0")).await?;
    Ok(stream.read_u8().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_may_come_first_from_a_client_that_names_the_protocol() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    assert_eq!(
        directly(&fixture, &[&b"postgresql"[..]]).await?,
        b'R',
        "it was not asked for a password"
    );
    // A browser that was sent here by somebody else's page must not be spoken with.
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        assert!(directly(&fixture, protocols).await.is_err(), "{protocols:?}");
    }
    Ok(())
}
