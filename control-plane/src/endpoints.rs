//! All endpoints of a region, and what can be done to them.

mod room;
mod standbys;

use std::{
    any::Any,
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use access::Bearer;
use futures::future::join_all;
use parking_lot::Mutex;
use protocol::{TenantId, TimelineId};
use tokio_postgres::Client;

use crate::{
    Addresses, Awake, Bounds, Compute, EndpointRef, Error, RegionConfig, StartRequest, Way,
    activity::Spell,
    catalog::timelines::Moment,
    child::{self, Child, Phase, Spec},
    endpoint::{self, Endpoint, Place, Plan},
    limits::{Cgroups, Group, Limits},
    metrics::METRICS,
    pageserver_client::{Branch, PageserverClient},
    ports,
    region::Health,
    served::{self, Served, What},
};

/// The folder is passed through by the user that runs Postgres, and listed by root alone.
const FOLDER_MODE: u32 = 0o711;

/// The size of a compute of which nothing else is said: a quarter of a compute unit.
pub(crate) const MILLI_CU_DEFAULT: u32 = 250;

/// The folder for what is kept of computes, by timeline.
const KEPT: &str = "kept";

/// How long a session that a start left open is kept for a client.
const LEFT_MAX: Duration = Duration::from_secs(5);

/// The endpoints, by tenant and branch. One is made by the first start of a compute, and is kept
/// with its port until the process ends.
pub struct Endpoints {
    config: RegionConfig,
    executable: PathBuf,
    health: Health,
    pageserver: PageserverClient,
    cgroups: Cgroups,
    all: Mutex<BTreeMap<Key, Arc<Endpoint>>>,
    /// Those that were forgotten, and of whose activity nobody took note yet, or not of all, because they
    /// have sessions still; `None` where nobody takes note of any.
    forgotten: Mutex<Option<Vec<Arc<Endpoint>>>>,
}

/// What a tenant's endpoint did since somebody took note of it.
pub(crate) struct Taken {
    /// The tenant's name.
    pub tenant: String,
    /// The name of the timeline of which its compute served the head, a moment or a standby.
    pub timeline: String,
    /// When its compute ran.
    pub spells: Vec<Spell>,
    /// What the proxy sent to its clients.
    pub sent_bytes: u64,
}

/// A tenant, and the name of one of its branches, or of a standby of it: a restore changes the timeline
/// behind it. Of a moment, what is served.
type Key = (TenantId, String);

impl Endpoints {
    /// No endpoint yet; the computes' folder is made.
    pub(crate) fn new(
        config: RegionConfig,
        executable: PathBuf,
        bearer: Bearer,
        health: Health,
    ) -> Result<Endpoints, Error> {
        let folder = &config.computes.folder;
        for folder in [folder, &folder.join(KEPT)] {
            fs::create_dir_all(folder)
                .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE)))
                .map_err(|reason| Error::Folder { path: folder.clone(), reason })?;
        }
        let pageserver = PageserverClient::new(config.pageservers.clone(), bearer, health.clone());
        Ok(Endpoints {
            config,
            executable,
            health,
            pageserver,
            cgroups: Cgroups::open(),
            all: Mutex::default(),
            forgotten: Mutex::default(),
        })
    }

    /// Where its servers are.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        self.config.pageservers.first().map(|first| Addresses {
            pageserver_http: first.http,
            pageserver: first.pages,
            safekeepers: self.config.safekeepers.clone(),
        })
    }

    /// What holds computes to their limits.
    pub(crate) fn bounds(&self) -> Bounds {
        self.cgroups.bounds()
    }

    /// The pageservers.
    pub(crate) fn pageservers(&self) -> &PageserverClient {
        &self.pageserver
    }

    /// Every endpoint.
    pub fn list(&self) -> Vec<Compute> {
        self.all.lock().values().map(|endpoint| endpoint.view()).collect()
    }

    /// One endpoint.
    pub fn show(&self, tenant: &str, branch: &str) -> Result<Compute, Error> {
        Ok(self.known(tenant, branch)?.view())
    }

    /// Starts a branch's compute, unless it runs already, and waits until it accepts connections. Where
    /// it is a standby that has nothing to begin at, the branch's own is started first, as it last was.
    pub async fn start(&self, request: &StartRequest) -> Result<Compute, Error> {
        match self.start_only(request).await {
            Err(Error::NoCheckpoint(_)) => {
                let (branch, _) = served::split(&request.branch);
                let head = StartRequest::of(request.tenant.clone(), branch.to_owned());
                self.start_only(&head).await?;
                self.start_only(request).await
            }
            started => started,
        }
    }

    /// [`Endpoints::start`], but a standby that has nothing to begin at is refused.
    pub(crate) async fn start_only(&self, request: &StartRequest) -> Result<Compute, Error> {
        let asked = Instant::now();
        let (name, word) = served::split(&request.branch);
        let (tenant, branch) = self.pageserver.branch(&request.tenant, name).await?;
        let served = self.served(&request.tenant, &branch, word).await?;
        loop {
            let (key, endpoint) = self.endpoint(&tenant, &branch, &served, request.port)?;
            let _turn = endpoint.turn.lock().await;
            // One that serves a moment is forgotten with its compute, which may have been now.
            if !self.is_known(&key, &endpoint) {
                continue;
            }
            if let Some(child) = endpoint.living() {
                if child.phase() != Phase::Ending {
                    return running_already(&endpoint, request.port);
                }
                child.ended().await;
            }
            let checkpoint = match served.is_standby() {
                true => self.checkpoint(&branch).await?,
                false => None,
            };
            let plan = Plan {
                served,
                checkpoint,
                port: request.port.unwrap_or_else(|| endpoint.port()),
                settings: request.settings.clone().unwrap_or_else(|| endpoint.settings()),
                milli_cu: request.milli_cu,
                limits: request.units.map(Limits::new).or_else(|| endpoint.limits()),
            };
            let is_moment = plan.served.is_moment();
            let begun = self.begin(&endpoint, plan, asked).await;
            if begun.is_err() && is_moment {
                // Nobody comes back for its port; what it said is kept for whoever looks.
                self.remove(&endpoint);
            }
            return begun;
        }
    }

    /// What of a branch is meant by the word behind its name.
    async fn served(
        &self,
        tenant: &str,
        branch: &Branch,
        word: Option<&str>,
    ) -> Result<Served, Error> {
        let head = Served::head(branch.timeline_id);
        let Some(word) = word else { return Ok(head) };
        if let Some(name) = served::standby(Some(word)) {
            served::check_standby(name).map_err(Error::Invalid)?;
            return Ok(Served { what: What::Standby(name.to_owned()), ..head });
        }
        let moment = Moment::either(word).map_err(Error::Invalid)?;
        self.pageserver.moment(tenant, &branch.name, &moment).await
    }

    /// Stops a branch's compute, and waits until nothing of it is left. The port stays its own.
    pub async fn stop(&self, tenant: &str, branch: &str) -> Result<Compute, Error> {
        let endpoint = self.known(tenant, branch)?;
        let _turn = endpoint.turn.lock().await;
        endpoint.end().await;
        if endpoint.served().is_moment() {
            self.drop_endpoint(&endpoint);
        }
        Ok(endpoint.view())
    }

    /// Stops a branch's compute, and those of its moments and standbys, and forgets their ports and what
    /// they said: the branch is about to be deleted. Of a standby that is named, it alone.
    pub async fn forget(&self, tenant: &str, branch: &str) -> Result<Compute, Error> {
        for beside in self.beside(tenant, branch) {
            let _turn = beside.turn.lock().await;
            beside.end().await;
            self.drop_endpoint(&beside);
        }
        let endpoint = self.known(tenant, branch)?;
        let _turn = endpoint.turn.lock().await;
        endpoint.end().await;
        self.drop_endpoint(&endpoint);
        let served = endpoint.served();
        if served.what == What::Head {
            // There may be none.
            let _absent = fs::remove_dir_all(self.kept(served.timeline));
        }
        Ok(endpoint.view())
    }

    /// Forgets an endpoint whose compute has ended, by who has its turn: its port is free for others.
    pub(crate) fn drop_endpoint(&self, endpoint: &Arc<Endpoint>) {
        self.remove(endpoint);
        let log = self.log(&endpoint.served());
        for log in [child::kept_log(&log), log] {
            // There may be none.
            let _absent = fs::remove_file(log);
        }
    }

    /// Takes an endpoint out; what it did is still to be taken note of.
    fn remove(&self, endpoint: &Arc<Endpoint>) {
        self.all.lock().retain(|_, known| !Arc::ptr_eq(known, endpoint));
        if let Some(forgotten) = &mut *self.forgotten.lock() {
            forgotten.push(endpoint.clone());
        }
    }

    /// Forgets the endpoints of moments whose computes have ended by themselves.
    pub(crate) fn drop_ended_moments(&self) {
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        for endpoint in all.into_iter().filter(|endpoint| endpoint.is_past_moment()) {
            // Whoever has its turn starts it again.
            let Ok(_turn) = endpoint.turn.try_lock() else { continue };
            if endpoint.is_past_moment() {
                self.remove(&endpoint);
            }
        }
    }

    /// The endpoints that serve moments of a branch, and its standbys.
    fn beside(&self, tenant: &str, branch: &str) -> Vec<Arc<Endpoint>> {
        let all = self.all.lock();
        let is_one = |endpoint: &&Arc<Endpoint>| endpoint.is_beside(tenant, branch);
        all.values().filter(is_one).cloned().collect()
    }

    /// Starts a branch's compute anew where it runs on a timeline that the branch no longer stands
    /// for, as after a restore; on the same port. So are its standbys. `None` where no compute of it
    /// runs.
    pub async fn follow(&self, tenant: &str, branch: &str) -> Result<Option<Compute>, Error> {
        let (_, branch) = self.pageserver.branch(tenant, branch).await?;
        let followed = self.follow_head(&branch).await?;
        self.follow_by_standbys(tenant, &branch).await?;
        Ok(followed)
    }

    async fn follow_head(&self, branch: &Branch) -> Result<Option<Compute>, Error> {
        let asked = Instant::now();
        let endpoint = self.all.lock().get(&head_key(branch)).cloned();
        let Some(endpoint) = endpoint else { return Ok(None) };
        let _turn = endpoint.turn.lock().await;
        if endpoint.living().is_none() {
            return Ok(None);
        }
        if endpoint.served().timeline == branch.timeline_id {
            return Ok(Some(endpoint.view()));
        }
        endpoint.end().await;
        let plan = Plan {
            served: Served::head(branch.timeline_id),
            checkpoint: None,
            port: endpoint.port(),
            settings: endpoint.settings(),
            milli_cu: MILLI_CU_DEFAULT,
            limits: endpoint.limits(),
        };
        self.begin(&endpoint, plan, asked).await.map(Some)
    }

    /// A branch's compute, where it has one, has another size from now on.
    pub(crate) fn resize(&self, tenant: &str, branch: &str, milli_cu: u32) {
        if let Ok(endpoint) = self.known(tenant, branch) {
            endpoint.resize(milli_cu);
        }
    }

    /// What endpoints did since this was last asked, but for those that did nothing.
    pub(crate) fn take_activity(&self, at: Instant) -> Vec<Taken> {
        let forgotten = {
            let mut forgotten = self.forgotten.lock();
            let all = forgotten.get_or_insert_default();
            let taken = all.clone();
            // Before it is taken: those of which there is no more to take then are done with.
            all.retain(|endpoint| endpoint.has_sessions());
            taken
        };
        let all: Vec<_> = self.all.lock().values().cloned().chain(forgotten).collect();
        let taken = all.into_iter().map(|endpoint| {
            let (spells, sent_bytes) = endpoint.take_activity(at);
            let EndpointRef { tenant, branch } = endpoint.name();
            let timeline = served::split(&branch).0.to_owned();
            Taken { tenant, timeline, spells, sent_bytes }
        });
        taken.filter(|taken| !taken.spells.is_empty() || taken.sent_bytes > 0).collect()
    }

    /// Whether sessions end of computes of a tenant that were forgotten: their clients may be sent more than
    /// was taken.
    pub(crate) fn ends_sessions(&self, tenant: &str) -> bool {
        let forgotten = self.forgotten.lock();
        forgotten.iter().flatten().any(|endpoint| endpoint.name().tenant == tenant)
    }

    /// Stops every compute.
    pub async fn stop_all(&self) {
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        join_all(all.iter().map(|endpoint| endpoint.end())).await;
    }

    /// Lets a client of the proxy in to a branch's compute, where that accepts connections.
    pub(crate) fn enter(&self, tenant: &str, branch: &str) -> Option<Awake> {
        let endpoint = self.known(tenant, branch).ok()?;
        let (port, served, stay) = endpoint.enter()?;
        Some(self.awake(&endpoint, port, &served, Box::new(stay)))
    }

    /// Notes a stage of a compute's start.
    pub(crate) fn note(&self, tenant: &str, branch: &str, stage: &str, took: Duration) {
        if let Ok(endpoint) = self.known(tenant, branch) {
            endpoint.note(stage, took);
        }
    }

    /// Leaves a superuser's session with a compute that has just been started, for whoever asks first.
    pub(crate) fn leave_superuser(&self, tenant: &str, branch: &str, session: Client) {
        let Ok(endpoint) = self.known(tenant, branch) else { return };
        endpoint.set_superuser(Some(session));
        tokio::spawn(async move {
            tokio::time::sleep(LEFT_MAX).await;
            endpoint.set_superuser(None);
        });
    }

    /// The session that was left.
    pub(crate) fn take_superuser(&self, tenant: &str, branch: &str) -> Option<Client> {
        self.known(tenant, branch).ok()?.set_superuser(None)
    }

    /// The endpoints whose computes have no client, and how to ask each compute whether there is other
    /// work.
    pub(crate) fn unused(&self) -> Vec<(Arc<Endpoint>, Awake)> {
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        let unused = all.into_iter().filter_map(|endpoint| {
            let (port, served) = endpoint.unused()?;
            let awake = self.awake(&endpoint, port, &served, Box::new(()));
            Some((endpoint, awake))
        });
        unused.collect()
    }

    /// A running compute: all of them are on this machine.
    fn awake(
        &self,
        endpoint: &Endpoint,
        port: u16,
        served: &Served,
        stay: Box<dyn Any + Send + Sync>,
    ) -> Awake {
        let sockets = self.sockets(served);
        let sent = endpoint.sent.clone();
        Awake { way: Way::socket(&sockets, port), sockets, port, sent, stay }
    }

    /// The folder of a compute's Unix socket.
    pub(crate) fn sockets(&self, served: &Served) -> PathBuf {
        endpoint::sockets(&self.config.computes.folder, served)
    }

    /// Where a compute's Postgres logs, and where its log is after the compute's end.
    pub(crate) fn postgres_logs(&self, served: &Served) -> [PathBuf; 2] {
        let folder = self.config.computes.folder.join(served.folder_name());
        [folder.join(child::POSTGRES_LOG), child::kept_log(&self.log(served))]
    }

    /// Where slots and statistics of a timeline's computes are kept.
    fn kept(&self, timeline: TimelineId) -> PathBuf {
        self.config.computes.folder.join(KEPT).join(timeline.to_string())
    }

    /// Where a compute logs.
    fn log(&self, served: &Served) -> PathBuf {
        self.config.computes.folder.join(format!("{}.log", served.folder_name()))
    }

    /// The endpoint of a branch that has one. The pageserver is not asked: a compute can be stopped
    /// while the pageserver is gone, and after its branch was deleted.
    fn known(&self, tenant: &str, branch: &str) -> Result<Arc<Endpoint>, Error> {
        let all = self.all.lock();
        // A deleted tenant's name may have been taken by another: the one that runs is meant.
        let found = all
            .values()
            .filter(|endpoint| endpoint.is_of(tenant, branch))
            .max_by_key(|endpoint| endpoint.living().is_some());
        let none = || Error::NotFound(format!("branch {tenant}/{branch} has no compute"));
        found.cloned().ok_or_else(none)
    }

    fn is_known(&self, key: &Key, endpoint: &Arc<Endpoint>) -> bool {
        self.all.lock().get(key).is_some_and(|known| Arc::ptr_eq(known, endpoint))
    }

    /// The endpoint of a branch, or of a moment of it, made now where there is none.
    fn endpoint(
        &self,
        tenant: &str,
        branch: &Branch,
        served: &Served,
        port: Option<u16>,
    ) -> Result<(Key, Arc<Endpoint>), Error> {
        let mut all = self.all.lock();
        let key = match served.what {
            What::Moment(_) => (branch.tenant_id, served.to_string()),
            What::Head | What::Standby(_) => (branch.tenant_id, served.name(&branch.name)),
        };
        if let Some(endpoint) = all.get(&key) {
            return Ok((key, endpoint.clone()));
        }
        room::check(tenant, branch, served, all.values())?;
        let given: Vec<u16> = all.values().map(|endpoint| endpoint.port()).collect();
        let host = self.config.computes.host;
        let port = port.map_or_else(|| self.config.computes.ports.free(host, &given), Ok)?;
        let endpoint = Arc::new(Endpoint::new(Place {
            region: self.config.id.clone(),
            tenant: tenant.to_owned(),
            branch: served.name(&branch.name),
            tenant_id: branch.tenant_id,
            served: served.clone(),
            computes: self.config.computes.folder.clone(),
            host,
            port,
        }));
        all.insert(key.clone(), endpoint.clone());
        Ok((key, endpoint))
    }

    async fn begin(
        &self,
        endpoint: &Arc<Endpoint>,
        plan: Plan,
        asked: Instant,
    ) -> Result<Compute, Error> {
        ports::check_free(self.config.computes.host, plan.port)?;
        let group = self.group(&plan)?;
        let spec = self.spec(endpoint.tenant_id(), &plan, group);
        let log = spec.log.clone();
        let child = Child::spawn(spec)?;
        let EndpointRef { tenant, branch } = endpoint.name();
        let failed = |reason: Option<String>| Error::ComputeFailed {
            tenant,
            branch,
            reason: reason.unwrap_or_else(|| "it was stopped meanwhile".to_owned()),
            log,
        };
        let begun = match self.health.wait(endpoint.begin(plan, child, asked)).await {
            Ok(begun) => begun,
            Err(reason) => {
                endpoint.give_up().await;
                return Err(self.health.unavailable(reason));
            }
        };
        match begun {
            Phase::Ended { reason: Some(reason), no_checkpoint: true } => {
                Err(Error::NoCheckpoint(reason))
            }
            Phase::Ended { reason, .. } => {
                METRICS.start_failures.inc();
                Err(failed(reason))
            }
            Phase::Starting | Phase::Ready { .. } | Phase::Ending => {
                METRICS.start_seconds.observe(asked.elapsed().as_secs_f64());
                Ok(endpoint.view())
            }
        }
    }

    /// The control group of a compute that has limits; how much memory it may take counts from the
    /// beginning.
    fn group(&self, plan: &Plan) -> Result<Option<Group>, Error> {
        let Some(limits) = plan.limits else { return Ok(None) };
        let name = plan.served.folder_name();
        let made = self.cgroups.make(&name).and_then(|group| {
            group.set_memory(limits)?;
            Ok(group)
        });
        let failed =
            |reason| Error::Folder { path: format!("the control group {name}").into(), reason };
        made.map(Some).map_err(failed)
    }

    /// Holds a branch's compute to these limits from now on, if it runs, and those of its moments.
    pub(crate) fn set_limits(&self, tenant: &str, branch: &str, units: f64) {
        let mut moments = self.beside(tenant, branch);
        moments.retain(|endpoint| endpoint.served().is_moment());
        for endpoint in self.known(tenant, branch).into_iter().chain(moments) {
            endpoint.set_limits(Limits::new(units));
        }
    }

    fn spec(&self, tenant: TenantId, plan: &Plan, group: Option<Group>) -> Spec {
        let config = &self.config;
        let (served, port) = (&plan.served, plan.port);
        let folder = config.computes.folder.join(served.folder_name());
        let safekeepers: Vec<String> =
            config.safekeepers.iter().map(|address| address.to_string()).collect();
        let pageservers: Vec<String> =
            self.pageserver.pages_for(tenant).iter().map(|address| address.to_string()).collect();
        let mut arguments = vec!["--json".to_owned(), "compute".to_owned(), "run".to_owned()];
        let options = [
            ("--timeline", format!("{tenant}/{}", served.timeline)),
            ("--pageserver", pageservers.join(",")),
            ("--safekeepers", safekeepers.join(",")),
            ("--folder", folder.display().to_string()),
            ("--listen", std::net::SocketAddr::new(config.computes.host, port).to_string()),
        ];
        for (option, value) in options {
            arguments.extend([option.to_owned(), value]);
        }
        let mut keep = None;
        match &served.what {
            What::Head => {
                let kept = self.kept(served.timeline);
                arguments.extend(["--keep".to_owned(), kept.display().to_string()]);
                keep = Some(kept);
            }
            What::Moment(lsn) => arguments.extend(["--at".to_owned(), lsn.clone()]),
            What::Standby(_) => arguments.push("--follow".to_owned()),
        }
        if let Some(checkpoint) = &plan.checkpoint {
            arguments.extend(["--checkpoint".to_owned(), checkpoint.clone()]);
        }
        for folder in group.iter().flat_map(Group::folders) {
            arguments.extend(["--cgroup".to_owned(), folder.display().to_string()]);
        }
        // What comes later in postgresql.conf goes before.
        let sized = plan.limits.map(Limits::settings).unwrap_or_default();
        for (name, value) in sized.iter().chain(&plan.settings) {
            arguments.extend(["--set".to_owned(), format!("{name}={value}")]);
        }
        arguments.push("--until-stdin-ends".to_owned());
        arguments.extend(config.computes.arguments.iter().cloned());
        if let Some(file) = self.pageserver.trust().file() {
            arguments.extend(["--tls-ca".to_owned(), file.display().to_string()]);
        }
        let tokens = config.tokens.as_ref().map(|tokens| tokens.for_compute(tenant));
        if tokens.is_some() {
            arguments.extend(["--auth-token".to_owned(), "-".to_owned()]);
        }
        if let Some(user) = config.computes.users.of(port) {
            arguments.extend(["--user".to_owned(), user.to_string()]);
        }
        let log = self.log(served);
        Spec { executable: self.executable.clone(), arguments, tokens, folder, log, keep, group }
    }
}

fn head_key(branch: &Branch) -> Key {
    (branch.tenant_id, branch.name.clone())
}

fn running_already(endpoint: &Endpoint, port: Option<u16>) -> Result<Compute, Error> {
    let compute = endpoint.view();
    match port {
        Some(port) if port != compute.port => Err(Error::Conflict(format!(
            "the compute of {}/{} runs on port {}; stop it before you start it on port {port}",
            compute.tenant, compute.branch, compute.port
        ))),
        _ => Ok(compute),
    }
}
