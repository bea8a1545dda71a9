//! `branch@lsn` and `branch@timestamp`: a connection string that leads to the branch as it was, for
//! reading, by a Postgres that nobody else shares and that nothing can write through.

use std::process::Command;

use anyhow::{Context, ensure};

use crate::{
    harness::{PATIENCE, eventually, program},
    projects::Up,
};

/// A project's connection string with more words in its options.
struct Connection {
    uri: String,
}

impl Connection {
    fn of(up: &Up, project: &str) -> anyhow::Result<Connection> {
        let uri = up.table(&["connection-string", project])?.trim().to_owned();
        Ok(Connection { uri: uri + "&channel_binding=require" })
    }

    fn at(&self, word: &str) -> Connection {
        let word = word.replace(':', "%3A").replace('/', "%2F");
        let (before, options) = self.uri.split_once("options=").unwrap_or((&self.uri, ""));
        Connection { uri: format!("{before}options={word}%20{options}") }
    }

    fn psql(&self, statements: &str) -> Command {
        let mut command = program("psql");
        command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=sqlstate", "-d"]);
        command.args([&self.uri, "-c", statements]);
        command
    }

    fn ask(&self, statements: &str) -> anyhow::Result<String> {
        let output = self.psql(statements).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{statements}: {said}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn complaint(&self, statements: &str) -> anyhow::Result<String> {
        let output = self.psql(statements).output()?;
        ensure!(!output.status.success(), "{statements} was not refused");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The names of the computes of moments that run.
fn moments(up: &Up) -> anyhow::Result<Vec<String>> {
    let listed = up.json(&["--control-plane", up.control_plane(), "compute", "list"])?;
    let names = listed.as_array().context("a list")?.iter();
    let names = names.filter_map(|compute| compute["branch"].as_str()).map(str::to_owned);
    Ok(names.filter(|name| name.contains('@')).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_is_read_as_it_was_by_all_who_ask_for_it_and_cannot_be_written()
-> anyhow::Result<()> {
    let up = Up::start_with(&["--suspend-after", "3"]).await?;
    up.json(&["project", "create", "acme"])?;
    let now = Connection::of(&up, "acme")?;
    now.ask(
        "CREATE TABLE t AS SELECT generate_series(1, 1000) n; CREATE UNLOGGED TABLE u (n int); \
         CREATE SEQUENCE s",
    )?;
    let lsn = now.ask("SELECT pg_current_wal_insert_lsn()")?;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let time = now.ask(
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    )?;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    now.ask("CREATE TABLE later (n int); DELETE FROM t WHERE n > 10; INSERT INTO u VALUES (1)")?;
    now.ask("ALTER ROLE CURRENT_USER CONNECTION LIMIT 50")?;
    // What ran at the moment needs its room there, whatever is said today.
    up.json(&["endpoint", "update", "acme", "main", "--set", "max_connections=20"])?;

    let then = now.at(&format!("neon_lsn:{lsn}"));
    let count = "SELECT count(*), to_regclass('later') IS NULL, pg_is_in_recovery() FROM t";
    ensure!(then.ask(count)? == "1000|t|t", "{}", then.ask(count)?);
    ensure!(now.at(&format!("neon_timestamp:{time}")).ask(count)? == "1000|t|t");
    ensure!(now.ask(count)? == "10|f|f");
    // An index is scanned, and a temporary file written, by a query that sorts.
    let sorted = "SET work_mem = '64kB'; SELECT sum(n) FROM (SELECT n FROM t, generate_series(1, 20) \
                  ORDER BY md5(n::text)) s";
    ensure!(then.ask(sorted)? == "10010000");

    for write in [
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE x ()",
        "SET transaction_read_only = off; DELETE FROM t",
        "SET default_transaction_read_only = off; TRUNCATE t",
        "BEGIN READ WRITE; DELETE FROM t; COMMIT",
        "SELECT nextval('s')",
    ] {
        let said = then.complaint(write)?;
        // read_only_sql_transaction, or feature_not_supported where READ WRITE itself is refused.
        ensure!(said.contains("25006") || said.contains("0A000"), "{write}: {said}");
    }
    ensure!(then.complaint("SELECT pg_promote()")?.contains("42501"));
    ensure!(then.ask(count)? == "1000|t|t" && now.ask(count)? == "10|f|f");

    // All who ask for the same share one compute.
    ensure!(then.ask("SELECT 1")? == "1");
    let running = moments(&up)?;
    ensure!(running.iter().any(|name| name.starts_with("main@0/")), "{running:?}");
    let crowd: Vec<_> =
        (0..8).map(|_| then.psql("SELECT pg_sleep(1)").spawn()).collect::<Result<_, _>>()?;
    for mut client in crowd {
        ensure!(client.wait()?.success());
    }
    ensure!(moments(&up)?.iter().all(|name| running.contains(name)), "{running:?}");

    // The command line says it in its own words.
    let asked = up.table(&["psql", "acme", "--lsn", &lsn, "--", "-XqAtc", count])?;
    ensure!(asked.trim() == "1000|t|t", "{asked}");
    let uri = up.table(&["connection-string", "acme", "main", "--timestamp", &time])?;
    ensure!(Connection { uri: uri.trim().to_owned() }.ask(count)? == "1000|t|t", "{uri}");

    // Nobody uses it: it goes, and so does the branch's own compute.
    eventually("a moment that nobody reads is given up", PATIENCE, async || {
        let left = moments(&up)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    ensure!(then.ask(count)? == "1000|t|t", "it does not come back");
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_cannot_be_read_is_refused_and_starts_nothing() -> anyhow::Result<()> {
    let up = Up::start_with(&[]).await?;
    up.json(&["project", "create", "acme"])?;
    let now = Connection::of(&up, "acme")?;
    now.ask("CREATE TABLE t ()")?;
    let lsn = now.ask("SELECT pg_current_wal_insert_lsn()")?;
    for (word, reason) in [
        ("neon_lsn:7FFF/0", "is in the future"),
        ("neon_timestamp:2999-01-01T00:00:00Z", "is in the future"),
        ("neon_lsn:0/100", "before the retained history"),
        ("neon_timestamp:2001-01-01T00:00:00Z", "before the tenant's creation"),
        ("neon_lsn:half", "is not an LSN"),
        ("neon_timestamp:yesterday", "is not a moment"),
    ] {
        let said = now.at(word).complaint("SELECT 1")?;
        ensure!(said.contains(reason), "{word}: {said}");
    }
    let wrong = Connection { uri: now.uri.replacen("://app:", "://app:x", 1) };
    let said = wrong.at(&format!("neon_lsn:{lsn}")).complaint("SELECT 1")?;
    ensure!(said.contains("password authentication failed"), "{said}");
    ensure!(moments(&up)?.is_empty(), "a compute was started");

    // The branch itself may be named, as Neon's clients do; its moments go with it.
    let branch = up.json(&["branch", "show", "acme", "main"])?;
    let branch = branch["branch"]["id"].as_str().context("an id")?.to_owned();
    let endpoint = now.uri.split("endpoint%3D").nth(1).context("an endpoint")?;
    let endpoint = endpoint.split('&').next().context("an endpoint")?.to_owned();
    let named = Connection { uri: now.uri.replace(&endpoint, &branch) };
    ensure!(named.at(&format!("neon_lsn:{lsn}")).ask("SELECT count(*) FROM t")? == "0");
    ensure!(moments(&up)?.len() == 1);

    // Who used up a quota reads no moment either.
    let then = named.at(&format!("neon_lsn:{lsn}"));
    let mut reading = then.psql("SELECT pg_sleep(600)");
    let reader = std::thread::spawn(move || reading.output());
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    up.json(&["project", "set-quota", "acme", "--active-time", "1s"])?;
    let read = reader.join().map_err(|_| anyhow::anyhow!("psql was not waited for"))??;
    ensure!(!read.status.success(), "it reads on");
    eventually("its compute is gone", PATIENCE, async || {
        let left = moments(&up)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    let said = then.complaint("SELECT 1")?;
    ensure!(said.contains("active_time_seconds"), "{said}");
    up.json(&["project", "set-quota", "acme", "--active-time", "none"])?;
    ensure!(then.ask("SELECT count(*) FROM t")? == "0");
    up.json(&["project", "delete", "acme", "--yes"])?;
    ensure!(moments(&up)?.is_empty(), "a moment outlived its project");
    up.stop()
}
