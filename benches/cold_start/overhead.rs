//! pgbench's select-only, with and without the proxy between.

use anyhow::{Context, ensure};
use serde::Serialize;

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
    /// With TLS.
    pub tls: f64,
}

/// Rounds of the compute's own port, the proxy without and with TLS, in turn.
pub async fn measure(up: &Up, settings: Settings) -> anyhow::Result<Overhead> {
    up.tenant("busy").await?;
    let compute = up.api.start("busy", "main").await?;
    pgbench_init(compute.port, settings.scale)?;
    let database = super::harness::Database::connect(compute.port).await?;
    database.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO app").await?;
    let direct = compute.connection;
    let ways = [direct, up.url("busy", "disable"), up.url("busy", "require")];
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..settings.rounds {
        for (url, rates) in ways.iter().zip(&mut rates) {
            rates.push(transactions_a_second(url, settings)?);
        }
    }
    for (way, rates) in ["direct", "proxy", "proxy with TLS"].iter().zip(&rates) {
        println!("{}", serde_json::json!({ "what": way, "tps": rates }));
    }
    let [direct, plain, tls] = rates.map(|rates| median(&rates));
    Ok(Overhead { plain: round(1.0 - plain / direct), tls: round(1.0 - tls / direct) })
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
