//! The proxy before a stock Postgres, with libpq's own programs as its clients.

mod hostile;
mod stock;

use std::{
    process::{Output, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context, ensure};
use stock::{Fixture, program};
use tokio::process::Command;

/// All that a careful client asks for.
const STRICT: &str = "sslmode=require&channel_binding=require";

/// psql, ready to run one statement.
fn psql(connection: &str, password: &str, statement: &str) -> Command {
    let mut command = Command::new(program("psql"));
    command.args(["-XqAt", "-d", connection, "-c", statement]).env("PGPASSWORD", password);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn ask(connection: &str, password: &str, statement: &str) -> anyhow::Result<String> {
    said(psql(connection, password, statement).output().await?)
}

fn said(output: Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// What psql complains about.
async fn complaint(connection: &str, password: &str) -> anyhow::Result<String> {
    let output = psql(connection, password, "SELECT 1").output().await?;
    ensure!(!output.status.success(), "it was let in");
    Ok(String::from_utf8(output.stderr)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_wakes_its_database_and_logs_in_with_channel_binding() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    assert!(!fixture.stock.is_running());
    let by_options = fixture.by_options(STRICT);
    assert_eq!(ask(&by_options, "secret", "SELECT current_user").await?, "app");
    // What it took is said, stage by stage.
    let noted = fixture.stock.noted.lock().map(|noted| noted.clone()).unwrap_or_default();
    let stages =
        ["connect as the superuser", "ask for the verifier", "the client's proof", "log in"];
    assert_eq!(noted, stages.map(|stage| format!("proxy: {stage}")));
    let by_name = fixture.by_server_name(STRICT);
    assert_eq!(ask(&by_name, "secret", "SELECT current_database()").await?, "app");
    // The certificate is its own root, and names the endpoint.
    let root = fixture.folder.path().join("proxy.crt");
    let checked = format!("{STRICT}&sslmode=verify-full&sslrootcert={}", root.display());
    assert_eq!(ask(&fixture.by_server_name(&checked), "secret", "SELECT 1").await?, "1");
    // What else the options say reaches the backend.
    let more = by_options.replace("endpoint%3Dacme", "endpoint%3Dacme%20-c%20work_mem%3D7MB");
    assert_eq!(ask(&more, "secret", "SHOW work_mem").await?, "7MB");
    let unbound = fixture.by_options("sslmode=require&channel_binding=disable");
    assert_eq!(ask(&unbound, "secret", "SELECT 1").await?, "1");
    assert_eq!(fixture.stock.starts.load(Ordering::SeqCst), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_password_that_postgres_has_now_lets_a_role_in() -> anyhow::Result<()> {
    only_the_password_lets_a_role_in(Fixture::new().await?).await?;
    only_the_password_lets_a_role_in(Fixture::by_socket().await?).await
}

async fn only_the_password_lets_a_role_in(fixture: Fixture) -> anyhow::Result<()> {
    let app = fixture.by_options(STRICT);
    let failed = "password authentication failed for user \"app\"";
    let wrong = complaint(&app, "wrong").await?;
    assert!(wrong.contains(failed), "{wrong}");

    // A role that is not there, one without a password, one whose password is of the old kind.
    fixture.stock.sql("CREATE ROLE bare LOGIN")?;
    fixture.stock.sql("SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD 'secret'")?;
    for role in ["nobody", "bare", "old", "postgres"] {
        let refused = complaint(&app.replace("app@", &format!("{role}@")), "secret").await?;
        assert_eq!(refused, wrong.replace("\"app\"", &format!("\"{role}\"")));
    }

    // A role made by SQL through the proxy, and its password changed.
    fixture.stock.sql("ALTER ROLE app CREATEROLE")?;
    ask(&app, "secret", "CREATE ROLE made LOGIN PASSWORD 'first'").await?;
    let made = app.replace("app@", "made@");
    assert_eq!(ask(&made, "first", "SELECT current_user").await?, "made");
    ask(&app, "secret", "ALTER ROLE made PASSWORD 'second'").await?;
    assert_eq!(ask(&made, "second", "SELECT current_user").await?, "made");
    assert!(complaint(&made, "first").await?.contains("password authentication failed"));
    fixture.stock.sql("ALTER ROLE made VALID UNTIL 'yesterday'")?;
    assert!(complaint(&made, "second").await?.contains("password authentication failed"));

    // What Postgres itself refuses is heard from Postgres.
    fixture.stock.sql("ALTER ROLE app NOLOGIN")?;
    let refused = complaint(&app, "secret").await?;
    assert!(refused.contains("role \"app\" is not permitted to log in"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_hears_why() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let cases = [
        (fixture.by_options("sslmode=disable"), "connection is insecure"),
        (
            fixture.by_options(STRICT).replace("%3Dacme", "%3Dnowhere"),
            "endpoint \"nowhere\" does not exist",
        ),
        (
            fixture.by_options(STRICT).replace("options=endpoint%3Dacme&", ""),
            "connect to NAME.db.test, or add options=endpoint%3DNAME",
        ),
        (
            format!("{}&options=endpoint%3Dother", fixture.by_server_name(STRICT)),
            "the server name says endpoint \"acme\" and the options \"other\"",
        ),
        (
            fixture.by_options(STRICT).replace("%3Dacme", "%3Dacme%20neon_lsn%3A16B3748"),
            "\"16B3748\" is not an LSN: write it like 0/16B3748",
        ),
    ];
    for (connection, expected) in cases {
        let refused = complaint(&connection, "secret").await?;
        assert!(refused.contains(expected), "{connection}: {refused}");
    }
    assert!(!fixture.stock.is_running(), "a client that was refused woke a database");
    let missing = fixture.by_options(STRICT).replace("/app?", "/missing?");
    let refused = complaint(&missing, "secret").await?;
    assert!(refused.contains("database \"missing\" does not exist"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_from_psql_reaches_its_query() -> anyhow::Result<()> {
    a_cancel_reaches_its_query(Fixture::new().await?).await?;
    a_cancel_reaches_its_query(Fixture::by_socket().await?).await
}

async fn a_cancel_reaches_its_query(fixture: Fixture) -> anyhow::Result<()> {
    let connection = fixture.by_options(STRICT);
    let process = psql(&connection, "secret", "SELECT pg_backend_pid(), pg_sleep(1000)").spawn()?;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1000)%' \
                   AND wait_event = 'PgSleep'";
    for attempt in 0.. {
        ensure!(attempt < 2400, "the query does not run");
        if fixture.stock.is_running() && fixture.stock.sql(running).is_ok_and(|count| count == "1")
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = process.id().context("it runs")?;
    Command::new("kill").args(["-INT", &pid.to_string()]).status().await?;
    let output = process.wait_with_output().await?;
    let complaint = String::from_utf8(output.stderr)?;
    assert!(complaint.contains("canceling statement due to user request"), "{complaint}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_of_a_sleeping_database_make_one_start_and_all_get_in()
-> anyhow::Result<()> {
    let fixture = Fixture::by_socket().await?;
    let connection = fixture.by_options(STRICT);
    // Each stays until all are in.
    let statement = "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'go') \
                     LOOP PERFORM pg_sleep(0.5); END LOOP; END $$";
    let clients: Vec<_> = (0..200)
        .map(|_| psql(&connection, "secret", statement).spawn())
        .collect::<Result<_, _>>()?;
    let here = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    for attempt in 0.. {
        let count = fixture.stock.sql(here).unwrap_or_default();
        if count == "200" {
            break;
        }
        ensure!(attempt < 600, "{count} of 200 clients are in");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fixture.stock.sql("CREATE ROLE go")?;
    for (number, client) in clients.into_iter().enumerate() {
        said(client.wait_with_output().await?).with_context(|| format!("client {number}"))?;
    }
    assert_eq!(fixture.stock.starts.load(Ordering::SeqCst), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_backend_ends_is_not_kept() -> anyhow::Result<()> {
    let fixture = Fixture::with(true).await?;
    let config = format!(
        "host=127.0.0.1 port={} user=app password=secret dbname=app options='endpoint=acme'",
        fixture.address().port()
    );
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute("SELECT 1").await?;
    fixture.stock.stop()?;
    // The client says nothing, and hears of the end all the same.
    let ended = tokio::time::timeout(Duration::from_secs(60), connection).await??;
    let reason = ended.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(client.is_closed(), "{reason}");
    // The next one wakes the server again.
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SELECT 1").await?;
    assert_eq!(fixture.stock.starts.load(Ordering::SeqCst), 2);
    fixture.proxy.shutdown().await;
    assert!(client.batch_execute("SELECT 1").await.is_err(), "a session outlived the proxy");
    Ok(())
}
