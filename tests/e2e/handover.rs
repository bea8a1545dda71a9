//! A client talks to its backend itself: the proxy gives its socket away, and all that a session can do it
//! does as before.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_postgres::{Client, Config, NoTls, config::SslMode, error::SqlState};

use crate::{
    harness::{Database, PATIENCE, eventually, folder, program, turn},
    proxy::Up,
};

mod by_the_socket;
mod tls;

/// `offshoot up` whose proxy serves clients without TLS.
fn up() -> anyhow::Result<Up> {
    let folder = folder()?;
    let data = folder.path().join("data");
    Up::start_in(folder, &data, &["--allow-plain"])
}

fn config() -> Config {
    let mut config = Config::new();
    config.user("app").password("secret").dbname("app").options("endpoint=acme");
    config.ssl_mode(SslMode::Disable);
    config
}

/// A session through whatever listens there, and the address that it comes from.
async fn session(at: SocketAddr) -> anyhow::Result<(Client, SocketAddr)> {
    let socket = TcpStream::connect(at).await?;
    let from = socket.local_addr()?;
    let (client, connection) = config().connect_raw(socket, NoTls).await?;
    tokio::spawn(connection);
    Ok((client, from))
}

/// How many clients' sockets were given to their backends.
async fn given(up: &Up) -> anyhow::Result<u64> {
    let name = "offshoot_control_plane_proxy_handed_over_total ";
    let metrics = up.api.metrics(up.api.control_plane).await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("the metric")?.parse()?)
}

async fn one(client: &Client, query: &str) -> anyhow::Result<String> {
    Ok(client.query_one(query, &[]).await?.get(0))
}

/// A session does what sessions do.
async fn serves(client: &Client) -> anyhow::Result<()> {
    // Large results, and COPY both ways.
    let rows = client.query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)", &[]).await?;
    ensure!(rows.len() == 20_000);
    client.batch_execute("CREATE TEMP TABLE IF NOT EXISTS t (x text); TRUNCATE t").await?;
    let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await?;
    let mut sink = std::pin::pin!(sink);
    for _ in 0..200 {
        sink.send(Bytes::from("0123456789\n".repeat(1000))).await?;
    }
    ensure!(sink.finish().await? == 200_000);
    let copied = client.copy_out("COPY t TO STDOUT").await?;
    let copied: Vec<Bytes> = copied.try_collect().await?;
    ensure!(copied.iter().map(Bytes::len).sum::<usize>() == 11 * 200_000);

    // Many queries at once, before the first answer.
    let queries =
        (0..100).map(|number| async move { one(client, &format!("SELECT '{number}'")).await });
    let answers = futures::future::try_join_all(queries).await?;
    ensure!(answers.iter().enumerate().all(|(number, answer)| *answer == number.to_string()));
    Ok(())
}

/// A session at work is told that its backend is ended.
async fn hears_its_end(client: &Client, backend: &str, database: &Database) -> anyhow::Result<()> {
    let working = client.batch_execute("SELECT pg_sleep(600)");
    let ended = async {
        eventually("it sleeps", PATIENCE, async || {
            let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            ensure!(database.one::<i64>(query).await? == 1);
            Ok(())
        })
        .await?;
        database.run(&format!("SELECT pg_terminate_backend({backend})")).await
    };
    let (worked, ended) = tokio::join!(working, ended);
    ended?;
    let error = worked.err().context("it was not ended")?;
    ensure!(error.code() == Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
    Ok(())
}

/// Whether a process has the connection that comes from this address, as the kernel numbers sockets.
fn has_socket(process: &str, from: SocketAddr) -> anyhow::Result<bool> {
    let remote = format!(":{:04X}", from.port());
    let connections = std::fs::read_to_string("/proc/net/tcp")?;
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows = connections.lines().map(fields);
    // Connections that ended lately may have had the same port.
    let its = rows.filter(|row| row.get(2).is_some_and(|address| address.ends_with(&remote)));
    let sockets: Vec<_> = its.map(|row| format!("socket:[{}]", row[9])).collect();
    ensure!(!sockets.is_empty(), "the connection from {from} is not there");
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let link = std::fs::read_link(entry?.path());
        if link.is_ok_and(|link| sockets.iter().any(|socket| link.as_os_str() == &**socket)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// No session of a client is left in the database.
async fn nobody_is_left(database: &Database) -> anyhow::Result<()> {
    eventually("no client's backend is left", PATIENCE, async || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        let left: i64 = database.one(query).await?;
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_was_given_its_clients_socket_serves_all_that_a_session_asks()
-> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = up()?;
    up.tenant("acme").await?;
    let (client, from) = session(up.proxy).await?;
    let backend = one(&client, "SELECT pg_backend_pid()::text").await?;
    ensure!(has_socket(&backend, from)?, "the backend talks to somebody else");
    ensure!(given(&up).await? == 1);

    serves(&client).await?;

    // A cancel request goes by the proxy; the session stays.
    let sleeping = client.batch_execute("SELECT pg_sleep(600)");
    let cancelled = async {
        let is_asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let (other, _) = session(up.proxy).await?;
        eventually("it sleeps", PATIENCE, async || {
            ensure!(other.query_one(is_asleep, &[]).await?.get::<_, i64>(0) == 1);
            Ok(())
        })
        .await?;
        let socket = TcpStream::connect(up.proxy).await?;
        anyhow::Ok(client.cancel_token().cancel_query_raw(socket, NoTls).await?)
    };
    let (slept, cancelled) = tokio::join!(sleeping, cancelled);
    cancelled?;
    let error = slept.err().context("it was not cancelled")?;
    ensure!(error.code() == Some(&SqlState::QUERY_CANCELED), "{error}");

    // A backend that is ended says so, and its client's connection ends.
    let port = up.api.compute("acme", "main").await?.port;
    let database = Database::connect(port).await?;
    hears_its_end(&client, &backend, &database).await?;
    eventually("the connection is closed", PATIENCE, async || {
        ensure!(client.is_closed());
        Ok(())
    })
    .await?;
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_socket_was_given_away_keeps_its_compute_awake_until_it_goes()
-> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = up()?;
    up.tenant("acme").await?;
    let (client, _) = session(up.proxy).await?;
    one(&client, "SELECT ''").await?;
    up.stays("acme", "a client").await?;
    drop(client);
    up.is_suspended("acme").await?;

    // One that breaks off in the middle of an answer is gone, too.
    let socket = TcpStream::connect(up.proxy).await?;
    let (client, connection) = config().connect_raw(socket, NoTls).await?;
    let connection = tokio::spawn(connection);
    let query = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)";
    let rows = client.query_raw(query, [""; 0]).await?;
    let mut rows = std::pin::pin!(rows);
    rows.try_next().await?.context("a row")?;
    connection.abort();
    up.is_suspended("acme").await?;

    // One is told that its compute is stopped, and that the proxy ends.
    for by_the_proxy in [false, true] {
        let (client, _) = session(up.proxy).await?;
        let sleeping =
            tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
        let port = up.api.compute("acme", "main").await?.port;
        let database = Database::connect(port).await?;
        eventually("it sleeps", PATIENCE, async || {
            let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            ensure!(database.one::<i64>(query).await? == 1);
            Ok(())
        })
        .await?;
        drop(database);
        match by_the_proxy {
            true => ensure!(up.process.stop()?.success(), "{}", up.process.log()),
            false => drop(up.api.stop("acme", "main").await?),
        }
        let error = sleeping.await?.err().context("it was not ended")?;
        ensure!(error.code() == Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
    }
    Ok(())
}

/// Between client and proxy: once the client has given its proof, it sends a query before it is let in,
/// and says that it will send nothing more. What came back is kept.
async fn hasty(to: SocketAddr, query: &str) -> anyhow::Result<(SocketAddr, Arc<Mutex<Vec<u8>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = heard.clone();
    let length = (query.len() + 5) as u32;
    let query = [b"Q".as_slice(), &length.to_be_bytes(), query.as_bytes(), b"\0"].concat();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_proxy, mut to_proxy) = TcpStream::connect(to).await?.into_split();
        tokio::spawn(async move {
            let mut proofs = 0;
            let mut buffer = vec![0; 4096];
            while proofs < 2 {
                let count = from_client.read(&mut buffer).await?;
                proofs += u32::from(buffer[0] == b'p');
                let rest = if proofs == 2 { query.as_slice() } else { &[] };
                to_proxy.write_all(&[&buffer[..count], rest].concat()).await?;
            }
            to_proxy.shutdown().await
        });
        let mut buffer = vec![0; 65536];
        while let count @ 1.. = from_proxy.read(&mut buffer).await? {
            kept.lock().extend_from_slice(&buffer[..count]);
            // The client does not understand answers to what it did not ask.
            let _understood = to_client.write_all(&buffer[..count]).await;
        }
        // The end, which no message begins with.
        kept.lock().push(0);
        std::io::Result::Ok(())
    });
    Ok((at, heard))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_comes_before_its_client_is_let_in_is_answered_to_the_end()
-> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = up()?;
    up.tenant("acme").await?;
    for _ in 0..10 {
        let query = "SELECT repeat('y', 1000) FROM generate_series(1, 5000)";
        let (at, heard) = hasty(up.proxy, query).await?;
        // The session fails for the client that sees an answer too many.
        let _confused = session(at).await;
        eventually("all is answered", PATIENCE, async || {
            let heard = heard.lock();
            ensure!(heard.last() == Some(&0), "{} bytes and no end", heard.len());
            let letters = heard.iter().filter(|byte| **byte == b'y').count();
            ensure!(letters >= 5_000_000, "the answer is cut off after {letters} letters");
            Ok(())
        })
        .await?;
    }
    ensure!(given(&up).await? == 10);
    let port = up.api.compute("acme", "main").await?.port;
    nobody_is_left(&Database::connect(port).await?).await?;
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_has_no_failure_while_its_clients_come_and_go() -> anyhow::Result<()> {
    let _turn = turn().await;
    let mut up = up()?;
    up.tenant("acme").await?;
    let compute = up.api.start("acme", "main").await?;
    crate::harness::pgbench_init(compute.port, 1)?;
    let database = Database::connect(compute.port).await?;
    database.run("GRANT ALL ON ALL TABLES IN SCHEMA public TO app").await?;
    let url =
        format!("postgresql://app:secret@{}/app?options=endpoint%3Dacme&sslmode=disable", up.proxy);
    // Each transaction connects anew.
    for more in [["-t", "50"].as_slice(), &["-C", "-t", "10"]] {
        let mut pgbench = program("pgbench");
        let output = pgbench.args(["-n", "-c", "8"]).args(more).arg(&url).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains("number of failed transactions: 0"), "{said}");
    }
    ensure!(given(&up).await? >= 8 + 80);
    nobody_is_left(&database).await?;
    drop(database);
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_executed_the_proxy_passes_bytes_on() -> anyhow::Result<()> {
    let _turn = turn().await;
    let folder = folder()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let mounted = NoExec::mount(&data)?;
    let mut up = Up::start_in(folder, &data, &["--allow-plain"])?;
    up.tenant("acme").await?;
    let (client, from) = session(up.proxy).await?;
    let backend = one(&client, "SELECT pg_backend_pid()::text").await?;
    ensure!(!has_socket(&backend, from)?, "it was given the socket");
    ensure!(given(&up).await? == 0);
    ensure!(client.query("SELECT generate_series(1, 1000)", &[]).await?.len() == 1000);
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    drop(mounted);
    Ok(())
}

/// A file system in memory from which nothing is executed; gone with this value.
struct NoExec(std::path::PathBuf);

impl NoExec {
    fn mount(at: &Path) -> anyhow::Result<NoExec> {
        use nix::mount::MsFlags;
        let none: Option<&str> = None;
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOEXEC, none)?;
        // The user who runs Postgres has to come through.
        std::fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(NoExec(at.to_owned()))
    }
}

impl Drop for NoExec {
    fn drop(&mut self) {
        let detached = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        if let Err(error) = detached {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}
