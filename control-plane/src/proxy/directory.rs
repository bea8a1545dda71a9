//! What the proxy asks of whoever knows the endpoints and the roles.

use std::{any::Any, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_postgres::Client;

use super::{Sent, Verifier, Way};
use crate::{Error, catalog::timelines::Moment};

/// Which branch an endpoint's name stands for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EndpointRef {
    /// The tenant, by name or id.
    pub tenant: String,
    /// The branch, by name or id; with `@` and an LSN behind it, the branch as it was then.
    pub branch: String,
}

/// A compute that accepts connections, and goes on doing so, unless it is told to stop or fails, for
/// as long as this value lives: it is not suspended meanwhile.
pub struct Awake {
    /// The way that clients' sessions take to Postgres.
    pub way: Way,
    /// The folder of its Unix socket, over which the superuser needs no password.
    pub sockets: PathBuf,
    /// Its port, after which the socket is called.
    pub port: u16,
    /// Counts the bytes that its clients are sent.
    pub sent: Arc<Sent>,
    /// Dropped when nobody needs the compute any more.
    pub stay: Box<dyn Any + Send + Sync>,
}

/// Knows the endpoints by name, and makes their computes run.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The branch that a name stands for; `None` where none can.
    async fn find(&self, name: &str) -> Result<Option<EndpointRef>, Arc<Error>>;

    /// The compute of a branch as it was at a moment: what to wake for it. The moment is looked for now,
    /// and is there, or why not.
    async fn at(&self, endpoint: &EndpointRef, moment: &Moment) -> Result<EndpointRef, Arc<Error>>;

    /// Says what the proxy took for a part of letting a client in: of a compute that was just woken it
    /// belongs to the start.
    fn note(&self, endpoint: &EndpointRef, stage: &str, took: Duration);

    /// A superuser's session that the start of the compute left open, given once: it saves a connection
    /// to a Postgres that has just begun.
    fn superuser(&self, endpoint: &EndpointRef) -> Option<Client>;

    /// Makes the branch's compute run. Many may ask at once; there is one start.
    async fn wake(&self, endpoint: &EndpointRef) -> Result<Awake, Arc<Error>>;
}

/// Knows the roles' verifiers.
#[async_trait]
pub trait Roles: Send + Sync + 'static {
    /// The verifier of a role's password; `None` where there is no such role, or it has none that
    /// SCRAM can use, or it has expired.
    async fn verifier(
        &self,
        endpoint: &EndpointRef,
        role: &str,
    ) -> Result<Option<Verifier>, Arc<Error>>;
}
