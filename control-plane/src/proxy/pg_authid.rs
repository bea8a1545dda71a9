//! Verifiers as the compute itself has them: roles made by SQL, passwords changed a moment ago.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_postgres::{
    Client, NoTls, Statement,
    error::SqlState,
    types::{ToSql, Type},
};

use super::{
    Awake, Directory, EndpointRef, Roles, Verifier,
    connection::{AWAY_MAX, AWAY_PAUSE},
};
use crate::Error;

/// The superuser of a compute: `initdb --username` of the default template.
const SUPERUSER: &str = "postgres";

/// What the superuser's sessions call themselves, so that they are not taken for work.
pub(crate) const APPLICATION: &str = "offshoot proxy";

/// How long a superuser's session is kept after its last question: clients come in swarms.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(5);

/// How long a compute may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// `get_role_password` (src/backend/libpq/crypt.c). Whether the role may log in at all is for the
/// backend to say, which says it to those alone who know the password.
const QUERY: &str = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 \
                     AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

/// Asks `pg_authid` of the branch's compute, which is woken for it. No verifier is kept: a password
/// that was changed or taken away counts at once.
pub struct PgAuthid {
    directory: Arc<dyn Directory>,
    sessions: Arc<Mutex<Sessions>>,
}

type Sessions = HashMap<EndpointRef, Arc<Slot>>;

/// The session of one endpoint; whoever makes it lets the others wait.
#[derive(Default)]
struct Slot {
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    used: Mutex<Option<Instant>>,
}

impl Slot {
    /// Gives a session up that failed, unless it was replaced meanwhile.
    async fn forget(&self, failed: &Arc<Session>) {
        let mut session = self.session.lock().await;
        if session.as_ref().is_some_and(|session| Arc::ptr_eq(session, failed)) {
            *session = None;
        }
    }
}

struct Session {
    client: Client,
    statement: Statement,
    /// The compute is not suspended under a question.
    _stay: Awake,
}

impl PgAuthid {
    /// Asks the computes of this directory's endpoints.
    pub fn new(directory: Arc<dyn Directory>) -> PgAuthid {
        PgAuthid { directory, sessions: Arc::default() }
    }

    fn slot(&self, endpoint: &EndpointRef) -> Arc<Slot> {
        let mut sessions = self.sessions.lock();
        if let Some(slot) = sessions.get(endpoint) {
            *slot.used.lock() = Some(Instant::now());
            return slot.clone();
        }
        let slot = Arc::new(Slot::default());
        *slot.used.lock() = Some(Instant::now());
        sessions.insert(endpoint.clone(), slot.clone());
        let sessions = Arc::downgrade(&self.sessions);
        tokio::spawn(forget_idle(sessions, endpoint.clone(), slot.clone()));
        slot
    }

    async fn session(&self, endpoint: &EndpointRef) -> Result<Arc<Session>, Arc<Error>> {
        let slot = self.slot(endpoint);
        let living = |session: &Option<Arc<Session>>| {
            session.clone().filter(|session| !session.client.is_closed())
        };
        if let Some(session) = living(&*slot.session.lock().await) {
            return Ok(session);
        }
        // Not under the lock: where the start fails, it fails once for all who wait.
        let awake = self.directory.wake(endpoint).await?;
        let mut session = slot.session.lock().await;
        if let Some(session) = living(&session) {
            return Ok(session);
        }
        let began = Instant::now();
        let made = async {
            let client = match self.directory.superuser(endpoint) {
                Some(client) if !client.is_closed() => client,
                _ => connect_as_superuser(&awake).await?,
            };
            let statement = client.prepare_typed(QUERY, &[Type::TEXT]).await?;
            Ok::<_, tokio_postgres::Error>((client, statement))
        };
        let (client, statement) = answer(&endpoint.tenant, &endpoint.branch, made).await?;
        self.directory.note(endpoint, "proxy: connect as the superuser", began.elapsed());
        let made = Arc::new(Session { client, statement, _stay: awake });
        *session = Some(made.clone());
        Ok(made)
    }

    async fn ask(&self, endpoint: &EndpointRef, role: &str) -> Result<Option<String>, Arc<Error>> {
        let session = self.session(endpoint).await?;
        let parameters: [&(dyn ToSql + Sync); 1] = [&role];
        let began = Instant::now();
        let asked = session.client.query_opt(&session.statement, &parameters);
        let row = match answer(&endpoint.tenant, &endpoint.branch, asked).await {
            Ok(row) => {
                self.directory.note(endpoint, "proxy: ask for the verifier", began.elapsed());
                row
            }
            Err(error) => {
                self.slot(endpoint).forget(&session).await;
                return Err(error);
            }
        };
        Ok(row.and_then(|row| row.try_get(0).ok()).flatten())
    }
}

#[async_trait]
impl Roles for PgAuthid {
    async fn verifier(
        &self,
        endpoint: &EndpointRef,
        role: &str,
    ) -> Result<Option<Verifier>, Arc<Error>> {
        let began = Instant::now();
        let password = loop {
            match self.ask(endpoint, role).await {
                // The compute was killed, or is being stopped: it is woken anew when that is noticed.
                Err(error) if is_away(&error) && began.elapsed() < AWAY_MAX => {
                    tokio::time::sleep(AWAY_PAUSE).await;
                }
                asked => break asked?,
            }
        };
        Ok(password.and_then(|password| match password.parse() {
            Ok(verifier) => Some(verifier),
            Err(reason) => {
                tracing::info!(?endpoint, role, %reason, "a role's password cannot be used");
                None
            }
        }))
    }
}

/// Connects as the superuser over the Unix socket.
pub(crate) async fn connect_as_superuser(awake: &Awake) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(&awake.sockets)
        .port(awake.port)
        .user(SUPERUSER)
        .dbname("postgres")
        .application_name(APPLICATION);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the superuser's session ended");
        }
    });
    Ok(client)
}

/// Waits for a compute's answer, not for ever.
pub(crate) async fn answer<T>(
    tenant: &str,
    branch: &str,
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Arc<Error>> {
    let failed = |reason: io::Error| Error::Compute {
        tenant: tenant.to_owned(),
        branch: branch.to_owned(),
        reason,
    };
    match tokio::time::timeout(ANSWER_MAX, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            // admin_shutdown, cannot_connect_now
            let ends = |code: &SqlState| {
                [SqlState::ADMIN_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(code)
            };
            let kind = match error.code() {
                Some(code) if !ends(code) => io::ErrorKind::Other,
                _ => io::ErrorKind::ConnectionAborted,
            };
            let database = error.as_db_error().map(ToString::to_string);
            let reason = database.unwrap_or_else(|| error.to_string());
            Err(Arc::new(failed(io::Error::new(kind, reason))))
        }
        Err(_) => Err(Arc::new(failed(io::ErrorKind::TimedOut.into()))),
    }
}

/// Whether the connection failed, and not what was asked.
fn is_away(error: &Error) -> bool {
    matches!(error, Error::Compute { reason, .. } if reason.kind() == io::ErrorKind::ConnectionAborted)
}

/// Closes the session when nobody has asked for a while.
async fn forget_idle(sessions: Weak<Mutex<Sessions>>, endpoint: EndpointRef, slot: Arc<Slot>) {
    loop {
        tokio::time::sleep(SESSION_IDLE_MAX).await;
        let Some(sessions) = sessions.upgrade() else { return };
        // Whoever takes the slot says so under this lock.
        let mut sessions = sessions.lock();
        let used = *slot.used.lock();
        if used.is_none_or(|used| used.elapsed() >= SESSION_IDLE_MAX) {
            sessions.remove(&endpoint);
            return;
        }
    }
}
