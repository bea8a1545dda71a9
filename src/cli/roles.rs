//! The roles, each a process that runs until it is told to stop.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Args;
use control_plane::{PageserverAt, PortRange, RegionId, Users};
use protocol::{NodeId, TenantId, TenantTimeline, TimelineId};
use wal_format::Lsn;

use super::{
    CONTROL_PLANE_DEFAULT, CertificateArgs, ComputeTokenArgs, DoorArgs, LimitsArgs, SignerArgs,
    proxy::ProxyArgs,
};

const PAGESERVER_HTTP_DEFAULT: &str = "127.0.0.1:6401";
const PAGESERVER_DEFAULT: &str = "127.0.0.1:6402";
const SAFEKEEPERS_DEFAULT: &str = "127.0.0.1:6411,127.0.0.1:6412,127.0.0.1:6413";
const COMPUTE_PORTS_DEFAULT: &str = "6500-7499";
const COMPUTE_USERS_DEFAULT: &str = "1879000000";

/// What a file of regions says itself.
const OF_ONE_REGION: [&str; 10] = [
    "pageserver_http",
    "pageserver",
    "other_pageserver",
    "safekeepers",
    "compute_host",
    "compute_ports",
    "compute_users",
    "auth_key",
    "auth_public_key",
    "region",
];

/// Where stock Postgres is, and who runs it.
#[derive(Args, Clone)]
pub struct PostgresArgs {
    /// The folder with Postgres' programs, where they are neither on PATH nor in Debian's places.
    #[arg(long, value_name = "DIR", env = "OFFSHOOT_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// The unprivileged user that runs Postgres: a name, or a number that needs no account.
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    pub user: String,
}

/// What the management API says of projects.
#[derive(Args, Clone)]
pub struct ManagementArgs {
    /// The id of the region that all projects are in.
    #[arg(long, value_name = "ID", env = "OFFSHOOT_REGION", default_value = "local")]
    pub region: RegionId,
}

/// Where computes run, and as whom.
#[derive(Args, Clone)]
pub struct ComputesArgs {
    /// The address that computes listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub compute_host: IpAddr,
    /// The ports that computes get.
    #[arg(long, value_name = "FIRST-LAST", default_value = COMPUTE_PORTS_DEFAULT)]
    pub compute_ports: PortRange,
    /// Each compute runs Postgres as a user of its own, this number plus its port, and can read no
    /// other's files; such a user needs no account. With none, all run as --user.
    #[arg(
        long,
        value_name = "FIRST|none",
        env = "OFFSHOOT_COMPUTE_USERS",
        default_value = COMPUTE_USERS_DEFAULT
    )]
    pub compute_users: Users,
}

/// Run everything in one process.
#[derive(Args)]
#[command(after_help = "\
Examples:
  offshoot up
  offshoot up --data /srv/offshoot
  offshoot up --store s3://bucket/prefix     with AWS_ACCESS_KEY_ID, AWS_ENDPOINT and so on
  offshoot up --proxy 127.0.0.1:6432         computes sleep, and wake for whoever connects

The first start makes the default template: a stock initdb with a role and a database named app.
Ctrl-C or SIGTERM stops every compute cleanly and leaves nothing mounted.")]
pub struct UpArgs {
    /// The folder that holds everything; the user that runs Postgres must be able to reach it.
    #[arg(long, value_name = "DIR", env = "OFFSHOOT_DATA", default_value = "/var/lib/offshoot")]
    pub data: PathBuf,
    /// The object store: s3://bucket/prefix or file:///folder; a folder below --data if not said.
    #[arg(long, value_name = "URL", env = "OFFSHOOT_STORE")]
    pub store: Option<String>,
    /// Where the control plane's HTTP API listens.
    #[arg(long, value_name = "HOST:PORT", default_value = CONTROL_PLANE_DEFAULT)]
    pub http: SocketAddr,
    /// Where the pageserver's HTTP API listens.
    #[arg(long, value_name = "HOST:PORT", default_value = PAGESERVER_HTTP_DEFAULT)]
    pub pageserver_http: SocketAddr,
    /// Where the page service listens.
    #[arg(long, value_name = "HOST:PORT", default_value = PAGESERVER_DEFAULT)]
    pub pageserver: SocketAddr,
    /// Where the three safekeepers listen.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = SAFEKEEPERS_DEFAULT)]
    pub safekeepers: Vec<SocketAddr>,
    /// Its computes.
    #[command(flatten)]
    pub computes: ComputesArgs,
    /// The management API.
    #[command(flatten)]
    pub management: ManagementArgs,
    /// The proxy.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// Let everybody in who reaches the ports: no process asks another for a token. On loopback only.
    #[arg(long)]
    pub no_auth: bool,
    /// The computes' tokens.
    #[command(flatten)]
    pub tokens: ComputeTokenArgs,
    /// What it proves itself with.
    #[command(flatten)]
    pub certificate: CertificateArgs,
    /// The pageserver's bounds; what it takes of the disk is in a folder below --data.
    #[command(flatten)]
    pub limits: LimitsArgs,
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
}

/// Run one safekeeper.
#[derive(Args)]
#[command(after_help = "\
Example, the first of three:
  offshoot safekeeper --node 1 --folder /srv/sk --listen 10.0.0.1:6411 \\
      --peers 2=10.0.0.2:6411,3=10.0.0.3:6411 --store s3://bucket/prefix \\
      --auth-public-key /srv/key.pub --auth-token /srv/peer-token")]
pub struct SafekeeperArgs {
    /// Its number.
    #[arg(long, value_parser = node_id)]
    pub node: NodeId,
    /// Its folder: the journal, and the identity of the disk.
    #[arg(long, value_name = "DIR")]
    pub folder: PathBuf,
    /// Where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: SocketAddr,
    /// The other safekeepers.
    #[arg(long, value_name = "NODE=HOST:PORT,…", value_delimiter = ',', value_parser = peer)]
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// The object store: s3://bucket/prefix or file:///folder.
    #[arg(long, value_name = "URL", env = "OFFSHOOT_STORE")]
    pub store: String,
    /// Where its HTTP status listens; nowhere if not said.
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<SocketAddr>,
    /// Whom it lets in.
    #[command(flatten)]
    pub door: DoorArgs,
    /// What it proves itself with.
    #[command(flatten)]
    pub certificate: CertificateArgs,
}

/// Run the pageserver.
#[derive(Args)]
pub struct PageserverArgs {
    /// The object store: s3://bucket/prefix or file:///folder.
    #[arg(long, value_name = "URL", env = "OFFSHOOT_STORE")]
    pub store: String,
    /// Its name, by which tenants are moved to it: another for each pageserver of an object store,
    /// and the same after a restart.
    #[arg(long, default_value = pageserver::NAME_DEFAULT)]
    pub name: String,
    /// Where its HTTP API listens.
    #[arg(long, value_name = "HOST:PORT", default_value = PAGESERVER_HTTP_DEFAULT)]
    pub http: SocketAddr,
    /// Where the page service listens.
    #[arg(long, value_name = "HOST:PORT", default_value = PAGESERVER_DEFAULT)]
    pub listen: SocketAddr,
    /// All safekeepers.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = SAFEKEEPERS_DEFAULT)]
    pub safekeepers: Vec<SocketAddr>,
    /// Its bounds.
    #[command(flatten)]
    pub limits: LimitsArgs,
    /// The folder for --disk; what is in it may be lost at any time.
    #[arg(long, value_name = "DIR")]
    pub cache_folder: Option<PathBuf>,
    /// Whom it lets in.
    #[command(flatten)]
    pub door: DoorArgs,
    /// What it proves itself with.
    #[command(flatten)]
    pub certificate: CertificateArgs,
}

/// Run the control plane.
#[derive(Args)]
#[command(after_help = "\
Examples:
  offshoot control-plane --folder /srv/computes --auth-key /srv/key
  offshoot control-plane --folder /srv/computes --regions /srv/regions.toml

A file of regions is TOML:
  default = \"eu\"

  [[region]]
  id = \"eu\"
  name = \"Europe\"                                   its id where it is absent
  store = \"s3://offshoot-eu/prod\"                   a bucket or prefix of its own
  pageservers = [\"10.0.1.2:6402,10.0.1.2:6401\"]     page service and HTTP API of each
  safekeepers = [\"10.0.1.3:6411\", \"10.0.1.4:6411\", \"10.0.1.5:6411\"]
  auth-key = \"eu.key\"                               `offshoot auth key eu.key`
  compute-ports = \"6500-6999\"

  [[region]]
  id = \"us\"
  …

A project stays in its region. One that is asked for without a region is in the default one.")]
pub struct ControlPlaneArgs {
    /// The folder for the computes' disposable folders and their logs.
    #[arg(long, value_name = "DIR")]
    pub folder: PathBuf,
    /// Where its HTTP API listens.
    #[arg(long, value_name = "HOST:PORT", default_value = CONTROL_PLANE_DEFAULT)]
    pub http: SocketAddr,
    /// The file that lists regions: of each the id, the object store, the servers, the key, and where
    /// computes run. There is one region if not said, which the options below describe.
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_ONE_REGION)]
    pub regions: Option<PathBuf>,
    /// The pageserver's HTTP API.
    #[arg(long, value_name = "HOST:PORT", default_value = PAGESERVER_HTTP_DEFAULT)]
    pub pageserver_http: SocketAddr,
    /// The page service.
    #[arg(long, value_name = "HOST:PORT", default_value = PAGESERVER_DEFAULT)]
    pub pageserver: SocketAddr,
    /// A further pageserver on the same object store: its page service and its HTTP API; may be said
    /// more than once.
    #[arg(long, value_name = "HOST:PORT,HOST:PORT", value_parser = pageserver_at)]
    pub other_pageserver: Vec<PageserverAt>,
    /// All safekeepers.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = SAFEKEEPERS_DEFAULT)]
    pub safekeepers: Vec<SocketAddr>,
    /// Its computes.
    #[command(flatten)]
    pub computes: ComputesArgs,
    /// The proxy.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// The folder for the catalog and the first API key; `catalog` in --folder if not said.
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
    /// Whom it lets in.
    #[command(flatten)]
    pub signer: SignerArgs,
    /// What it proves itself with.
    #[command(flatten)]
    pub certificate: CertificateArgs,
    /// The management API.
    #[command(flatten)]
    pub management: ManagementArgs,
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
}

/// Be a compute.
#[derive(Args)]
#[command(after_help = "\
Example:
  offshoot compute run --timeline TENANT-ID/TIMELINE-ID --folder /srv/compute --listen 127.0.0.1:6500

It stops cleanly on Ctrl-C and SIGTERM. It may be killed at any moment and its folder deleted:
another one starts from what the safekeepers and the object store have.
Exit codes: 0 stopped, 1 failed, 3 fenced by a newer compute of the same timeline.")]
pub struct ComputeRunArgs {
    /// The timeline, as `offshoot tenant branch show` prints it.
    #[arg(long, value_name = "TENANT-ID/TIMELINE-ID", value_parser = timeline)]
    pub timeline: TenantTimeline,
    /// Be read-only, as of this LSN, at which a record ends; no safekeeper is asked.
    #[arg(long, value_name = "LSN")]
    pub at: Option<Lsn>,
    /// Be read-only, and follow what another compute writes, as a standby that takes its WAL from the
    /// safekeepers.
    #[arg(long, conflicts_with = "at")]
    pub follow: bool,
    /// Where the record of that compute's last checkpoint begins; needed while it runs.
    #[arg(long, value_name = "LSN", requires = "follow")]
    pub checkpoint: Option<Lsn>,
    /// The page service; where there are more, all of them, the timeline's first.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = PAGESERVER_DEFAULT)]
    pub pageserver: Vec<SocketAddr>,
    /// All safekeepers.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = SAFEKEEPERS_DEFAULT)]
    pub safekeepers: Vec<SocketAddr>,
    /// The disposable folder, emptied at the start.
    #[arg(long, value_name = "DIR")]
    pub folder: PathBuf,
    /// Where Postgres listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: SocketAddr,
    /// A setting for postgresql.conf; may be said more than once.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// The folder in which outlives the compute what no WAL has: slots, statistics, free space maps.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// The folder of a control group that Postgres runs in; may be said more than once.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Vec<PathBuf>,
    /// The file with the token for the tenant's timelines, read anew from time to time; with -, each
    /// line of standard input is one.
    #[arg(long, value_name = "FILE|-")]
    pub auth_token: Option<PathBuf>,
    /// Stop when standard input ends, as it does when the control plane that started this is gone.
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

fn node_id(text: &str) -> Result<NodeId, String> {
    text.parse().map(NodeId).map_err(|_| format!("{text:?} is not a number"))
}

fn peer(text: &str) -> Result<(NodeId, SocketAddr), String> {
    let expected = || format!("{text:?} is not a peer; write it like 2=127.0.0.1:6412");
    let (node, address) = text.split_once('=').ok_or_else(expected)?;
    Ok((node_id(node)?, address.parse().map_err(|_| expected())?))
}

/// Reads the addresses of a page service and of its pageserver's HTTP API.
pub fn pageserver_at(text: &str) -> Result<PageserverAt, String> {
    let at = || {
        let (pages, http) = text.split_once(',')?;
        Some(PageserverAt { pages: pages.parse().ok()?, http: http.parse().ok()? })
    };
    at().ok_or_else(|| {
        format!("{text:?} is not a pageserver; write it like 127.0.0.1:6422,127.0.0.1:6421")
    })
}

fn timeline(text: &str) -> Result<TenantTimeline, String> {
    let (tenant, timeline) = text.split_once('/').ok_or_else(|| {
        format!("{text:?} is not a timeline; write it like TENANT-ID/TIMELINE-ID")
    })?;
    let tenant: TenantId = tenant.parse().map_err(|error| format!("{error}"))?;
    let timeline: TimelineId = timeline.parse().map_err(|error| format!("{error}"))?;
    Ok(TenantTimeline { tenant, timeline })
}

/// Reads `name=value`.
pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not a setting; write it like work_mem=64MB"))?;
    Ok((name.to_owned(), value.to_owned()))
}
