//! pgbench through the whole road and on stock Postgres, in turn, the first of a round changing.

use serde_json::json;

use crate::{
    Settings,
    harness::{Cluster, Database, pgbench, pgbench_init},
    median,
    stock::Stock,
};

/// What may make the one faster than the other, printed of both.
const SETTINGS_SHOWN: &str =
    "SELECT string_agg(name || '=' || current_setting(name), ' ' ORDER BY name)
     FROM pg_settings WHERE name IN ('checkpoint_timeout', 'fsync', 'full_page_writes',
     'max_wal_size', 'shared_buffers', 'synchronous_commit', 'synchronous_standby_names',
     'wal_level', 'wal_sync_method')";

/// Ours over stock's.
pub struct Throughput {
    pub tpcb_over_stock: f64,
    pub select_over_stock: f64,
}

pub async fn measure(cluster: &Cluster, settings: Settings) -> anyhow::Result<Throughput> {
    let stock = Stock::start().await?;
    let (compute, _database) = cluster.tenant("bench").await?;
    for (who, port) in [("stock", stock.port), ("ours", compute.port)] {
        pgbench_init(port, settings.scale)?;
        let database = Database::connect(port).await?;
        let shown: String = database.one(SETTINGS_SHOWN).await?;
        println!("{}", json!({ "what": "settings", "of": who, "settings": shown }));
    }
    let tpcb_over_stock = ratio("TPC-B", &[], [stock.port, compute.port], settings)?;
    let select_over_stock = ratio("select-only", &["-S"], [stock.port, compute.port], settings)?;
    Ok(Throughput { tpcb_over_stock, select_over_stock })
}

/// The median of the rounds' ratios.
fn ratio(what: &str, kind: &[&str], ports: [u16; 2], settings: Settings) -> anyhow::Result<f64> {
    let [stock, ours] = ports;
    // Once unmeasured: both have all in memory afterwards.
    for port in ports {
        run(kind, port, settings)?;
    }
    let mut ratios = Vec::new();
    for round in 0..settings.rounds {
        let (stock_tps, our_tps) = match round % 2 {
            0 => {
                let stock_tps = run(kind, stock, settings)?;
                (stock_tps, run(kind, ours, settings)?)
            }
            _ => {
                let our_tps = run(kind, ours, settings)?;
                (run(kind, stock, settings)?, our_tps)
            }
        };
        let ratio = our_tps / stock_tps;
        println!(
            "{}",
            json!({ "what": what, "stock_tps": stock_tps, "our_tps": our_tps, "ratio": ratio })
        );
        ratios.push(ratio);
    }
    Ok(median(&ratios))
}

fn run(kind: &[&str], port: u16, settings: Settings) -> anyhow::Result<f64> {
    let (clients, seconds) = (settings.clients.to_string(), settings.load.as_secs().to_string());
    let mut arguments = vec!["-n", "-M", "prepared", "-j", "2", "-c", &clients, "-T", &seconds];
    arguments.extend(kind);
    let said = pgbench(port, &arguments)?;
    let tps =
        said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.ok_or_else(|| anyhow::anyhow!("pgbench said no tps:\n{said}"))
}
