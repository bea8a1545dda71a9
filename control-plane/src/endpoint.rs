//! One endpoint: a branch, its port, and the compute that it has or had.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use protocol::{TenantId, TimelineId};

use crate::{
    Compute, Settings, State,
    child::{Child, Phase},
};

/// A branch that has or had a compute. At most one start or stop of it is under way at a time:
/// whoever holds `turn` may replace the child.
pub(crate) struct Endpoint {
    pub turn: tokio::sync::Mutex<()>,
    now: Mutex<Now>,
}

struct Now {
    tenant: String,
    branch: String,
    tenant_id: TenantId,
    timeline_id: TimelineId,
    host: std::net::IpAddr,
    port: u16,
    settings: Settings,
    child: Option<Arc<Child>>,
    /// While a stop is under way.
    stopping: bool,
    start_ms: Option<f64>,
}

/// What names an endpoint, and where it listens.
pub(crate) struct Place {
    pub tenant: String,
    pub branch: String,
    pub tenant_id: TenantId,
    pub timeline_id: TimelineId,
    pub host: std::net::IpAddr,
    pub port: u16,
}

/// What its next compute is to be.
pub(crate) struct Plan {
    pub timeline_id: TimelineId,
    pub port: u16,
    pub settings: Settings,
}

impl Endpoint {
    /// An endpoint without a compute.
    pub(crate) fn new(place: Place) -> Endpoint {
        let Place { tenant, branch, tenant_id, timeline_id, host, port } = place;
        let now = Now {
            tenant,
            branch,
            tenant_id,
            timeline_id,
            host,
            port,
            settings: Settings::new(),
            child: None,
            stopping: false,
            start_ms: None,
        };
        Endpoint { turn: tokio::sync::Mutex::new(()), now: Mutex::new(now) }
    }

    /// The port that it has.
    pub(crate) fn port(&self) -> u16 {
        self.now.lock().port
    }

    /// The settings of its last compute.
    pub(crate) fn settings(&self) -> Settings {
        self.now.lock().settings.clone()
    }

    /// The timeline that its compute serves, or served.
    pub(crate) fn timeline_id(&self) -> TimelineId {
        self.now.lock().timeline_id
    }

    /// The compute, if it lives.
    pub(crate) fn living(&self) -> Option<Arc<Child>> {
        let child = self.now.lock().child.clone();
        child.filter(|child| !matches!(child.phase(), Phase::Ended { .. }))
    }

    /// Takes a new compute over, and waits until it is ready or has ended.
    pub(crate) async fn begin(&self, plan: Plan, child: Child, asked: Instant) -> Phase {
        let child = Arc::new(child);
        {
            let mut now = self.now.lock();
            now.timeline_id = plan.timeline_id;
            now.port = plan.port;
            now.settings = plan.settings;
            now.start_ms = None;
            now.child = Some(child.clone());
        }
        let phase = child.started().await;
        if matches!(phase, Phase::Ready { .. }) {
            self.now.lock().start_ms = Some(asked.elapsed().as_secs_f64() * 1e3);
        }
        phase
    }

    /// Stops the compute, if it lives, and waits until nothing of it is left.
    pub(crate) async fn end(&self) {
        if let Some(child) = self.living() {
            self.now.lock().stopping = true;
            child.stop().await;
            self.now.lock().stopping = false;
        }
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
            Some(Phase::Ended { reason: Some(reason) }) => {
                (State::Failed, Some(reason), Default::default())
            }
            Some(Phase::Ended { reason: None }) | None => {
                (State::Stopped, None, Default::default())
            }
        };
        let lives = matches!(state, State::Starting | State::Running | State::Stopping);
        Compute {
            tenant: now.tenant.clone(),
            branch: now.branch.clone(),
            tenant_id: now.tenant_id,
            timeline_id: now.timeline_id,
            state,
            host: now.host,
            port: now.port,
            connection: format!("postgresql://app@{}:{}/app", now.host, now.port),
            pid: now.child.as_ref().filter(|_| lives).map(|child| child.pid),
            start_ms: now.start_ms.filter(|_| lives),
            stages_ms,
            reason,
        }
    }
}
