use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use axum::{Router, routing::get};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DAY: Duration = Duration::from_secs(86_400);

/// Somebody who signs certificates, and a folder for them.
struct Signer {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    fn new() -> anyhow::Result<Signer> {
        let folder = tempfile::tempdir()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        fs::write(folder.path().join("ca"), params.self_signed(&key)?.pem())?;
        Ok(Signer { folder, issuer: Issuer::new(params, key) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn trust(&self) -> anyhow::Result<Trust> {
        Ok(Trust::load(&self.path("ca"))?)
    }

    /// Writes a certificate for this address that ends then, and its key, in place of what was there.
    fn write(&self, address: IpAddr, ends: SystemTime) -> anyhow::Result<()> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        params.not_before = (ends - 60 * DAY).into();
        params.not_after = ends.into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        replace(&self.path("key"), &key.serialize_pem(), 0o600)?;
        replace(&self.path("cert"), &certificate.pem(), 0o644)
    }

    fn load(&self) -> Result<Certificate, TlsError> {
        Certificate::load(&self.path("cert"), &self.path("key"))
    }

    /// A certificate for loopback that is valid for a month.
    fn certificate(&self) -> anyhow::Result<Certificate> {
        self.write(LOOPBACK, SystemTime::now() + 30 * DAY)?;
        Ok(self.load()?)
    }
}

fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let making = path.with_extension("making");
    fs::write(&making, text)?;
    fs::set_permissions(&making, fs::Permissions::from_mode(mode))?;
    Ok(fs::rename(making, path)?)
}

/// A port that sends back what comes, and tells those who speak plainly what it speaks.
async fn echo(certificate: Option<&Certificate>) -> anyhow::Result<SocketAddr> {
    let listener = Listener::bind((LOOPBACK, 0).into(), certificate).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((arrival, _)) = listener.accept().await {
            tokio::spawn(async move {
                match arrival.open().await? {
                    Speaks::Alike(connection) => {
                        let (mut reader, mut writer) = connection.into_split();
                        let mut bytes = [0; 4096];
                        while let count @ 1.. = reader.read(&mut bytes).await? {
                            writer.write_all(&bytes[..count]).await?;
                            writer.flush().await?;
                        }
                        writer.shutdown().await
                    }
                    Speaks::Plainly(mut connection) => {
                        // What is unread when the socket is closed takes the answer with it.
                        connection.read_exact(&mut [0; 5]).await?;
                        connection.write_all(b"tls").await
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Sends this there and gives what comes back.
async fn said_to(trust: &Trust, address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (mut reader, mut writer) = trust.connect(address).await?.into_split();
    let sending = async {
        writer.write_all(bytes).await?;
        writer.shutdown().await
    };
    let mut back = Vec::new();
    let (sent, read) = tokio::join!(sending, reader.read_to_end(&mut back));
    sent?;
    read?;
    Ok(back)
}

/// Why that failed.
fn failure<T>(result: anyhow::Result<T>) -> anyhow::Result<String> {
    match result {
        Ok(_) => bail!("it did not fail"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[tokio::test]
async fn what_is_sent_comes_back_encrypted_or_not() -> anyhow::Result<()> {
    let signer = Signer::new()?;
    let certificate = signer.certificate()?;
    let much: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
    for (trust, certificate) in [(Trust::default(), None), (signer.trust()?, Some(&certificate))] {
        let address = echo(certificate).await?;
        assert_eq!(said_to(&trust, address, &much).await?, much);
    }
    Ok(())
}

#[tokio::test]
async fn nobody_is_believed_whom_the_given_certificates_have_not_signed() -> anyhow::Result<()> {
    let (signer, other) = (Signer::new()?, Signer::new()?);
    let address = echo(Some(&signer.certificate()?)).await?;
    let said = failure(said_to(&other.trust()?, address, b"hello").await)?;
    assert!(said.contains("nobody in") && said.contains("--tls-ca"), "{said}");
    assert!(said.contains(&other.path("ca").display().to_string()), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_another_address_is_not_taken() -> anyhow::Result<()> {
    let signer = Signer::new()?;
    signer.write([10, 0, 0, 7].into(), SystemTime::now() + DAY)?;
    let address = echo(Some(&signer.load()?)).await?;
    let said = failure(said_to(&signer.trust()?, address, b"hello").await)?;
    assert!(said.contains("127.0.0.1") && said.contains("10.0.0.7"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_ends_while_it_is_shown_is_not_taken_any_more() -> anyhow::Result<()> {
    let signer = Signer::new()?;
    // Its seconds are whole: it is good for one or two.
    signer.write(LOOPBACK, SystemTime::now() + Duration::from_secs(2))?;
    let address = echo(Some(&signer.load()?)).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let said = failure(said_to(&signer.trust()?, address, b"hello").await)?;
    assert!(said.contains("it has ended") && said.contains("--tls-cert"), "{said}");
    Ok(())
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_mend() -> anyhow::Result<()> {
    let signer = Signer::new()?;
    let refused = || signer.load().err().map(|error| error.to_string()).unwrap_or_default();
    signer.write(LOOPBACK, SystemTime::now() - DAY)?;
    assert!(refused().contains("cert ended 864"), "{}", refused());

    signer.write(LOOPBACK, SystemTime::now() + DAY)?;
    let (key, certificate) = (signer.path("key"), signer.path("cert"));
    let own = fs::read_to_string(&key)?;
    replace(&key, &KeyPair::generate()?.serialize_pem(), 0o600)?;
    assert!(refused().contains("is not that of the certificate in"), "{}", refused());
    replace(&key, &own, 0o644)?;
    assert!(refused().contains("chmod o="), "{}", refused());
    replace(&key, "no key", 0o600)?;
    assert!(refused().contains("key: a private key in PEM"), "{}", refused());
    replace(&key, &own, 0o600)?;
    replace(&certificate, "no certificate", 0o644)?;
    assert!(refused().contains("cert: a certificate in PEM"), "{}", refused());
    fs::remove_file(&certificate)?;
    assert!(refused().contains("cert: No such file"), "{}", refused());
    assert!(Trust::load(&key).is_err_and(|error| error.to_string().contains("there is none")));
    Ok(())
}

#[tokio::test]
async fn files_that_are_replaced_are_read_anew_unless_they_are_nonsense() -> anyhow::Result<()> {
    let (old, new) = (Signer::new()?, Signer::new()?);
    let address = echo(Some(&old.certificate()?)).await?;
    let trust = old.trust()?;
    let http = trust.http();
    assert_eq!(said_to(&trust, address, b"hello").await?, b"hello");
    // Nonsense changes nothing.
    replace(&old.path("cert"), "nonsense", 0o644)?;
    assert_eq!(said_to(&trust, address, b"hello").await?, b"hello");
    // The server has a certificate of another signer: it is believed once the file names that one.
    new.certificate()?;
    replace(&old.path("key"), &fs::read_to_string(new.path("key"))?, 0o600)?;
    replace(&old.path("cert"), &fs::read_to_string(new.path("cert"))?, 0o644)?;
    assert!(failure(said_to(&trust, address, b"hello").await)?.contains("nobody in"));
    replace(&old.path("ca"), &fs::read_to_string(new.path("ca"))?, 0o644)?;
    assert_eq!(said_to(&trust, address, b"hello").await?, b"hello");
    drop(http);
    Ok(())
}

#[tokio::test]
async fn who_speaks_plainly_to_tls_is_told_and_gets_nothing_else() -> anyhow::Result<()> {
    let signer = Signer::new()?;
    let address = echo(Some(&signer.certificate()?)).await?;
    assert_eq!(said_to(&Trust::default(), address, b"hello").await?, b"tls");
    Ok(())
}

#[tokio::test]
async fn who_speaks_tls_to_plain_says_so() -> anyhow::Result<()> {
    let trust = Signer::new()?.trust()?;
    let silent = TcpListener::bind((LOOPBACK, 0)).await?;
    let closed = silent.local_addr()?;
    tokio::spawn(async move { while silent.accept().await.is_ok() {} });
    for address in [api(None).await?, closed] {
        let said = failure(said_to(&trust, address, b"hello").await)?;
        assert!(said.contains(&format!("{address} speaks no TLS")), "{said}");
    }
    Ok(())
}

/// An HTTP API, and its address.
async fn api(certificate: Option<&Certificate>) -> anyhow::Result<SocketAddr> {
    let listener = Listener::bind((LOOPBACK, 0).into(), certificate).await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/", get(async || "hello"));
    tokio::spawn(async move { axum::serve(listener.http(), router).await });
    Ok(address)
}

#[tokio::test]
async fn http_is_encrypted_too_and_every_mistake_is_a_sentence() -> anyhow::Result<()> {
    let (signer, other) = (Signer::new()?, Signer::new()?);
    let (encrypted, plain) = (api(Some(&signer.certificate()?)).await?, api(None).await?);
    let asked = async |trust: &Trust, address: SocketAddr| {
        let url = format!("{}://{address}/", trust.scheme());
        let answer = trust.http().get(url).send().await;
        match answer {
            Ok(answer) => Ok(answer.text().await?),
            Err(error) => bail!("{}", why(&error)),
        }
    };
    let nobody = Trust::default();
    assert_eq!(asked(&signer.trust()?, encrypted).await?, "hello");
    assert_eq!(asked(&nobody, plain).await?, "hello");
    assert!(asked(&nobody, encrypted).await?.contains(SPEAKS_TLS));
    let said = failure(asked(&signer.trust()?, plain).await)?;
    assert!(said.contains("speaks no TLS"), "{said}");
    let said = failure(asked(&other.trust()?, encrypted).await)?;
    assert!(said.contains("nobody in"), "{said}");
    let said = signer.trust()?.http().get(format!("http://{plain}/")).send().await.err();
    assert!(said.is_some(), "it asked plainly");
    Ok(())
}

#[tokio::test]
async fn somebody_who_says_nothing_holds_up_nobody_else() -> anyhow::Result<()> {
    let signer = Signer::new()?;
    let address = api(Some(&signer.certificate()?)).await?;
    let _silent = TcpStream::connect(address).await?;
    let trust = signer.trust()?;
    let answer = trust.http().get(format!("https://{address}/")).send().await;
    assert_eq!(answer.context("the other one is served")?.text().await?, "hello");
    Ok(())
}

#[tokio::test]
async fn certificates_that_are_made_here_are_believed_and_can_be_made_anew() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let files = SignerFiles::of(folder.path());
    let make = || files.make(&["127.0.0.1".into(), "db.test".into()], SystemTime::now(), DAY);
    make()?;
    assert_eq!(fs::metadata(&files.key)?.permissions().mode() & 0o777, 0o600);
    let trust = Trust::load(&files.ca)?;
    let address = echo(Some(&Certificate::load(&files.certificate, &files.key)?)).await?;
    assert_eq!(said_to(&trust, address, b"hello").await?, b"hello");
    let (ca, certificate) = (fs::read(&files.ca)?, fs::read(&files.certificate)?);
    make()?;
    assert_eq!(fs::read(&files.ca)?, ca, "another one signs");
    assert_ne!(fs::read(&files.certificate)?, certificate);
    assert_eq!(said_to(&trust, address, b"hello").await?, b"hello");
    Ok(())
}
