//! Postgres' own regression suites, run against any server that listens.
//!
//! [`Suites::prepare`] gets the tests once: SQL, expected output and the C functions come from Debian's source package of
//! the pinned minor, `pg_regress` and `pg_isolation_regress` from `postgresql-client-15`. [`Suites::run`] runs one suite.
//! [`Postgres::of_the_suites`] is a server of that minor, fetched where this machine has another. Nothing here starts or
//! configures a server; [`Suite::settings`] says what a suite needs of it.

mod apt;
mod contrib;
mod group;
mod kept;
mod postgres;
mod programs;
mod report;
mod run;
mod source;

pub use group::Group;
pub use postgres::Postgres;
pub use report::Report;
pub use run::Server;
pub use source::Suites;

/// The minor whose tests these are. Another minor's messages and plans may differ from the expected output.
pub const MINOR: &str = "15.18";

/// One of Postgres' suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// `src/test/regress`, `parallel_schedule`: 217 tests.
    Core,
    /// `src/test/isolation`, `isolation_schedule`: 115 tests.
    Isolation,
    /// `contrib/*`: the tests of each extension that the server has.
    Contrib,
}

impl Suite {
    /// Lines for `postgresql.conf` without which some tests fail. For [`Suite::Contrib`] the server is also started with `PGHOST`
    /// set to the folder of its socket: the tests of dblink and postgres_fdw have it connect to itself.
    pub fn settings(self) -> &'static str {
        match self {
            // Prepared transactions are tested where there may be some.
            Suite::Core => "max_prepared_transactions = 10\n",
            Suite::Isolation => "max_prepared_transactions = 10\n",
            Suite::Contrib => {
                "wal_level = logical\nmax_prepared_transactions = 10\nmax_replication_slots = 4\n\
                 logical_decoding_work_mem = 64kB\n\
                 shared_preload_libraries = 'pg_stat_statements'\ncompute_query_id = regress\n"
            }
        }
    }
}
