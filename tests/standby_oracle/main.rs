//! What Offshoot serves, against a stock Postgres that replays the same WAL.
//!
//! A real cluster; a tenant made from a template; computes that are lost while they change everything that can be changed. Then the
//! timeline's WAL is taken from its safekeepers, a stock Postgres recovers the template's own data directory from it to many LSNs, and at
//! each of them every page, SLRU, relation map, two-phase file and counter has to be what the pageserver serves there; on branches and
//! after a restore, too. The last line is one JSON object.
//!
//! `--long`, or `OFFSHOOT_STANDBY_ORACLE=long`, runs more losses, with page checksums, and compares at more LSNs.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the end-to-end tests use other parts of it")]
mod harness;
#[path = "../../pageserver/tests/services/page_client.rs"]
#[allow(dead_code, reason = "the page service's own tests use other parts of it")]
mod page_client;

mod background;
mod counters;
mod damage;
mod files;
mod kind;
mod oracle;
mod report;
mod run;
mod served;
mod standby;
mod stock;
mod stock_state;
mod wal;
mod workload;

use std::process::ExitCode;

use run::{LONG, MODERATE};

/// What Cargo calls this test.
const NAME: &str = "standby_oracle";

fn main() -> ExitCode {
    redo_oracle::test_program::run(NAME, |arguments| {
        let asked = std::env::var("OFFSHOOT_STANDBY_ORACLE").is_ok_and(|value| value == "long");
        let is_long = asked || arguments.iter().any(|argument| argument == "--long");
        let settings = if is_long { LONG } else { MODERATE };
        tokio::runtime::Runtime::new()?.block_on(run::run(settings))
    })
}
