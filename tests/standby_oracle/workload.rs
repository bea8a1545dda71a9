//! Changes of all kinds to one timeline, by computes that are lost in between.
//!
//! Each round starts a compute with settings of its own, so that they change in the WAL, and ends with its loss: killed with all its
//! processes while transactions run, its folder gone. The last one stops cleanly.

mod sql;

use std::{io::Write, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use control_plane::Compute;
use serde_json::{Map, Value};

use crate::harness::{Cluster, Database, Role, eventually, host, pgbench, program};

/// The tenant of the workload.
pub const TENANT: &str = "acme";

/// Of every compute: a small cache, so that pages leave it and come back, and room for prepared transactions.
const SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "16MB"),
    ("max_prepared_transactions", "10"),
    ("autovacuum_naptime", "5s"),
    ("checkpoint_timeout", "30s"),
];

/// Layers of one size that follow each other, so that they are merged.
const SMALL_RUNS: u32 = 5;

/// How often the parts that may repeat are run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Further rounds of a mixed load and a loss.
    pub losses: u32,
    /// Transactions of each client in a mixed load.
    pub transactions: u32,
}

/// Runs all of it. `folder` is one where tablespaces may be.
pub async fn run(cluster: &mut Cluster, folder: &Path, scale: Scale) -> Result<Compute> {
    let scripts = folder.join("scripts");
    std::fs::create_dir_all(&scripts)?;

    let round =
        Round::start(cluster, &[("track_commit_timestamp", "on"), ("autovacuum", "off")]).await?;
    round.psql("app", sql::HEAP)?;
    round.psql("app", sql::BTREE)?;
    round.psql("app", sql::PREPARED)?;
    round.script(&scripts, "locks", sql::LOCKS, &["-c", "8", "-j", "2", "-t", "40"])?;
    round.script(&scripts, "small", sql::SMALL, &["-c", "8", "-j", "2", "-t", "60"])?;
    round.lose("INSERT INTO h SELECT n, n, 'lost', NULL FROM generate_series(1, 2000) n").await?;

    let settings = [("track_commit_timestamp", "on"), ("max_connections", "70")];
    let round = Round::start(cluster, &settings).await?;
    round.psql("app", "COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'undone';")?;
    round.psql("app", sql::INDEXES)?;
    freeze_all(&round).await?;
    round.psql("app", sql::PREPARED_AGAIN)?;
    round
        .lose("CREATE TABLE never (n int); INSERT INTO never SELECT generate_series(1, 3000)")
        .await?;

    let settings =
        [("track_commit_timestamp", "off"), ("wal_level", "logical"), ("max_connections", "90")];
    let round = Round::start(cluster, &settings).await?;
    let [kept, dropped] = ["kept-space", "dropped-space"].map(|name| folder.join(name));
    round.psql("app", &sql::databases(&kept, &dropped))?;
    for database in ["copied", "logged", "there"] {
        round.psql(database, sql::INSIDE)?;
    }
    round.psql("app", sql::STATE)?;
    round.lose("TRUNCATE h; DROP TABLE b; INSERT INTO h VALUES (-9)").await?;

    for number in 0..=scale.losses {
        let tracked = if number % 2 == 0 { "on" } else { "off" };
        let round = Round::start(cluster, &[("track_commit_timestamp", tracked)]).await?;
        if number == 0 {
            round.psql("app", sql::GOING)?;
            pgbench(round.compute.port, &["-i", "-q", "-s", "1"])?;
        }
        round.mixed_load_and_loss(scale.transactions).await?;
    }
    for number in 0..SMALL_RUNS {
        let round = Round::start(cluster, &[("track_commit_timestamp", "on")]).await?;
        round.psql(
            "app",
            &format!("INSERT INTO commits SELECT {number} FROM generate_series(1, 50)"),
        )?;
        round.lose("INSERT INTO commits VALUES (-1)").await?;
        // What a pageserver has when it stops becomes a layer.
        cluster.stop_role(Role::Pageserver)?;
        cluster.start_role(Role::Pageserver)?;
    }

    let round = Round::start(cluster, &[("track_commit_timestamp", "on")]).await?;
    round.psql("app", sql::LAST)?;
    cluster.api.stop(TENANT, "main").await
}

/// Lets the oldest segments of all SLRUs go. A transaction that runs by chance, autovacuum's, may hold them for a while.
async fn freeze_all(round: &Round<'_>) -> Result<()> {
    round.psql("postgres", "UPDATE pg_database SET datallowconn = true;")?;
    let database = Database::connect(round.compute.port).await?;
    eventually("the oldest segments of all SLRUs go", Duration::from_secs(60), async || {
        for database in ["template0", "template1", "postgres", "app"] {
            round.psql(database, "VACUUM (FREEZE);")?;
        }
        for file in sql::OLDEST_SEGMENTS {
            let query = format!("SELECT (pg_stat_file('{file}', true)).size IS NULL");
            ensure!(database.one::<bool>(&query).await?, "{file} is still there");
        }
        Ok(())
    })
    .await
}

/// A running compute.
struct Round<'a> {
    cluster: &'a Cluster,
    compute: Compute,
}

impl Round<'_> {
    async fn start<'a>(cluster: &'a Cluster, settings: &[(&str, &str)]) -> Result<Round<'a>> {
        let all = SETTINGS.iter().chain(settings);
        let settings: Map<String, Value> =
            all.map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        let request = serde_json::json!({ "tenant": TENANT, "settings": settings });
        let compute = cluster.api.start_with(request).await?;
        Ok(Round { cluster, compute })
    }

    /// Runs statements in one session, each as a transaction of its own.
    fn psql(&self, database: &str, statements: &str) -> Result<()> {
        let mut command = program("psql");
        let port = self.compute.port.to_string();
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command.args([
            "-h",
            &host(self.compute.port)?,
            "-U",
            "postgres",
            "-p",
            &port,
            "-d",
            database,
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("psql does not run")?;
        let mut input = child.stdin.take().context("psql's input")?;
        let statements = statements.to_owned();
        let writer = std::thread::spawn(move || input.write_all(statements.as_bytes()));
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql in {database}: {}\n{said}", output.status);
        writer.join().map_err(|_| anyhow::anyhow!("the writer to psql panicked"))??;
        Ok(())
    }

    /// Runs a script of pgbench's.
    fn script(&self, folder: &Path, name: &str, text: &str, arguments: &[&str]) -> Result<()> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        let path = path.to_str().context("a path in UTF-8")?;
        pgbench(self.compute.port, &[arguments, &["-n", "-f", path, "--max-tries=5"]].concat())?;
        Ok(())
    }

    /// Kills the compute while a transaction with these statements is open.
    async fn lose(self, statements: &str) -> Result<()> {
        let open = Database::connect(self.compute.port).await?;
        open.run(&format!("BEGIN; {statements}")).await?;
        // What the open transaction did so far goes to the quorum with another one's commit.
        let other = Database::connect(self.compute.port).await?;
        other
            .run("CREATE TABLE IF NOT EXISTS commits (n int); INSERT INTO commits VALUES (1)")
            .await?;
        self.cluster.kill_compute(&self.compute).await
    }

    /// Kills the compute in the middle of pgbench's own load.
    async fn mixed_load_and_loss(self, transactions: u32) -> Result<()> {
        let (port, transactions) = (self.compute.port, transactions.to_string());
        pgbench(port, &["-n", "-c", "4", "-j", "2", "-t", &transactions])?;
        self.psql("app", "VACUUM pgbench_accounts; CHECKPOINT;")?;
        // It ends with its server.
        let load = std::thread::spawn(move || pgbench(port, &["-n", "-c", "4", "-T", "60"]));
        tokio::time::sleep(Duration::from_millis(700)).await;
        self.lose("UPDATE pgbench_branches SET filler = 'lost'").await?;
        let ended = load.join().map_err(|_| anyhow::anyhow!("pgbench's thread panicked"))?;
        ensure!(ended.is_err(), "pgbench outlived its server");
        Ok(())
    }
}
