//! A stock Postgres that sleeps until the proxy wakes it, and asks for SCRAM over TCP.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use async_trait::async_trait;
use control_plane::{
    Awake, Directory, EndpointRef, Error, PgAuthid, Proxy, ProxyConfig, Way,
    catalog::timelines::Moment,
};

/// The one endpoint that there is.
pub const NAME: &str = "acme";
/// The domain of the proxy under test.
pub const DOMAIN: &str = "db.test";

const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// Where Debian has the server's programs.
pub fn program(name: &str) -> PathBuf {
    let debian = Path::new("/usr/lib/postgresql/15/bin").join(name);
    if debian.exists() { debian } else { name.into() }
}

/// The server, its folder, and how often it was started.
pub struct Stock {
    folder: tempfile::TempDir,
    address: SocketAddr,
    turn: tokio::sync::Mutex<()>,
    pub starts: AtomicUsize,
    /// The stages that the proxy noted.
    pub noted: Mutex<Vec<String>>,
}

impl Stock {
    /// A data directory with a role `app` whose password is `secret`; the server sleeps.
    pub fn asleep() -> anyhow::Result<Arc<Stock>> {
        let folder = tempfile::Builder::new().prefix("proxy-").tempdir_in("/tmp")?;
        let status = Command::new("chown").arg("postgres").arg(folder.path()).status()?;
        ensure!(status.success(), "chown: {status}");
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let turn = tokio::sync::Mutex::default();
        let stock =
            Stock { folder, address, turn, starts: AtomicUsize::new(0), noted: Mutex::default() };
        stock.run("initdb", &["-U", "postgres", "--no-sync", "-A", "trust"])?;
        fs::write(stock.data().join("pg_hba.conf"), HBA)?;
        stock.start()?;
        stock.sql("CREATE ROLE app LOGIN CREATEDB PASSWORD 'secret'")?;
        stock.sql("CREATE DATABASE app OWNER app")?;
        stock.stop()?;
        stock.starts.store(0, Ordering::SeqCst);
        Ok(Arc::new(stock))
    }

    /// Runs a statement as the superuser; the one value that it returns.
    pub fn sql(&self, statement: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(program("psql"));
        psql.args(["-XqAt", "-U", "postgres", "-d", "postgres", "-c", statement]);
        psql.arg("-h").arg(self.folder.path()).args(["-p", &self.address.port().to_string()]);
        let output = psql.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    pub fn start(&self) -> anyhow::Result<()> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} \
             -c max_connections=300 -c fsync=off",
            self.address.port(),
            self.folder.path().display()
        );
        let log = self.data().join("log").display().to_string();
        self.run("pg_ctl", &["-s", "-w", "-l", &log, "-o", &options, "start"])
    }

    pub fn stop(&self) -> anyhow::Result<()> {
        self.run("pg_ctl", &["-s", "-w", "-m", "fast", "stop"])
    }

    pub fn is_running(&self) -> bool {
        self.data().join("postmaster.pid").exists()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program(name));
        command.arg("-D").arg(self.data()).args(arguments);
        let status = command.current_dir(self.folder.path()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        if self.is_running()
            && let Err(error) = self.stop()
        {
            eprintln!("Postgres did not stop: {error:#}");
        }
    }
}

/// The directory of one endpoint, and the way that sessions take to it.
struct OnlyOne(Arc<Stock>, Way);

#[async_trait]
impl Directory for OnlyOne {
    async fn find(&self, name: &str) -> Result<Option<EndpointRef>, Arc<Error>> {
        let named = EndpointRef { tenant: name.to_owned(), branch: "main".to_owned() };
        Ok((name == NAME).then_some(named))
    }

    async fn at(&self, _: &EndpointRef, _: &Moment) -> Result<EndpointRef, Arc<Error>> {
        Err(Arc::new(Error::Invalid("a stock server keeps no history".to_owned())))
    }

    fn note(&self, _: &EndpointRef, stage: &str, _: Duration) {
        self.0.noted.lock().expect("nobody panics").push(stage.to_owned());
    }

    fn superuser(&self, _: &EndpointRef) -> Option<tokio_postgres::Client> {
        None
    }

    async fn wake(&self, _: &EndpointRef) -> Result<Awake, Arc<Error>> {
        let _turn = self.0.turn.lock().await;
        if !self.0.is_running() {
            let stock = self.0.clone();
            let started = tokio::task::spawn_blocking(move || stock.start()).await;
            let failed = |reason: String| Arc::new(Error::Conflict(reason));
            started
                .map_err(|error| failed(error.to_string()))?
                .map_err(|error| failed(error.to_string()))?;
        }
        let sockets = self.0.folder.path().to_owned();
        let (port, sent) = (self.0.address.port(), Default::default());
        Ok(Awake { way: self.1.clone(), sockets, port, sent, stay: Box::new(()) })
    }
}

/// A proxy before a server that sleeps.
pub struct Fixture {
    pub stock: Arc<Stock>,
    pub proxy: Proxy,
    pub folder: tempfile::TempDir,
}

impl Fixture {
    pub async fn new() -> anyhow::Result<Fixture> {
        Fixture::with(false).await
    }

    /// Sessions reach the server by its address, where it asks for SCRAM.
    pub async fn with(plain_allowed: bool) -> anyhow::Result<Fixture> {
        let stock = Stock::asleep()?;
        let way = Way::Address(stock.address);
        Fixture::before(stock, way, plain_allowed).await
    }

    /// Sessions reach the server by its Unix socket, which trusts the proxy.
    pub async fn by_socket() -> anyhow::Result<Fixture> {
        let stock = Stock::asleep()?;
        let way = Way::socket(stock.folder.path(), stock.address.port());
        Fixture::before(stock, way, false).await
    }

    async fn before(stock: Arc<Stock>, way: Way, plain_allowed: bool) -> anyhow::Result<Fixture> {
        let folder = tempfile::tempdir()?;
        let config = ProxyConfig {
            listen: "127.0.0.1:0".parse()?,
            domain: DOMAIN.to_owned(),
            certificate: None,
            folder: folder.path().to_owned(),
            plain_allowed,
        };
        let directory = Arc::new(OnlyOne(stock.clone(), way));
        let roles = Arc::new(PgAuthid::new(directory.clone()));
        let proxy = Proxy::start(config, directory, roles).await?;
        Ok(Fixture { stock, proxy, folder })
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy.local_addr()
    }

    /// A connection string for role and database `app` with these further parameters; the endpoint
    /// is named by the options.
    pub fn by_options(&self, more: &str) -> String {
        let port = self.address().port();
        format!("postgresql://app@127.0.0.1:{port}/app?options=endpoint%3D{NAME}&{more}")
    }

    /// The same, with the endpoint named by TLS.
    pub fn by_server_name(&self, more: &str) -> String {
        let port = self.address().port();
        format!("postgresql://app@{NAME}.{DOMAIN}:{port}/app?hostaddr=127.0.0.1&{more}")
    }
}
