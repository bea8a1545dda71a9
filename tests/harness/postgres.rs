//! Postgres' own programs against a compute, and connections to it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, ensure};
use tokio_postgres::{Client, NoTls, Row, types::FromSqlOwned};

/// A connection to a compute, as the superuser unless said otherwise.
pub struct Database {
    pub client: Client,
}

impl Database {
    /// Connects as the superuser to the database `app`.
    pub async fn connect(port: u16) -> anyhow::Result<Database> {
        Database::connect_to(port, "app").await
    }

    /// Connects as the superuser.
    pub async fn connect_to(port: u16, database: &str) -> anyhow::Result<Database> {
        let host = host(port)?;
        let config = format!("host={host} port={port} user=postgres dbname={database}");
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
        tokio::spawn(connection);
        Ok(Database { client })
    }

    /// Runs statements.
    pub async fn run(&self, statements: &str) -> anyhow::Result<()> {
        self.client.batch_execute(statements).await.with_context(|| first_line(statements))
    }

    /// The first column of the one row.
    pub async fn one<T: FromSqlOwned>(&self, query: &str) -> anyhow::Result<T> {
        let row: Row =
            self.client.query_one(query, &[]).await.with_context(|| first_line(query))?;
        Ok(row.try_get(0)?)
    }

    /// Where the next record would go: everything before it is in the past.
    pub async fn lsn(&self) -> anyhow::Result<String> {
        self.one("SELECT pg_current_wal_insert_lsn()::text").await
    }
}

fn first_line(statements: &str) -> String {
    statements.trim().lines().next().unwrap_or_default().to_owned()
}

/// Where the Postgres with this port lets the superuser in without a password: the folder of its Unix
/// socket, which the kernel knows, and the loopback address where it has none, as the stock ones here.
pub fn host(port: u16) -> anyhow::Result<String> {
    let name = format!("/.s.PGSQL.{port}");
    let sockets = fs::read_to_string("/proc/net/unix")?;
    let mut folders = sockets.lines().filter_map(|line| {
        line.split_ascii_whitespace().next_back()?.strip_suffix(&name).map(str::to_owned)
    });
    Ok(folders.next_back().unwrap_or_else(|| "127.0.0.1".to_owned()))
}

/// A program of Postgres.
pub fn program(name: &str) -> Command {
    let debian = Path::new("/usr/lib/postgresql/15/bin").join(name);
    Command::new(if debian.exists() { debian } else { name.into() })
}

fn succeeds(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}{complained}", output.status);
    Ok(said)
}

/// Fills pgbench's tables.
pub fn pgbench_init(port: u16, scale: u32) -> anyhow::Result<String> {
    pgbench(port, &["-i", "-q", "-s", &scale.to_string()])
}

/// Runs pgbench against the database `app`; fails where it reports an error.
pub fn pgbench(port: u16, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = program("pgbench");
    command.args(["-h", &host(port)?, "-U", "postgres", "-p", &port.to_string()]);
    succeeds(command.args(arguments).arg("app"))
}

/// pgbench's invariant: every transaction adds the same to an account, a teller, a branch and the
/// history. The sum.
pub async fn pgbench_balances(database: &Database) -> anyhow::Result<i64> {
    let sum = |column: &str, table: &str| {
        format!("SELECT coalesce(sum({column}), 0)::bigint FROM pgbench_{table}")
    };
    let accounts: i64 = database.one(&sum("abalance", "accounts")).await?;
    for (column, table) in [("tbalance", "tellers"), ("bbalance", "branches"), ("delta", "history")]
    {
        let other: i64 = database.one(&sum(column, table)).await?;
        ensure!(accounts == other, "accounts sum to {accounts}, {table} to {other}");
    }
    Ok(accounts)
}

/// Checks every heap and every B-tree of every database against each other.
pub fn amcheck(port: u16) -> anyhow::Result<()> {
    let mut command = program("pg_amcheck");
    command.args(["-h", &host(port)?, "-U", "postgres", "-p", &port.to_string()]);
    succeeds(command.args(["--all", "--install-missing", "--heapallindexed"]))?;
    Ok(())
}
