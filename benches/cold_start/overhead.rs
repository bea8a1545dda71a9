//! pgbench's select-only, with and without the proxy between: over TCP on loopback both ways, once
//! without TLS on either side and once with TLS on both, which Postgres itself speaks on its own port.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::Path,
};

use anyhow::{Context, ensure};
use control_plane::Compute;
use serde::Serialize;
use serde_json::json;

use super::{
    Settings,
    figures::{median, round},
    harness::{pgbench_init, program},
    up::Up,
};

/// Which part of the transactions a second the proxy costs, by the medians: 0.1 is a tenth.
#[derive(Serialize)]
pub struct Overhead {
    /// Without TLS, as on the compute's own port.
    pub plain: f64,
    /// With TLS, as on the compute's own port where Postgres has a certificate.
    pub tls: f64,
}

/// Rounds of the compute's own port and of the proxy, without and with TLS, in turn.
pub async fn measure(up: &Up, settings: Settings) -> anyhow::Result<Overhead> {
    up.tenant("busy").await?;
    let compute = start_with_certificate(up).await?;
    pgbench_init(compute.port, settings.scale)?;
    let database = super::harness::Database::connect(compute.port).await?;
    database.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO app").await?;
    let direct = |sslmode: &str| {
        format!("postgresql://app:secret@127.0.0.1:{}/app?sslmode={sslmode}", compute.port)
    };
    let ways = [
        ("direct", direct("disable")),
        ("proxy", up.url("busy", "disable")),
        ("direct with TLS", direct("require")),
        ("proxy with TLS", up.url("busy", "require")),
    ];
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..settings.rounds {
        for ((_, url), rates) in ways.iter().zip(&mut rates) {
            rates.push(transactions_a_second(url, settings)?);
        }
    }
    for ((way, _), rates) in ways.iter().zip(&rates) {
        println!("{}", json!({ "what": way, "tps": rates }));
    }
    let [direct, plain, direct_tls, tls] = rates.map(|rates| median(&rates));
    Ok(Overhead { plain: round(1.0 - plain / direct), tls: round(1.0 - tls / direct_tls) })
}

/// The compute, whose Postgres speaks TLS on its own port.
async fn start_with_certificate(up: &Up) -> anyhow::Result<Compute> {
    let compute = up.api.start("busy", "main").await?;
    let folder = up.folder().join("certificate");
    let user = fs::metadata(&compute.sockets)?.uid();
    put_certificate(&folder, user)?;
    up.api.stop("busy", "main").await?;
    let settings = json!({
        "ssl": "on",
        "ssl_cert_file": folder.join("crt"),
        "ssl_key_file": folder.join("key"),
    });
    let request = json!({ "tenant": "busy", "port": compute.port, "settings": settings });
    up.api.start_with(request).await
}

/// A certificate that this user, and nobody else, can read.
fn put_certificate(folder: &Path, user: u32) -> anyhow::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let files = [("crt", made.cert.pem()), ("key", made.signing_key.serialize_pem())];
    for (name, text) in files {
        let file = folder.join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        chown(&file, Some(user), None)?;
    }
    Ok(chown(folder, Some(user), None)?)
}

fn transactions_a_second(url: &str, settings: Settings) -> anyhow::Result<f64> {
    let mut pgbench = program("pgbench");
    pgbench.args(["-S", "-n", "-j", "2", "-c", &settings.clients.to_string()]);
    let output = pgbench.args(["-T", &settings.load.as_secs().to_string(), url]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = line.and_then(|line| line.split(' ').next()).context("pgbench says its rate")?;
    Ok(rate.parse()?)
}
