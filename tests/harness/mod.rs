//! What the end-to-end tests and benches stand on: real processes of the binary that is tested,
//! real Postgres, a folder and ports of their own, and nothing left behind.
//!
//! A [`Cluster`] is five processes: three safekeepers, a pageserver, a control plane; each can be
//! stopped, killed and started again. One cluster lives at a time in a test binary: the machine's
//! processors are few, and a test that waits for its turn is steadier than one that is starved.

mod api;
mod bad_network;
mod ceph;
mod certificates;
mod cluster;
mod keys;
mod management;
mod ports;
mod postgres;
mod process;
mod safekeeper_status;
mod seed;
mod stock;
mod wiretap;

pub use api::Api;
pub use bad_network::{BadNetwork, Network};
pub use ceph::Ceph;
pub use certificates::Certificates;
pub use cluster::{Cluster, Role, compute_ports, folder, mounts_below, turn};
pub use keys::{bearer, token, token_for};
pub use management::Management;
pub use ports::{free_address, free_port};
pub use postgres::{Database, amcheck, host, pgbench, pgbench_balances, pgbench_init, program};
pub use process::Process;
pub use safekeeper_status::safekeeper_status;
pub use seed::{copy, seed, up_arguments};
pub use stock::Stock;
pub use wiretap::Wiretap;

/// The binary that is tested.
pub const OFFSHOOT: &str = env!("CARGO_BIN_EXE_offshoot");

/// How long is waited for what must happen. A test says what happens, never how soon: the machine
/// may be busy with others.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(240);

/// Tries until it succeeds or the time is over; then says the last error.
pub async fn eventually<T>(
    what: &str,
    longest: std::time::Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let began = std::time::Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if began.elapsed() > longest => {
                return Err(error.context(format!("{what}: not within {longest:?}")));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}
