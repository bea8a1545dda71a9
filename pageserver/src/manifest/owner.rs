//! Which pageserver serves a tenant.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The process that serves a tenant, as the tenant's newest manifest has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// A random number of the process: two of one name are still two.
    pub process: String,
    /// How often the tenant was taken: 1 for its first owner. A timeline's manifest that was
    /// written under a lower one may be followed by another of that owner's.
    pub generation: u64,
}

/// A pageserver's name, and where others reach it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Its name. A tenant goes to a pageserver of another name only by being moved.
    pub name: String,
    /// Its page service; absent where it listens on every address of its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<SocketAddr>,
    /// Its admin API; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
}

/// The name of a pageserver that was given none.
pub const NAME_DEFAULT: &str = "pageserver";

impl Place {
    /// A pageserver of this name that listens there.
    pub fn new(name: String, pages: SocketAddr, http: SocketAddr) -> Place {
        let reachable = |address: SocketAddr| Some(address).filter(|at| !at.ip().is_unspecified());
        Place { name, pages: reachable(pages), http: reachable(http) }
    }
}

impl Default for Place {
    fn default() -> Place {
        Place { name: NAME_DEFAULT.to_owned(), pages: None, http: None }
    }
}
