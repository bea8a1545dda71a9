//! One endpoint: a branch, its port, and the compute that it has or had.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use protocol::TenantId;
use tokio_postgres::Client;

use crate::{
    Compute, EndpointRef, RegionId, Sent, Settings, State,
    activity::{Activity, Spell},
    child::{Child, Phase},
    limits::Limits,
    served::{self, Served},
    trace::Trace,
    v2::encode,
};

/// A branch that has or had a compute. At most one start or stop of it is under way at a time:
/// whoever holds `turn` may replace the child.
pub(crate) struct Endpoint {
    pub turn: tokio::sync::Mutex<()>,
    /// Bytes that clients were sent and nobody took note of yet.
    pub sent: Arc<Sent>,
    now: Mutex<Now>,
}

struct Now {
    region: RegionId,
    tenant: String,
    branch: String,
    tenant_id: TenantId,
    served: Served,
    computes: PathBuf,
    host: std::net::IpAddr,
    port: u16,
    settings: Settings,
    limits: Option<Limits>,
    trace: Trace,
    /// A superuser's session that the start left open.
    superuser: Option<Client>,
    child: Option<Arc<Child>>,
    activity: Activity,
    /// While a stop is under way.
    stopping: bool,
    start_ms: Option<f64>,
    /// Clients of the proxy that are connected to its compute.
    clients: usize,
    /// Since when there is neither a client nor other work, as far as is known.
    quiet_since: Instant,
}

/// A client of the proxy, for as long as this value lives: the compute is not suspended meanwhile.
pub(crate) struct Stay(Arc<Endpoint>);

impl Drop for Stay {
    fn drop(&mut self) {
        let mut now = self.0.now.lock();
        now.clients -= 1;
        now.quiet_since = Instant::now();
    }
}

/// What names an endpoint, and where it listens.
pub(crate) struct Place {
    pub region: RegionId,
    pub tenant: String,
    /// The branch, and the moment of it where it is one: what the compute is called.
    pub branch: String,
    pub tenant_id: TenantId,
    pub served: Served,
    /// The folder of all computes' folders.
    pub computes: PathBuf,
    pub host: std::net::IpAddr,
    pub port: u16,
}

/// What its next compute is to be.
pub(crate) struct Plan {
    pub served: Served,
    /// Where the record of the checkpoint begins that a standby is to begin at.
    pub checkpoint: Option<String>,
    pub port: u16,
    pub settings: Settings,
    pub milli_cu: u32,
    /// What it may take; all that there is where none are said.
    pub limits: Option<Limits>,
}

impl Endpoint {
    /// An endpoint without a compute.
    pub(crate) fn new(place: Place) -> Endpoint {
        let Place { region, tenant, branch, tenant_id, served, computes, host, port } = place;
        let now = Now {
            region,
            tenant,
            branch,
            tenant_id,
            served,
            computes,
            host,
            port,
            settings: Settings::new(),
            limits: None,
            trace: Trace::default(),
            superuser: None,
            child: None,
            activity: Activity::default(),
            stopping: false,
            start_ms: None,
            clients: 0,
            quiet_since: Instant::now(),
        };
        Endpoint { turn: tokio::sync::Mutex::new(()), sent: Arc::default(), now: Mutex::new(now) }
    }

    /// The port that it has.
    pub(crate) fn port(&self) -> u16 {
        self.now.lock().port
    }

    /// The settings of its last compute.
    pub(crate) fn settings(&self) -> Settings {
        self.now.lock().settings.clone()
    }

    /// The limits of its last compute.
    pub(crate) fn limits(&self) -> Option<Limits> {
        self.now.lock().limits
    }

    /// Notes a stage of its compute's start.
    pub(crate) fn note(&self, stage: &str, took: Duration) {
        self.now.lock().trace.note(stage, took);
    }

    /// Puts a superuser's session of its compute in the place of the one that was left; that one.
    pub(crate) fn set_superuser(&self, session: Option<Client>) -> Option<Client> {
        std::mem::replace(&mut self.now.lock().superuser, session)
    }

    /// Holds its compute to these limits from now on, if it runs.
    pub(crate) fn set_limits(&self, limits: Limits) {
        let mut now = self.now.lock();
        now.limits = Some(limits);
        if let Some(child) = now.child.as_ref().filter(|_| now.is_ready()) {
            child.hold_to(limits);
        }
    }

    /// What its compute serves, or served.
    pub(crate) fn served(&self) -> Served {
        self.now.lock().served.clone()
    }

    /// The tenant's id.
    pub(crate) fn tenant_id(&self) -> TenantId {
        self.now.lock().tenant_id
    }

    /// The compute, if it lives.
    pub(crate) fn living(&self) -> Option<Arc<Child>> {
        let child = self.now.lock().child.clone();
        child.filter(|child| !matches!(child.phase(), Phase::Ended { .. }))
    }

    /// Takes a new compute over, and waits until it is ready or has ended.
    pub(crate) async fn begin(&self, plan: Plan, child: Child, asked: Instant) -> Phase {
        let child = Arc::new(child);
        let begun = Instant::now();
        {
            let mut now = self.now.lock();
            now.settle();
            now.served = plan.served;
            now.port = plan.port;
            now.settings = plan.settings;
            now.limits = plan.limits;
            now.superuser = None;
            now.trace = Trace::begin();
            now.trace.note("control plane: look up", begun.duration_since(asked));
            now.start_ms = None;
            now.child = Some(child.clone());
        }
        let phase = child.started().await;
        if let Phase::Ready { stages_ms, order, .. } = &phase {
            // The start is not the client's work: it may take what there is.
            let mut now = self.now.lock();
            if let Some(limits) = now.limits {
                child.hold_to(limits);
            }
            now.trace.note_compute(stages_ms, order, begun.elapsed());
            now.start_ms = Some(asked.elapsed().as_secs_f64() * 1e3);
            now.quiet_since = Instant::now();
            now.activity.begin(Instant::now(), plan.milli_cu);
        }
        phase
    }

    /// Stops the compute, if it lives, and waits until nothing of it is left.
    pub(crate) async fn end(&self) {
        if let Some(child) = self.living() {
            self.now.lock().stopping = true;
            child.stop().await;
        }
        self.now.lock().stopping = false;
    }

    /// Ends a compute at once that does not come up, and waits until nothing of it is left: it has done
    /// nothing yet that an end in order would save.
    pub(crate) async fn give_up(&self) {
        if let Some(child) = self.living() {
            child.kill().await;
        }
    }

    /// Whether it is the endpoint of this branch, each given by name or id.
    pub(crate) fn is_of(&self, tenant: &str, branch: &str) -> bool {
        let now = self.now.lock();
        (now.tenant == tenant || now.tenant_id.to_string() == tenant)
            && (now.branch == branch || now.served.to_string() == branch)
    }

    /// Whether it serves something else than the head of this branch, given by name or id.
    pub(crate) fn is_beside(&self, tenant: &str, branch: &str) -> bool {
        let now = self.now.lock();
        let (name, word) = served::split(&now.branch);
        word.is_some()
            && (now.tenant == tenant || now.tenant_id.to_string() == tenant)
            && (name == branch || now.served.timeline.to_string() == branch)
    }

    /// Whether it served a moment, and its compute has ended.
    pub(crate) fn is_past_moment(&self) -> bool {
        let now = self.now.lock();
        let ended = |child: &Arc<Child>| matches!(child.phase(), Phase::Ended { .. });
        now.served.is_moment() && now.child.as_ref().is_some_and(ended)
    }

    /// Lets a client in, where the compute accepts connections and is not about to be stopped; its
    /// port, and what it serves.
    pub(crate) fn enter(self: &Arc<Endpoint>) -> Option<(u16, Served, Stay)> {
        let mut now = self.now.lock();
        if !now.is_ready() {
            return None;
        }
        now.clients += 1;
        Some((now.port, now.served.clone(), Stay(self.clone())))
    }

    /// The tenant and branch that it is of.
    pub(crate) fn name(&self) -> EndpointRef {
        let now = self.now.lock();
        EndpointRef { tenant: now.tenant.clone(), branch: now.branch.clone() }
    }

    /// Its port and what it serves, where its compute has no client.
    pub(crate) fn unused(&self) -> Option<(u16, Served)> {
        let now = self.now.lock();
        now.is_quiet(Duration::ZERO).then_some((now.port, now.served.clone()))
    }

    /// Whether its compute has had no client and no other work for so long, as far as is known.
    pub(crate) fn is_quiet(&self, after: Duration) -> bool {
        self.now.lock().is_quiet(after)
    }

    /// There is work without a client: the wait begins anew.
    pub(crate) fn saw_work(&self) {
        self.now.lock().quiet_since = Instant::now();
    }

    /// Stops the compute where it is still quiet; whether it was. Who holds `turn` asks. A client that
    /// comes from here on is not let in before there is another compute.
    pub(crate) async fn suspend(&self, after: Duration) -> bool {
        {
            let mut now = self.now.lock();
            if !now.is_quiet(after) {
                return false;
            }
            now.stopping = true;
        }
        self.end().await;
        true
    }

    /// Its compute has another size from now on.
    pub(crate) fn resize(&self, milli_cu: u32) {
        self.now.lock().activity.resize(Instant::now(), milli_cu);
    }

    /// When its compute ran and what its clients were sent, as far as nobody took note of it yet.
    pub(crate) fn take_activity(&self, at: Instant) -> (Vec<Spell>, u64) {
        let mut now = self.now.lock();
        now.settle();
        (now.activity.take(at), self.sent.take())
    }

    /// Whether a client may still be sent something.
    pub(crate) fn has_sessions(&self) -> bool {
        Arc::strong_count(&self.sent) > 1
    }

    /// What there is to say about it.
    pub(crate) fn view(&self) -> Compute {
        let now = self.now.lock();
        let phase = now.child.as_ref().map(|child| child.phase());
        let (state, reason, stages_ms) = match phase {
            Some(Phase::Starting | Phase::Ready { .. }) if now.stopping => {
                (State::Stopping, None, Default::default())
            }
            Some(Phase::Ending) => (State::Stopping, None, Default::default()),
            Some(Phase::Starting) => (State::Starting, None, Default::default()),
            Some(Phase::Ready { stages_ms, .. }) => (State::Running, None, stages_ms),
            Some(Phase::Ended { reason: Some(reason), .. }) => {
                (State::Failed, Some(reason), Default::default())
            }
            Some(Phase::Ended { reason: None, .. }) | None => {
                (State::Stopped, None, Default::default())
            }
        };
        let sockets = sockets(&now.computes, &now.served);
        let lives = matches!(state, State::Starting | State::Running | State::Stopping);
        Compute {
            region: now.region.to_string(),
            tenant: now.tenant.clone(),
            branch: now.branch.clone(),
            tenant_id: now.tenant_id,
            timeline_id: now.served.timeline,
            lsn: now.served.lsn().map(str::to_owned),
            follows: now.served.is_standby(),
            state,
            host: now.host,
            port: now.port,
            connection: connection(&sockets, now.port),
            sockets,
            pid: now.child.as_ref().filter(|_| lives).map(|child| child.pid),
            start_ms: now.start_ms.filter(|_| lives),
            stages_ms,
            trace: now.trace.stages(),
            reason,
        }
    }
}

impl Now {
    /// A compute that ended by itself ran until then.
    fn settle(&mut self) {
        if let Some(at) = self.child.as_ref().and_then(|child| child.ended_at()) {
            self.activity.end(at);
        }
    }

    fn is_ready(&self) -> bool {
        let phase = self.child.as_ref().map(|child| child.phase());
        !self.stopping && matches!(phase, Some(Phase::Ready { .. }))
    }

    fn is_quiet(&self, after: Duration) -> bool {
        self.is_ready() && self.clients == 0 && self.quiet_since.elapsed() >= after
    }
}

/// The folder of a compute's Unix socket.
pub(crate) fn sockets(computes: &Path, served: &Served) -> PathBuf {
    computes.join(served.folder_name()).join("socket")
}

/// How whoever may enter the folder of its socket connects to a compute, as the template's role to
/// its database.
fn connection(sockets: &Path, port: u16) -> String {
    let host = encode(&sockets.display().to_string());
    format!("postgresql://app@/app?host={host}&port={port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::Spec;

    #[tokio::test]
    async fn a_compute_with_a_client_is_not_suspended_and_a_suspended_one_lets_nobody_in()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let host = "127.0.0.1".parse()?;
        let tenant_id = "1".repeat(32).parse()?;
        let served = Served::head("2".repeat(32).parse()?);
        let (tenant, branch) = ("acme".to_owned(), "main".to_owned());
        let computes = folder.path().to_owned();
        let (region, served_now) = ("local".parse().map_err(anyhow::Error::msg)?, served.clone());
        let place = Place {
            region,
            tenant,
            branch,
            tenant_id,
            served: served_now,
            computes,
            host,
            port: 1,
        };
        let endpoint = Arc::new(Endpoint::new(place));
        assert!(endpoint.enter().is_none(), "there is no compute");

        let ready = r#"echo '{"event":"ready","port":1,"stages_ms":{}}'; cat"#;
        let child = Child::spawn(Spec {
            executable: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), ready.to_owned()],
            tokens: None,
            folder: folder.path().join("compute"),
            log: folder.path().join("log"),
            keep: None,
            group: None,
        })?;
        let plan = Plan {
            served,
            checkpoint: None,
            port: 1,
            settings: Settings::new(),
            milli_cu: 250,
            limits: None,
        };
        let phase = endpoint.begin(plan, child, Instant::now()).await;
        assert!(matches!(phase, Phase::Ready { .. }), "{phase:?}");
        assert!(endpoint.unused().is_some() && endpoint.is_quiet(Duration::ZERO));
        assert!(!endpoint.is_quiet(Duration::from_secs(3600)), "it has just begun");

        let (_, _, stay) = endpoint.enter().ok_or_else(|| anyhow::anyhow!("it is ready"))?;
        assert!(endpoint.unused().is_none(), "it has a client");
        assert!(!endpoint.suspend(Duration::ZERO).await, "suspended under a client");
        drop(stay);
        assert!(!endpoint.suspend(Duration::from_secs(3600)).await, "its client has just left");
        assert!(endpoint.suspend(Duration::ZERO).await);
        assert!(endpoint.enter().is_none(), "a client was let in to a compute that is gone");
        assert_eq!(endpoint.view().state, State::Stopped);
        Ok(())
    }
}
