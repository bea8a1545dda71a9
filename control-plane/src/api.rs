//! What the HTTP API and the computes' own reports say, as JSON.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use protocol::{TenantId, TimelineId};
use serde::{Deserialize, Serialize};

use crate::{Bounds, Stage, Stages, endpoints::MILLI_CU_DEFAULT};

/// `POST /v1/computes`: start the compute of a branch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The region of a tenant that is no project; the default one where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The tenant, by name or id.
    pub tenant: String,
    /// The branch, by name or id; `main` where none is said. With `@` and an LSN or a time behind it
    /// the compute is read-only, as of that moment; with `@` and a name that begins with `ep-` it is
    /// read-only, too, and follows the branch's own compute.
    #[serde(default = "main_branch")]
    pub branch: String,
    /// The port; the branch's last one, or a free one, where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Settings for Postgres; the branch's last ones where none are said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// How large it is, in thousandths of a compute unit: what its time costs.
    #[serde(skip, default = "default_size")]
    pub milli_cu: u32,
    /// What the compute may take at most, in compute units, each a processor and 4 GiB; all that there
    /// is where none are said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<f64>,
}

impl StartRequest {
    /// The compute of a branch, of which nothing else is said.
    pub fn of(tenant: String, branch: String) -> StartRequest {
        let (region, port, settings, units) = (None, None, None, None);
        StartRequest { region, tenant, branch, port, settings, milli_cu: MILLI_CU_DEFAULT, units }
    }
}

fn default_size() -> u32 {
    MILLI_CU_DEFAULT
}

/// Settings of Postgres by name, as in `postgresql.conf`.
pub type Settings = BTreeMap<String, String>;

fn main_branch() -> String {
    "main".to_owned()
}

/// Where a compute is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was asked for and does not accept connections yet.
    Starting,
    /// It accepts connections.
    Running,
    /// It was asked to stop.
    Stopping,
    /// It was stopped on request.
    Stopped,
    /// It ended by itself, or never came up; `reason` says why.
    Failed,
}

/// One endpoint and its compute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compute {
    /// The region that it runs in.
    #[serde(default)]
    pub region: String,
    /// The tenant's name.
    pub tenant: String,
    /// The branch's name; with `@LSN` where the compute is read-only as of a moment, with `@NAME` where
    /// it follows the branch's own.
    pub branch: String,
    /// The tenant's id.
    pub tenant_id: TenantId,
    /// The timeline that the compute serves: another one after a restore of the branch.
    pub timeline_id: TimelineId,
    /// The LSN as of which it is read-only; none of one that goes on at the branch's head.
    #[serde(default)]
    pub lsn: Option<String>,
    /// It is read-only, and follows the compute of the branch's head.
    #[serde(default)]
    pub follows: bool,
    /// Where it is in its life.
    pub state: State,
    /// The address on which Postgres listens, and asks for a password by SCRAM.
    pub host: IpAddr,
    /// The port.
    pub port: u16,
    /// The folder of its Unix socket, which trusts whoever may enter it: root, and who runs Postgres.
    pub sockets: PathBuf,
    /// How they connect, as the template's default role to its default database.
    pub connection: String,
    /// The process of `offshoot compute run`, while it lives.
    pub pid: Option<u32>,
    /// From the request to the first accepted connection.
    pub start_ms: Option<f64>,
    /// The stages of that, as the compute measured them.
    pub stages_ms: Stages,
    /// All stages of its last start, in order: the control plane's, the compute's, the proxy's up to
    /// the first client that was in.
    #[serde(default)]
    pub trace: Vec<Stage>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// What a compute says of itself: one JSON object a line on its standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum ComputeEvent {
    /// Postgres accepts connections.
    Ready {
        /// On this port.
        port: u16,
        /// The stages of the start.
        stages_ms: Stages,
        /// Their names, in the order in which they were.
        #[serde(default)]
        order: Vec<String>,
    },
    /// A newer compute took the timeline over; Postgres was stopped.
    Fenced {
        /// By whom.
        reason: String,
    },
    /// The compute cannot start, or cannot go on.
    Failed {
        /// Why, and what mends it.
        reason: String,
    },
    /// A standby has nothing to begin at: the timeline's own compute has to be started first.
    NoCheckpoint {
        /// Why.
        reason: String,
    },
    /// Postgres was stopped cleanly.
    Stopped,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of this program.
    pub version: String,
    /// Where the other roles of the default region are.
    pub addresses: Addresses,
    /// All regions.
    #[serde(default)]
    pub regions: Vec<RegionStatus>,
    /// What holds computes to their limits.
    #[serde(default)]
    pub bounds: Bounds,
    /// All endpoints.
    pub computes: Vec<Compute>,
}

/// A region, as the control plane sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegionStatus {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// It is the one of projects that ask for none.
    pub default: bool,
    /// One of its pageservers answers.
    pub answers: bool,
    /// Where its roles are.
    pub addresses: Addresses,
}

/// Where the other roles listen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// The pageserver's HTTP API.
    pub pageserver_http: SocketAddr,
    /// The pageserver's page service.
    pub pageserver: SocketAddr,
    /// The safekeepers.
    pub safekeepers: Vec<SocketAddr>,
}

/// The body of every answer that is an error.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The kind, for programs.
    pub code: String,
    /// The sentence, for people.
    pub message: String,
}
