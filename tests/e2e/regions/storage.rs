//! The storage of one region: three safekeepers and a pageserver on an object store and a key of their
//! own, which can be stopped in the middle, killed, and started again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use access::SigningKey;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use protocol::token::{Scope, Token};

use crate::harness::{Process, compute_ports, copy, free_address, seed};

/// No test takes as long.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// One region's storage.
pub struct Storage {
    pub id: &'static str,
    pub folder: PathBuf,
    pub safekeepers: [SocketAddr; 3],
    pub pages: SocketAddr,
    pub http: SocketAddr,
    compute_ports: String,
    key: SigningKey,
    processes: BTreeMap<String, Process>,
}

impl Storage {
    /// Starts one below this folder, with the default template in its object store.
    pub async fn start(id: &'static str, below: &Path) -> anyhow::Result<Storage> {
        let folder = below.join(id);
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o711))?;
        copy(seed().await?, &folder.join("store"))?;
        let key = SigningKey::make(&folder.join("key"))?;
        let mut storage = Storage {
            id,
            safekeepers: [free_address(), free_address(), free_address()],
            pages: free_address(),
            http: free_address(),
            compute_ports: compute_ports(),
            key,
            processes: BTreeMap::new(),
            folder,
        };
        fs::write(storage.folder.join("token"), storage.token(Scope::Peer).secret())?;
        storage.run()?;
        Ok(storage)
    }

    /// Starts its processes, where they do not run.
    pub fn run(&mut self) -> anyhow::Result<()> {
        for (name, arguments) in self.roles() {
            if !self.processes.contains_key(&name) {
                let log = self.folder.join(format!("{name}.log"));
                let mut process = Process::spawn(&arguments, &log)?;
                process.wait_for_line(" on ")?;
                self.processes.insert(name, process);
            }
        }
        Ok(())
    }

    /// Sends a signal to all its processes at once.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        for process in self.processes.values() {
            killpg(Pid::from_raw(process.pid() as i32), signal)?;
        }
        Ok(())
    }

    /// Kills all of it.
    pub fn kill(&mut self) {
        for process in self.processes.values_mut() {
            process.kill();
        }
        self.processes.clear();
    }

    /// A token that its servers take.
    pub fn token(&self, scope: Scope) -> Token {
        self.key.sign(scope, SystemTime::now(), TOKEN_LIFE)
    }

    /// The addresses that its computes may talk to.
    pub fn servers(&self) -> BTreeSet<SocketAddr> {
        self.safekeepers.into_iter().chain([self.pages]).collect()
    }

    /// The ids of the tenants that its object store has anything of.
    pub fn tenants(&self) -> anyhow::Result<BTreeSet<String>> {
        let entries = fs::read_dir(self.folder.join("store/tenants"))?;
        let name = |entry: std::io::Result<fs::DirEntry>| {
            Ok(entry?.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect()
    }

    /// It, in the file of regions.
    pub fn described(&self) -> String {
        let safekeepers = self.safekeepers.map(|address| format!("\"{address}\"")).join(", ");
        format!(
            "[[region]]\nid = \"{id}\"\nname = \"Region {id}\"\nstore = \"{store}\"\n\
             pageservers = [\"{pages},{http}\"]\nsafekeepers = [{safekeepers}]\n\
             auth-key = \"{id}/key\"\ncompute-ports = \"{ports}\"\n\n",
            id = self.id,
            store = self.store(),
            pages = self.pages,
            http = self.http,
            ports = self.compute_ports,
        )
    }

    fn store(&self) -> String {
        format!("file://{}", self.folder.join("store").display())
    }

    /// The arguments of each of its processes.
    fn roles(&self) -> Vec<(String, Vec<String>)> {
        let mut roles: Vec<(String, Vec<String>)> = (1..=3)
            .map(|number| (format!("safekeeper-{number}"), self.safekeeper(number)))
            .collect();
        let pageserver = [
            ("--http", self.http.to_string()),
            ("--listen", self.pages.to_string()),
            ("--safekeepers", self.safekeepers.map(|address| address.to_string()).join(",")),
            ("--memory", "1G".to_owned()),
        ];
        roles.push(("pageserver".to_owned(), self.arguments("pageserver", &pageserver)));
        roles
    }

    fn safekeeper(&self, number: usize) -> Vec<String> {
        let own = self.safekeepers[number - 1];
        let others = (1..).zip(self.safekeepers).filter(|(_, address)| *address != own);
        let peers: Vec<_> = others.map(|(other, address)| format!("{other}={address}")).collect();
        let folder = self.folder.join(format!("safekeeper-{number}"));
        let options = [
            ("--node", number.to_string()),
            ("--folder", folder.display().to_string()),
            ("--listen", own.to_string()),
            ("--peers", peers.join(",")),
        ];
        self.arguments("safekeeper", &options)
    }

    fn arguments(&self, role: &str, options: &[(&str, String)]) -> Vec<String> {
        let path = |name| self.folder.join(name).display().to_string();
        let common = [
            ("--store", self.store()),
            ("--auth-public-key", path("key.pub")),
            ("--auth-token", path("token")),
        ];
        let options = common.iter().chain(options);
        let options = options.flat_map(|(name, value)| [(*name).to_owned(), value.clone()]);
        std::iter::once(role.to_owned()).chain(options).collect()
    }
}

impl Drop for Storage {
    /// One that was stopped in the middle would not hear that it is to end.
    fn drop(&mut self) {
        self.kill();
    }
}
