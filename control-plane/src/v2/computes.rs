//! The computes behind endpoints: woken, suspended, and brought up to what the catalog says.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio_postgres::Client;

use super::{
    context::Context,
    error::ApiError,
    postgres::{Postgres, SqlError},
    time::now,
};
use crate::{
    Compute, EndpointRef, Settings, StartRequest, State,
    catalog::{
        branches::{self, Branch},
        databases,
        endpoints::{self, Endpoint, Kind},
        operations::{self, Action, Status},
        roles::{self, Change, Role},
    },
    served::{self, Served, What},
};

/// How long a Postgres may take to say which roles and databases it has.
const LOOK_MAX: Duration = Duration::from_secs(30);

impl Context {
    /// Wakes an endpoint's compute, unless it is awake. What was changed while it slept is applied
    /// before this answers.
    pub(super) async fn wake(&self, endpoint: &str) -> Result<(), ApiError> {
        let (endpoint, branch) = self.endpoint(endpoint).await?;
        let _turn = self.turn(&branch.id).await;
        // A restore may have come before.
        let (endpoint, branch) = self.endpoint(&endpoint.id).await?;
        self.start(&endpoint, &branch).await
    }

    /// Suspends an endpoint's compute, if it runs.
    pub(super) async fn suspend(&self, endpoint: &str) -> Result<(), ApiError> {
        let (endpoint, branch) = self.endpoint(endpoint).await?;
        let _turn = self.turn(&branch.id).await;
        let (endpoint, branch) = self.endpoint(&endpoint.id).await?;
        self.stop(&endpoint, &branch).await
    }

    /// An endpoint and its branch.
    pub(super) async fn endpoint(&self, id: &str) -> Result<(Endpoint, Branch), ApiError> {
        let id = id.to_owned();
        let found = self.catalog.read(move |catalog| {
            let endpoint = endpoints::find(catalog, &id)?.ok_or_else(|| {
                crate::catalog::Error::NotFound(format!("there is no endpoint {id:?}"))
            })?;
            let branch = branches::get(catalog, &endpoint.project, &endpoint.branch)?;
            Ok((endpoint, branch))
        });
        Ok(found.await?)
    }

    /// [`Context::wake`], by who has the branch's turn.
    async fn start(&self, endpoint: &Endpoint, branch: &Branch) -> Result<(), ApiError> {
        endpoints::refuse_disabled(endpoint)?;
        self.refuse_used_up(&branch.project, &branch.timeline).await?;
        match endpoint.kind {
            Kind::ReadWrite => self.start_head(endpoint, branch).await,
            Kind::ReadOnly => self.start_standby(endpoint, branch).await,
        }
    }

    async fn start_head(&self, endpoint: &Endpoint, branch: &Branch) -> Result<(), ApiError> {
        if let Some(compute) = self.running(branch) {
            return self.apply_at_start(branch, &compute).await;
        }
        self.ensure_tenant(&branch.project).await?;
        let region = self.region(&branch.project);
        let compute = region.endpoints.start(&start_request(endpoint, branch)).await?;
        let began = Instant::now();
        self.apply_at_start(branch, &compute).await?;
        let applied = began.elapsed();
        let session = self.take_over(branch, &compute).await?;
        region.endpoints.leave_superuser(&branch.project, &branch.timeline, session);
        let note = |stage, took| {
            region.endpoints.note(&branch.project, &branch.timeline, stage, took);
        };
        note("control plane: apply changes", applied);
        note("control plane: look at roles", began.elapsed() - applied);
        let id = endpoint.id.clone();
        let written =
            self.catalog.write(move |catalog| endpoints::set_started(catalog, &id, now()));
        Ok(written.await?)
    }

    /// Starts a compute that follows the branch's own. That one is woken where it has something to
    /// write first: changes that wait for it, or a checkpoint to begin at.
    async fn start_standby(&self, endpoint: &Endpoint, branch: &Branch) -> Result<(), ApiError> {
        if self.runs(endpoint, branch) {
            return Ok(());
        }
        self.ensure_tenant(&branch.project).await?;
        let id = branch.id.clone();
        if !self.catalog.read(move |catalog| roles::waiting(catalog, &id)).await?.is_empty() {
            self.wake_head(branch).await?;
        }
        let request = start_request(endpoint, branch);
        let computes = &self.region(&branch.project).endpoints;
        match computes.start_only(&request).await {
            Err(crate::Error::NoCheckpoint(_)) => {
                self.wake_head(branch).await?;
                computes.start_only(&request).await?;
            }
            started => drop(started?),
        }
        let id = endpoint.id.clone();
        let written =
            self.catalog.write(move |catalog| endpoints::set_started(catalog, &id, now()));
        Ok(written.await?)
    }

    /// Wakes a branch's own compute for what needs it, by who has the branch's turn: as its endpoint
    /// wants it, where it has one that may be started.
    async fn wake_head(&self, branch: &Branch) -> Result<(), ApiError> {
        let id = branch.id.clone();
        let found = self.catalog.read(move |catalog| endpoints::of_branch(catalog, &id)).await?;
        if let Some(endpoint) = found.filter(|endpoint| !endpoint.disabled) {
            return self.start_head(&endpoint, branch).await;
        }
        let request = StartRequest::of(branch.project.clone(), branch.timeline.clone());
        let compute = self.region(&branch.project).endpoints.start(&request).await?;
        self.apply_at_start(branch, &compute).await
    }

    /// The branch's own compute where a change of what its Postgres holds is to be applied now: where
    /// it runs, or where one runs that follows it. By who has the branch's turn.
    pub(super) async fn to_change(&self, branch: &Branch) -> Result<Option<Compute>, ApiError> {
        if let Some(compute) = self.running(branch) {
            return Ok(Some(compute));
        }
        let computes = &self.region(&branch.project).endpoints;
        if !computes.has_standby(&branch.project, &branch.timeline) {
            return Ok(None);
        }
        let id = branch.id.clone();
        let found = self.catalog.read(move |catalog| endpoints::of_branch(catalog, &id)).await?;
        let plain = || StartRequest::of(branch.project.clone(), branch.timeline.clone());
        let request = found.map_or_else(plain, |endpoint| start_request(&endpoint, branch));
        Ok(Some(computes.start(&request).await?))
    }

    /// [`Context::suspend`], by who has the branch's turn.
    pub(super) async fn stop(&self, endpoint: &Endpoint, branch: &Branch) -> Result<(), ApiError> {
        let compute = self.compute_of(endpoint, branch);
        let Some(compute) = compute.filter(|compute| compute.state == State::Running) else {
            return Ok(());
        };
        // What was made by SQL is known afterwards; a Postgres that does not answer is stopped too.
        if endpoint.kind == Kind::ReadWrite
            && let Err(error) = self.take_over(branch, &compute).await
        {
            tracing::info!(branch = branch.id, error = error.message, "roles were not looked at");
        }
        let region = self.region(&branch.project);
        region.endpoints.stop(&branch.project, &compute_name(endpoint, branch)).await?;
        let id = endpoint.id.clone();
        let written =
            self.catalog.write(move |catalog| endpoints::set_suspended(catalog, &id, now()));
        Ok(written.await?)
    }

    /// Stops the compute of an endpoint that is about to be deleted, by who has the branch's turn.
    pub(super) async fn end_compute(
        &self,
        endpoint: &Endpoint,
        branch: &Branch,
    ) -> Result<(), ApiError> {
        self.stop(endpoint, branch).await?;
        match endpoint.kind {
            Kind::ReadWrite => Ok(()),
            Kind::ReadOnly => self.forget(&branch.project, &compute_name(endpoint, branch)).await,
        }
    }

    /// Ends the compute of a timeline that no branch stands for any more.
    pub(super) async fn forget(&self, project: &str, timeline: &str) -> Result<(), ApiError> {
        match self.region(project).endpoints.forget(project, timeline).await {
            Ok(_) | Err(crate::Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The branch's own compute, if it accepts connections.
    pub(super) fn running(&self, branch: &Branch) -> Option<Compute> {
        self.compute(branch).filter(|compute| compute.state == State::Running)
    }

    /// An endpoint's compute, whatever it does.
    pub(super) fn compute_of(&self, endpoint: &Endpoint, branch: &Branch) -> Option<Compute> {
        let region = self.region(&branch.project);
        region.endpoints.show(&branch.project, &compute_name(endpoint, branch)).ok()
    }

    /// Whether an endpoint's compute accepts connections.
    pub(super) fn runs(&self, endpoint: &Endpoint, branch: &Branch) -> bool {
        let is_running = |compute: Compute| compute.state == State::Running;
        self.compute_of(endpoint, branch).is_some_and(is_running)
    }

    /// The branch's own compute, whatever it does.
    pub(super) fn compute(&self, branch: &Branch) -> Option<Compute> {
        self.region(&branch.project).endpoints.show(&branch.project, &branch.timeline).ok()
    }

    /// Applies the changes that wait for a branch's Postgres, by who has the branch's turn. One
    /// that Postgres refuses is given up, visibly; it must not keep the branch from starting.
    async fn apply_at_start(&self, branch: &Branch, compute: &Compute) -> Result<(), ApiError> {
        loop {
            let Err((number, error)) = self.apply(branch, compute).await? else { return Ok(()) };
            let given_up = super::context::operation(
                &branch.project,
                Some(&branch.id),
                None,
                Action::ApplyConfig,
                Status::Running,
            );
            self.catalog
                .write(move |catalog| {
                    roles::done(catalog, number)?;
                    let operation = operations::insert(catalog, &given_up, now())?;
                    let status = Status::Failed;
                    operations::set_status(catalog, &operation.id, status, Some(&error), now())
                })
                .await?;
        }
    }

    /// Applies the changes that wait, in order, up to the first that Postgres refuses: its number,
    /// and what Postgres said.
    pub(super) async fn apply(
        &self,
        branch: &Branch,
        compute: &Compute,
    ) -> Result<Result<(), (i64, String)>, ApiError> {
        let id = branch.id.clone();
        let waiting = self.catalog.read(move |catalog| roles::waiting(catalog, &id)).await?;
        if waiting.is_empty() {
            return Ok(Ok(()));
        }
        let postgres = Postgres { socket_folder: &compute.sockets, port: compute.port };
        for (number, change) in waiting {
            let verifier = match &change {
                Change::First { role, .. }
                | Change::Role { name: role }
                | Change::Verifier { name: role } => self.known_verifier(branch, role).await?,
                _ => None,
            };
            match postgres.carry_out(&change, verifier.as_deref()).await {
                Ok(()) => {
                    if change == Change::NoRows {
                        // Whoever is let in could come back to what was here before.
                        let region = self.region(&branch.project);
                        region.storage.forget_past(&branch.project, &branch.timeline).await?;
                    }
                    self.catalog.write(move |catalog| roles::done(catalog, number)).await?;
                }
                // Whoever were let in would see what there is not to be.
                Err(SqlError::Refused(said)) if change == Change::NoRows => {
                    let message = format!("the branch's rows cannot be removed: {said}");
                    return Err(ApiError::compute(message));
                }
                Err(SqlError::Refused(said)) => return Ok(Err((number, said))),
                Err(error) => return Err(ApiError::unavailable(error.to_string())),
            }
        }
        Ok(Ok(()))
    }

    /// Takes over which roles and databases a running Postgres has; the session that saw them.
    pub(super) async fn take_over(
        &self,
        branch: &Branch,
        compute: &Compute,
    ) -> Result<Client, ApiError> {
        let unreachable = |error: SqlError| ApiError::unavailable(error.to_string());
        let postgres = Postgres { socket_folder: &compute.sockets, port: compute.port };
        // One whose region hangs waits for pages that do not come.
        let looked = tokio::time::timeout(LOOK_MAX, postgres.look()).await;
        let looked = looked.map_err(|_| {
            ApiError::unavailable("the branch's Postgres takes questions and does not answer")
        })?;
        let (mut seen, databases, session) = looked.map_err(unreachable)?;
        for role in &mut seen {
            // A moment before its password was first set: it has the one that it got.
            if role.login && role.verifier.is_none() {
                let Some(verifier) = self.known_verifier(branch, &role.name).await? else {
                    continue;
                };
                postgres.set_verifier(&role.name, &verifier).await.map_err(unreachable)?;
                role.verifier = Some(verifier);
            }
        }
        let id = branch.id.clone();
        let taken_over = self.catalog.write(move |catalog| {
            if !roles::waiting(catalog, &id)?.is_empty() {
                // What waits is not in Postgres yet.
                return Ok(());
            }
            roles::take_over(catalog, &id, &seen, now())?;
            databases::take_over(catalog, &id, &databases, now())
        });
        taken_over.await?;
        Ok(session)
    }

    /// A role's verifier as the catalog has it, made now where only its password is known.
    async fn known_verifier(
        &self,
        branch: &Branch,
        role: &str,
    ) -> Result<Option<String>, ApiError> {
        let (id, name) = (branch.id.clone(), role.to_owned());
        let found = self.catalog.read(move |catalog| roles::find(catalog, &id, &name)).await?;
        let Some(role) = found.filter(|role| role.login) else { return Ok(None) };
        let Some(password) = role.password.clone() else { return Ok(role.verifier) };
        let made = move || postgres_protocol::password::scram_sha_256(password.as_bytes());
        let verifier = tokio::task::spawn_blocking(made)
            .await
            .map_err(|_| ApiError::unavailable("the control plane ends"))?;
        let project = branch.project.clone();
        let kept = self.catalog.write(move |catalog| {
            if roles::set_verifier(catalog, &project, &role, &verifier)? {
                return Ok(Some(verifier));
            }
            // Somebody else was faster, or the password was reset.
            let Role { branch, name, .. } = &role;
            Ok(roles::find(catalog, branch, name)?.and_then(|role| role.verifier))
        });
        Ok(kept.await?)
    }

    /// After how many seconds of nobody's use each of these timelines' computes is suspended, as its
    /// endpoint says: `0` for the server's default, also where it is no project's; `-1` for never.
    pub(crate) async fn suspend_timeouts(
        &self,
        of: Vec<EndpointRef>,
    ) -> Result<Vec<i64>, ApiError> {
        let read = self.catalog.read(move |catalog| {
            let said = |of: &EndpointRef| {
                let endpoint = endpoint_of(catalog, of)?;
                Ok(endpoint.map_or(0, |endpoint| endpoint.suspend_timeout_seconds))
            };
            of.iter().map(said).collect()
        });
        Ok(read.await?)
    }

    /// Writes down that the compute of a timeline was suspended because nobody used it.
    pub(crate) async fn was_suspended(&self, of: EndpointRef) {
        let written = self.catalog.write(move |catalog| match endpoint_of(catalog, &of)? {
            Some(endpoint) => endpoints::set_suspended(catalog, &endpoint.id, now()),
            None => Ok(()),
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "when a compute was suspended could not be written down");
        }
    }

    /// Where the log of an endpoint's Postgres may be, the compute's that runs before the one's that ran.
    pub(super) async fn postgres_logs(
        &self,
        endpoint: &Endpoint,
        branch: &Branch,
    ) -> Result<Vec<PathBuf>, ApiError> {
        let region = self.region(&branch.project);
        let timeline = match self.compute_of(endpoint, branch) {
            Some(compute) => compute.timeline_id,
            // None since this process began: whoever has the timeline knows its id.
            None => {
                let pageservers = region.endpoints.pageservers();
                match pageservers.branch(&branch.project, &branch.timeline).await {
                    Ok((_, found)) => found.timeline_id,
                    Err(crate::Error::NotFound(_)) => return Ok(Vec::new()),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let what = match endpoint.kind {
            Kind::ReadWrite => What::Head,
            Kind::ReadOnly => What::Standby(endpoint.id.clone()),
        };
        Ok(region.endpoints.postgres_logs(&Served { timeline, what }).into())
    }
}

/// What the compute of an endpoint is called.
pub(super) fn compute_name(endpoint: &Endpoint, branch: &Branch) -> String {
    match endpoint.kind {
        Kind::ReadWrite => branch.timeline.clone(),
        Kind::ReadOnly => served::standby_of(&branch.timeline, &endpoint.id),
    }
}

fn start_request(endpoint: &Endpoint, branch: &Branch) -> StartRequest {
    StartRequest {
        settings: Some(pg_settings(endpoint)),
        milli_cu: endpoints::milli_cu(endpoint),
        units: Some(endpoint.max_cu),
        ..StartRequest::of(branch.project.clone(), compute_name(endpoint, branch))
    }
}

/// The endpoint that leads to a compute; none leads to that of a tenant which is no project.
fn endpoint_of(
    catalog: &rusqlite::Connection,
    of: &EndpointRef,
) -> Result<Option<Endpoint>, crate::catalog::Error> {
    if let Some(id) = served::standby(served::split(&of.branch).1) {
        return endpoints::find(catalog, id);
    }
    match branches::of_timeline(catalog, &of.tenant, &of.branch)? {
        Some(branch) => endpoints::of_branch(catalog, &branch.id),
        None => Ok(None),
    }
}

/// What of an endpoint's settings goes to Postgres.
pub(super) fn pg_settings(endpoint: &Endpoint) -> Settings {
    let said = endpoint.settings.get("pg_settings").and_then(serde_json::Value::as_object);
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    said.map(|said| said.iter().map(|(name, value)| (name.clone(), text(value))).collect())
        .unwrap_or_default()
}
