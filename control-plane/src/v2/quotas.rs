//! Projects that used up what they may: their computes are suspended and not started, until their
//! quota is raised or counts anew.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use rusqlite::Connection;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    context::{Context, operation},
    error::ApiError,
    time::{self, now},
};
use crate::{
    EndpointRef, Region, State as ComputeState,
    catalog::{
        self, Time,
        branches::{self, Branch},
        consumption::{self, Hour, Used},
        endpoints,
        operations::{self, Action, Status},
        projects::{self, Project},
    },
    metering::{
        period::month_of,
        quota::{Quota, State},
    },
    served,
};

/// How often it is looked for computes that are to be suspended.
const EVERY: Duration = Duration::from_secs(1);
/// How many are suspended at the same time.
const AT_ONCE: usize = 16;

/// How far a project used up one of its quotas.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaState {
    /// Which, as `settings.quota` calls it.
    pub quota: String,
    /// How much there may be.
    pub limit: u64,
    /// How much there is: this month, or in the largest branch.
    pub used: u64,
    /// Nothing is left of it: computes are suspended, and not started.
    pub exceeded: bool,
    /// Why that is so, and what mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it counts anew; absent where it never does by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<String>,
}

/// How far a project used up what it may.
pub(super) struct Standing {
    quota: Quota,
    used: Used,
    /// Bytes that each timeline holds.
    held_bytes: BTreeMap<String, u64>,
    now: Time,
}

impl Standing {
    /// A project's, now. One without quotas costs nothing to look at.
    pub(super) fn of(
        catalog: &Connection,
        project: &Project,
        now: Time,
    ) -> Result<Standing, catalog::Error> {
        // What was written down by an earlier version may be no quota; it bounds nothing.
        let quota = Quota::of_settings(&project.settings).unwrap_or_default();
        if quota.is_none() {
            return Ok(Standing { quota, used: Used::default(), held_bytes: BTreeMap::new(), now });
        }
        let used = consumption::used_since(catalog, &project.id, month_of(now).0)?;
        let reading = consumption::reading(catalog, &project.id)?.unwrap_or_default();
        Ok(Standing { quota, used, held_bytes: reading.held_bytes, now })
    }

    /// The standing of the project of this id.
    pub(super) fn find(
        catalog: &Connection,
        project: &str,
        now: Time,
    ) -> Result<Standing, catalog::Error> {
        Standing::of(catalog, &projects::get(catalog, project)?, now)
    }

    /// The first hour of the month that is meant.
    pub(super) fn month(&self) -> Hour {
        month_of(self.now).0
    }

    /// Which bound keeps a branch, that stands for this timeline, from having a compute.
    pub(super) fn refusal(&self, timeline: &str) -> Option<State> {
        let held = self.held_bytes.get(timeline).copied().unwrap_or_default();
        self.quota.states(self.used, held, self.now).into_iter().find(State::is_used_up)
    }

    /// Every bound, as the API shows it.
    pub(super) fn view(&self) -> Vec<QuotaState> {
        let largest = self.held_bytes.values().copied().max().unwrap_or_default();
        let states = self.quota.states(self.used, largest, self.now);
        let view = |state: State| QuotaState {
            quota: state.meter.field().to_owned(),
            limit: state.limit,
            used: state.used,
            exceeded: state.is_used_up(),
            reason: state.is_used_up().then(|| state.sentence()),
            resets_at: state.lifted_at.map(time::format),
        };
        states.into_iter().map(view).collect()
    }
}

impl Context {
    /// Refuses a compute to a branch whose project has used up what it may.
    pub(super) async fn refuse_used_up(
        &self,
        project: &str,
        timeline: &str,
    ) -> Result<(), ApiError> {
        let (project, timeline) = (project.to_owned(), timeline.to_owned());
        let read = self
            .catalog
            .read(move |catalog| Ok(Standing::find(catalog, &project, now())?.refusal(&timeline)));
        match read.await? {
            Some(state) => Err(ApiError::quota(&state)),
            None => Ok(()),
        }
    }
}

/// Suspends what of a region is above its project's quota, until it is told to stop.
pub(super) async fn enforce(
    (context, region): (Arc<Context>, Arc<Region>),
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
        let round = async {
            let due = due(&context, &region).await?;
            stream::iter(due)
                .for_each_concurrent(AT_ONCE, async |(due, state)| {
                    if let Err(error) = suspend_due(&context, &due, state).await {
                        let error = error.message;
                        tracing::warn!(?due, error, "a compute above its quota still runs");
                    }
                })
                .await;
            Ok::<(), ApiError>(())
        };
        if let Err(error) = round.await {
            tracing::warn!(error = error.message, "quotas are looked at again");
        }
    }
}

/// A compute that runs and may not.
#[derive(Debug)]
enum Due {
    /// An endpoint's, by its id.
    Endpoint(String),
    /// That of a moment of a branch of the project, by its name.
    Moment(EndpointRef),
}

/// The computes of a region that run and may not, and why.
async fn due(context: &Context, region: &Region) -> Result<Vec<(Due, State)>, ApiError> {
    let mut running = region.endpoints.list();
    running.retain(|compute| compute.state == ComputeState::Running);
    if running.is_empty() {
        return Ok(Vec::new());
    }
    let read = context.catalog.read(move |catalog| {
        let mut due = Vec::new();
        let mut standings: BTreeMap<String, Option<Standing>> = BTreeMap::new();
        for compute in running {
            if !standings.contains_key(&compute.tenant) {
                let project = projects::find(catalog, &compute.tenant)?;
                let standing =
                    project.map(|project| Standing::of(catalog, &project, now())).transpose()?;
                standings.insert(compute.tenant.clone(), standing);
            }
            let standing = standings.get(&compute.tenant).and_then(Option::as_ref);
            let (timeline, word) = served::split(&compute.branch);
            let Some(state) = standing.and_then(|it| it.refusal(timeline)) else { continue };
            if let Some(id) = served::standby(word) {
                due.extend(endpoints::find(catalog, id)?.map(|it| (Due::Endpoint(it.id), state)));
                continue;
            }
            if word.is_some() {
                let of = EndpointRef { tenant: compute.tenant, branch: compute.branch };
                due.push((Due::Moment(of), state));
                continue;
            }
            let branch = branches::of_timeline(catalog, &compute.tenant, timeline)?;
            let Some(Branch { id, .. }) = branch else { continue };
            if let Some(endpoint) = endpoints::of_branch(catalog, &id)? {
                due.push((Due::Endpoint(endpoint.id), state));
            }
        }
        Ok(due)
    });
    Ok(read.await?)
}

async fn suspend_due(context: &Context, due: &Due, state: State) -> Result<(), ApiError> {
    match due {
        Due::Endpoint(id) => suspend(context, id, state).await,
        // It is no endpoint's, so there is no operation of it.
        Due::Moment(EndpointRef { tenant, branch }) => {
            context.region(tenant).endpoints.stop(tenant, branch).await?;
            Ok(())
        }
    }
}

/// Suspends a compute; the operation says why.
async fn suspend(context: &Context, endpoint: &str, state: State) -> Result<(), ApiError> {
    let (endpoint, branch) = context.endpoint(endpoint).await?;
    let (project, status) = (&endpoint.project, Status::Running);
    let action = Action::SuspendCompute;
    let new = operation(project, Some(&branch.id), Some(&endpoint.id), action, status);
    let new =
        context.catalog.write(move |catalog| operations::insert(catalog, &new, now())).await?;
    let suspended = context.suspend(&endpoint.id).await;
    let (status, said) = match &suspended {
        Ok(()) => (Status::Finished, state.sentence()),
        Err(error) => (Status::Failed, error.message.clone()),
    };
    tracing::info!(endpoint = endpoint.id, quota = state.meter.field(), "suspended by a quota");
    context
        .catalog
        .write(move |catalog| operations::set_status(catalog, &new.id, status, Some(&said), now()))
        .await?;
    suspended
}

/// Takes over what is said of quotas, and leaves the rest of them.
pub(super) fn merge_quota(settings: &serde_json::Value, change: &mut serde_json::Value) {
    let known = settings.get("quota").and_then(serde_json::Value::as_object);
    let said = change.get_mut("quota").and_then(serde_json::Value::as_object_mut);
    let (Some(known), Some(said)) = (known, said) else { return };
    for (name, bound) in known {
        said.entry(name.clone()).or_insert_with(|| bound.clone());
    }
}

/// Refuses settings whose quota is none.
pub(super) fn check_quota(settings: Option<&serde_json::Value>) -> Result<(), ApiError> {
    let Some(settings) = settings else { return Ok(()) };
    Quota::of_settings(settings).map(drop).map_err(ApiError::invalid)
}
