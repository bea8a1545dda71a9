//! Five processes, their folder and their ports.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use control_plane::Compute;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use protocol::{TenantTimeline, quorum::Configuration};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use wal_format::Lsn;

use super::{
    Api, Certificates, Database, PATIENCE, Process, Wiretap, eventually, keys,
    ports::{free_address, free_port},
    safekeeper_status::safekeeper_status,
    seed,
};

/// Whose turn it is to use the machine.
static TURN: Mutex<()> = Mutex::const_new(());

/// How many ports a cluster has for computes.
const COMPUTE_PORTS: u16 = 20;

/// One of the five processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// The safekeeper of this number, from 1.
    Safekeeper(usize),
    Pageserver,
    /// A second pageserver on the same object store, called `b`.
    OtherPageserver,
    ControlPlane,
}

/// How the processes are connected.
enum Wires<'c> {
    Straight,
    /// Somebody listens; with certificates, TLS is spoken.
    Overheard(Option<&'c Certificates>),
}

/// What the pageserver takes; half of it is its cache.
const PAGESERVER_MEMORY: &str = "1G";

/// Three safekeepers, a pageserver and a control plane, each a process of its own.
pub struct Cluster {
    pub api: Api,
    pub folder: TempDir,
    pub safekeepers: [SocketAddr; 3],
    /// Where the first safekeeper's status is served over HTTP.
    pub safekeeper_http: SocketAddr,
    pub pageserver: SocketAddr,
    /// Where the second pageserver's page service and HTTP API are.
    pub other_pageserver: Option<(SocketAddr, SocketAddr)>,
    /// Who listens between the processes, by whom is called.
    pub wiretaps: BTreeMap<SocketAddr, Wiretap>,
    compute_ports: String,
    environment: Vec<(&'static str, String)>,
    processes: BTreeMap<Role, Process>,
    _turn: MutexGuard<'static, ()>,
}

/// A folder that the user who runs Postgres can pass through.
pub fn folder() -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("offshoot-").tempdir_in("/tmp")?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
    Ok(folder)
}

/// A range of ports for computes.
pub fn compute_ports() -> String {
    let first = free_port();
    for _ in 1..COMPUTE_PORTS {
        free_port();
    }
    format!("{first}-{}", first + COMPUTE_PORTS - 1)
}

/// Waits for a turn without a cluster, for tests that start `offshoot` by themselves.
pub async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

impl Cluster {
    /// Starts one with the default template in its object store.
    pub async fn start() -> anyhow::Result<Cluster> {
        Cluster::start_with(Vec::new()).await
    }

    /// [`Cluster::start`], with these variables in the processes' environment.
    pub async fn start_with(environment: Vec<(&'static str, String)>) -> anyhow::Result<Cluster> {
        Cluster::start_all(environment, None, Wires::Straight).await
    }

    /// [`Cluster::start`], with somebody who listens on each wire between the processes; with
    /// certificates, they speak TLS.
    pub async fn start_overheard(certificates: Option<&Certificates>) -> anyhow::Result<Cluster> {
        let environment = certificates.map(Certificates::environment).unwrap_or_default();
        Cluster::start_all(environment, None, Wires::Overheard(certificates)).await
    }

    /// [`Cluster::start`], with a second pageserver.
    pub async fn start_with_two_pageservers() -> anyhow::Result<Cluster> {
        let other = (free_address(), free_address());
        Cluster::start_all(Vec::new(), Some(other), Wires::Straight).await
    }

    async fn start_all(
        environment: Vec<(&'static str, String)>,
        other_pageserver: Option<(SocketAddr, SocketAddr)>,
        wires: Wires<'_>,
    ) -> anyhow::Result<Cluster> {
        let turn = turn().await;
        let folder = folder()?;
        seed::copy(seed::seed().await?, &folder.path().join("store"))?;
        keys::write(folder.path())?;
        let trust = match wires {
            Wires::Overheard(Some(certificates)) => certificates.trust()?,
            _ => Default::default(),
        };
        let operator = keys::bearer().trusting(trust);
        let mut cluster = Cluster {
            api: Api::new(free_address(), free_address(), operator),
            folder,
            safekeepers: [free_address(), free_address(), free_address()],
            safekeeper_http: free_address(),
            pageserver: free_address(),
            other_pageserver,
            wiretaps: BTreeMap::new(),
            compute_ports: compute_ports(),
            environment,
            processes: BTreeMap::new(),
            _turn: turn,
        };
        if matches!(wires, Wires::Overheard(_)) {
            let servers = [cluster.pageserver, cluster.api.pageserver, cluster.api.control_plane];
            for server in servers.into_iter().chain(cluster.safekeepers) {
                cluster.wiretaps.insert(server, Wiretap::start(server).await?);
            }
        }
        for role in cluster.roles() {
            cluster.start_role(role)?;
        }
        Ok(cluster)
    }

    fn roles(&self) -> Vec<Role> {
        let mut roles = [1, 2, 3].map(Role::Safekeeper).to_vec();
        roles.push(Role::Pageserver);
        roles.extend(self.other_pageserver.map(|_| Role::OtherPageserver));
        roles.push(Role::ControlPlane);
        roles
    }

    /// Starts a role, and waits until it listens.
    pub fn start_role(&mut self, role: Role) -> anyhow::Result<()> {
        let log = self.path(&format!("{role:?}.log").replace(['(', ')'], "-"));
        let mut process =
            Process::spawn_with(&self.arguments(role), self.environment.clone(), &log)?;
        process.wait_for_line(" on ").with_context(|| format!("{role:?}"))?;
        self.processes.insert(role, process);
        Ok(())
    }

    /// A role's process.
    pub fn process(&mut self, role: Role) -> anyhow::Result<&mut Process> {
        self.processes.get_mut(&role).with_context(|| format!("{role:?} does not run"))
    }

    /// Asks a role to stop.
    pub fn stop_role(&mut self, role: Role) -> anyhow::Result<()> {
        let mut process =
            self.processes.remove(&role).with_context(|| format!("{role:?} does not run"))?;
        let status = process.stop()?;
        ensure!(status.success(), "{role:?} ended with {status}:\n{}", process.log());
        Ok(())
    }

    /// Kills a role at once.
    pub fn kill_role(&mut self, role: Role) {
        if let Some(mut process) = self.processes.remove(&role) {
            process.kill();
        }
    }

    /// Throws a safekeeper's disk away.
    pub fn wipe_safekeeper(&self, number: usize) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(self.path(&format!("safekeeper-{number}")))?)
    }

    /// Kills a compute and all that belongs to it with -9, and waits until its folder is gone.
    pub async fn kill_compute(&self, compute: &Compute) -> anyhow::Result<()> {
        let pid = compute.pid.context("the compute does not run")?;
        killpg(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
        let folder = self.compute_folder(compute);
        eventually("the killed compute's folder is removed", PATIENCE, async || {
            ensure!(!folder.exists(), "{} is still there", folder.display());
            Ok(())
        })
        .await
    }

    /// A compute's disposable folder.
    pub fn compute_folder(&self, compute: &Compute) -> PathBuf {
        let id = compute.timeline_id.to_string();
        self.path("computes").join(&id[..16])
    }

    /// Who runs a compute's Postgres.
    pub fn compute_user(&self, compute: &Compute) -> anyhow::Result<u32> {
        Ok(fs::metadata(self.compute_folder(compute).join("data"))?.uid())
    }

    /// A tenant with a running compute, and a connection to it.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<(Compute, Database)> {
        self.api.create_tenant(name).await?;
        self.connect(name, "main").await
    }

    /// Starts a branch's compute where it does not run, and connects.
    pub async fn connect(&self, tenant: &str, branch: &str) -> anyhow::Result<(Compute, Database)> {
        let compute = self.api.start(tenant, branch).await?;
        let database = Database::connect(compute.port).await?;
        Ok((compute, database))
    }

    /// How far a safekeeper has flushed the WAL of a tenant's branch main, and whether its disk is
    /// a member of the quorum.
    pub async fn flushed(&self, number: usize, tenant: &str) -> anyhow::Result<(Lsn, bool)> {
        let compute = self.api.compute(tenant, "main").await?;
        let timeline = TenantTimeline { tenant: compute.tenant_id, timeline: compute.timeline_id };
        let status =
            safekeeper_status(self.safekeepers[number - 1], timeline, keys::token()).await?;
        let admitted =
            |configuration: Configuration| configuration.admits(status.node, status.identity);
        Ok((status.flush_lsn, status.configuration.is_some_and(admitted)))
    }

    /// A path in the cluster's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The object store's URL.
    pub fn store(&self) -> String {
        format!("file://{}", self.path("store").display())
    }

    /// The safekeepers, as an option's value.
    pub fn safekeeper_list(&self) -> String {
        self.safekeepers.map(|address| self.called(address).to_string()).join(",")
    }

    /// By which address others call the server that listens there.
    pub fn called(&self, server: SocketAddr) -> SocketAddr {
        self.wiretaps.get(&server).map_or(server, |wiretap| wiretap.address)
    }

    fn arguments(&self, role: Role) -> Vec<String> {
        let (name, options) = match role {
            Role::Safekeeper(number) => ("safekeeper", self.safekeeper_options(number)),
            Role::Pageserver => {
                ("pageserver", self.pageserver_options("a", self.pageserver, self.api.pageserver))
            }
            Role::OtherPageserver => {
                let (pages, http) =
                    self.other_pageserver.unwrap_or((self.pageserver, self.api.pageserver));
                ("pageserver", self.pageserver_options("b", pages, http))
            }
            Role::ControlPlane => (
                "control-plane",
                vec![
                    ("--folder", self.path("computes").display().to_string()),
                    ("--http", self.api.control_plane.to_string()),
                    ("--pageserver-http", self.called(self.api.pageserver).to_string()),
                    ("--pageserver", self.called(self.pageserver).to_string()),
                    ("--safekeepers", self.safekeeper_list()),
                    ("--compute-ports", self.compute_ports.clone()),
                    ("--auth-key", self.path("key").display().to_string()),
                ],
            ),
        };
        let mut arguments = vec![name.to_owned()];
        if role != Role::ControlPlane {
            let door = self.door_options();
            arguments.extend(door.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        }
        if let (Role::ControlPlane, Some((pages, http))) = (role, self.other_pageserver) {
            arguments.extend(["--other-pageserver".to_owned(), format!("{pages},{http}")]);
        }
        arguments.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        arguments
    }

    /// What servers let in, and show.
    fn door_options(&self) -> [(&'static str, String); 2] {
        let path = |name| self.path(name).display().to_string();
        [("--auth-public-key", path("key.pub")), ("--auth-token", path("peer-token"))]
    }

    fn pageserver_options(
        &self,
        name: &str,
        pages: SocketAddr,
        http: SocketAddr,
    ) -> Vec<(&'static str, String)> {
        vec![
            ("--name", name.to_owned()),
            ("--store", self.store()),
            ("--http", http.to_string()),
            ("--listen", pages.to_string()),
            ("--safekeepers", self.safekeeper_list()),
            // The same on every machine: what a bench reads must not fit by chance.
            ("--memory", PAGESERVER_MEMORY.to_owned()),
        ]
    }

    fn safekeeper_options(&self, number: usize) -> Vec<(&'static str, String)> {
        let peers: Vec<String> = (1..)
            .zip(self.safekeepers)
            .filter(|(other, _)| *other != number)
            .map(|(other, address)| format!("{other}={}", self.called(address)))
            .collect();
        let folder = self.path(&format!("safekeeper-{number}"));
        let http = (number == 1).then(|| ("--http", self.safekeeper_http.to_string()));
        let options = vec![
            ("--node", number.to_string()),
            ("--folder", folder.display().to_string()),
            ("--listen", self.safekeepers[number - 1].to_string()),
            ("--peers", peers.join(",")),
            ("--store", self.store()),
        ];
        options.into_iter().chain(http).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say_logs(self.folder.path());
        }
        // Computes end with the control plane, and want the others until then.
        while let Some((role, process)) = self.processes.pop_last() {
            drop(process);
            if role == Role::ControlPlane {
                unmount_below(self.folder.path());
            }
        }
    }
}

/// The ends of all logs, for whoever reads why a test failed.
fn say_logs(folder: &Path) {
    let computes = folder.join("computes");
    let folders = [folder, &computes].map(fs::read_dir);
    for entry in folders.into_iter().flatten().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let log = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- the end of {}:\n{}", path.display(), last.join("\n"));
        }
    }
}

/// After a control plane that was killed there may be mounts.
fn unmount_below(folder: &Path) {
    for mountpoint in mounts_below(folder) {
        let _gone = nix::mount::umount2(&mountpoint, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What is mounted below a folder, the innermost first.
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mountpoints = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> =
        mountpoints.filter(|mountpoint| mountpoint.starts_with(folder)).collect();
    below.reverse();
    below
}
