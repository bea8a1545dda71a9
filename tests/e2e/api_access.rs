//! Who reaches the management API from the command line, and how: API keys, and TLS in front of it.

use std::{fs, process::Command, sync::Arc};

use anyhow::ensure;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use crate::{
    harness::OFFSHOOT,
    projects::{Said, Up, outcome, rows},
};

fn with_key(up: &Up, key: &str, arguments: &[&str]) -> anyhow::Result<Said> {
    let mut command = Command::new(OFFSHOOT);
    outcome(command.args(["--api-url", up.url(), "--api-key", key]).args(arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lets_in_until_it_is_revoked() -> anyhow::Result<()> {
    let up = Up::start_with(&[]).await?;
    let made = up.json(&["api-key", "create", "deploy"])?;
    let key = made["key"].as_str().unwrap_or_default().to_owned();
    let id = made["id"].to_string();
    ensure!(with_key(&up, &key, &["project", "create", "acme"])?.code == 0);
    let listed = up.table(&["api-key", "list"])?;
    ensure!(rows(&listed, "deploy").len() == 1, "{listed}");
    ensure!(!listed.contains(&key), "the key is shown again: {listed}");
    let shown = up.table(&["api-key", "create", "other"])?;
    ensure!(shown.contains("it is not shown again"), "{shown}");

    let revoked = up.table(&["api-key", "revoke", &id])?;
    ensure!(revoked.contains("deploy is revoked"), "{revoked}");
    let said = with_key(&up, &key, &["project", "list"])?;
    ensure!(said.code == 7, "{}", said.err);
    let (code, said) = up.refused(&["api-key", "revoke", &id])?;
    ensure!(code == 4, "{said}");
    up.stop()
}

/// TLS in front of an address, as a load balancer has it; its port, and its certificate.
async fn tls_before(address: String) -> anyhow::Result<(u16, String)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, address) = (acceptor.clone(), address.clone());
            tokio::spawn(async move {
                let mut client = acceptor.accept(socket).await?;
                let mut server = TcpStream::connect(address).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok((port, made.cert.pem()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_reached_over_https_by_who_trusts_its_certificate() -> anyhow::Result<()> {
    let up = Up::start_with(&[]).await?;
    let plain = up.url().trim_start_matches("http://").to_owned();
    let (port, certificate) = tls_before(plain).await?;
    let trusted = up.data().join("trusted.pem");
    fs::write(&trusted, certificate)?;
    let key = up.key()?;
    let ask = |arguments: &[&str], trusts: bool| {
        let url = format!("https://localhost:{port}");
        let mut command = Command::new(OFFSHOOT);
        command.env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE");
        if trusts {
            command.env("SSL_CERT_FILE", &trusted);
        }
        outcome(command.args(["--api-url", &url, "--api-key", &key]).args(arguments))
    };
    let made = ask(&["project", "create", "acme"], true)?;
    ensure!(made.code == 0 && made.out.contains("acme"), "{}{}", made.out, made.err);
    let listed = ask(&["--json", "project", "list"], true)?;
    ensure!(listed.code == 0 && listed.out.contains("acme"), "{}{}", listed.out, listed.err);
    let refused = ask(&["project", "list"], false)?;
    ensure!(refused.code == 6, "{}{}", refused.out, refused.err);
    ensure!(refused.err.to_lowercase().contains("certificate"), "{}", refused.err);
    up.stop()
}
