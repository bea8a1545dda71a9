//! What goes on in the background, and what is put right at the start.
//!
//! Everything that is to be done stands in the catalog; this only carries it out, and again until
//! it succeeds.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::{
    branches, context::Context, error::ApiError, project_views::DELETED_KEPT,
    storage::StorageError, time::now,
};
use crate::{
    Region,
    catalog::{
        Time, branch_consumption, branches as branch_rows,
        consumption::{self, Hour},
        operations::{self, Action, Status},
        projects, retries, templates, timelines,
    },
    metering::period::{hour_of, month_of},
};

/// How often it looks without being woken, for what expires.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it waits after a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// Tenants that are made at the same time.
const TENANTS_AT_ONCE: usize = 8;
/// Projects or timelines that are looked at in one round.
const ROUND_MAX: usize = 256;
/// How long operations that are over, and requests' keys, are kept: microseconds.
const OPERATIONS_KEPT: Time = 30 * 24 * 3600 * 1_000_000;
const RETRIES_KEPT: Time = 24 * 3600 * 1_000_000;
/// How long hours of consumption are kept: 400 days.
const HOURS_KEPT: Hour = 400 * 24;
/// How often those are pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Does what is to be done for a region's projects, until it is told to stop: first what was
/// interrupted.
pub(super) async fn run(
    (context, region): (Arc<Context>, Arc<Region>),
    interrupted: Vec<Interrupted>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = finish_branches(&context, interrupted) => {}
        () = stop.cancelled() => return,
    }
    loop {
        let outcome = tokio::select! {
            outcome = round(&context, &region) => outcome,
            () = stop.cancelled() => return,
        };
        let wait = match outcome {
            Ok(true) => continue,
            Ok(false) => PERIOD,
            Err(error) => {
                let (region, error) = (&region.id, error.message);
                tracing::warn!(%region, error, "work in the background is tried again");
                PAUSE
            }
        };
        tokio::select! {
            () = region.work.notified() => {}
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One round; whether there may be more to do at once. One thing that fails keeps no other from
/// being done; the last failure is told.
async fn round(context: &Arc<Context>, region: &Region) -> Result<bool, ApiError> {
    let outcomes = [
        make_tenants(context, region).await,
        remove_timelines(context, region).await,
        remove_projects(context, region).await.map(|()| false),
        expire_branches(context, region).await.map(|()| false),
    ];
    let mut more = false;
    let mut failure = None;
    for outcome in outcomes {
        match outcome {
            Ok(did_some) => more |= did_some,
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(more), Err)
}

/// Forgets what is kept for a while only, until it is told to stop.
pub(super) async fn prune(context: Arc<Context>, stop: CancellationToken) {
    let mut pruned_in = 0;
    loop {
        let before = now();
        let hour = hour_of(before);
        let is_new_hour = hour != pruned_in;
        let pruned = context.catalog.write(move |catalog| {
            operations::prune(catalog, before - OPERATIONS_KEPT)?;
            retries::prune(catalog, before - RETRIES_KEPT)?;
            if is_new_hour {
                consumption::prune(catalog, hour - HOURS_KEPT)?;
                branch_consumption::prune(catalog, month_of(before).0)?;
            }
            Ok(())
        });
        match pruned.await {
            Ok(()) => pruned_in = hour,
            Err(error) => tracing::warn!(%error, "what is kept for a while is forgotten later"),
        }
        tokio::select! {
            () = tokio::time::sleep(PRUNE_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Makes the tenants of new projects; whether any was made. Whoever needs one now makes it without
/// waiting for this, so requests go before.
async fn make_tenants(context: &Arc<Context>, region: &Region) -> Result<bool, ApiError> {
    let id = region.id.clone();
    let read = move |catalog: &Connection| projects::without_tenant(catalog, &id, ROUND_MAX);
    let wanted = context.catalog.read(read).await?;
    let make = |project: projects::Project| async move {
        context.calm.wait(&region.calm_turn).await;
        match context.ensure_tenant(&project.id).await {
            // Deleted meanwhile.
            Err(error) if error.status == axum::http::StatusCode::NOT_FOUND => Ok(()),
            outcome => outcome,
        }
    };
    let mut made = stream::iter(wanted).map(make).buffer_unordered(TENANTS_AT_ONCE);
    let (mut any, mut failure) = (false, None);
    while let Some(outcome) = made.next().await {
        match outcome {
            Ok(()) => any = true,
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(any), Err)
}

/// Removes timelines that no branch stands for and nothing came from; whether there were any.
async fn remove_timelines(context: &Context, region: &Region) -> Result<bool, ApiError> {
    let id = region.id.clone();
    let read = move |catalog: &Connection| timelines::removable(catalog, &id, ROUND_MAX);
    let doomed = context.catalog.read(read).await?;
    let mut any = false;
    for timeline in doomed {
        let timelines::Timeline { project, name, .. } = timeline;
        match region.storage.delete_timeline(&project, &name).await {
            Ok(()) => any = true,
            // Somebody made a branch of it beside the catalog: it stays for that.
            Err(StorageError::Refused(reason)) => {
                tracing::debug!(project, timeline = name, reason, "a timeline is kept");
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let removed =
            context.catalog.write(move |catalog| timelines::remove(catalog, &project, &name));
        removed.await?;
    }
    Ok(any)
}

/// Removes projects whose time for being recovered is over.
async fn remove_projects(context: &Context, region: &Region) -> Result<(), ApiError> {
    let (before, id) = (now() - DELETED_KEPT, region.id.clone());
    let read = move |catalog: &Connection| projects::deleted_before(catalog, &id, before);
    for project in context.catalog.read(read).await? {
        region.storage.delete_tenant(&project).await?;
        let id = project.clone();
        context.catalog.write(move |catalog| projects::remove(catalog, &id)).await?;
        context.regions.forget(&project);
    }
    Ok(())
}

/// Gives a timeline up on which no compute runs any more, once what was used on it is counted: to the
/// branch that stands for it; where there is none, it goes.
pub(super) fn leave(context: &Arc<Context>, project: String, timeline: String) {
    let context = context.clone();
    tokio::spawn(async move {
        let region = context.region(&project);
        region.counting.all_of(&project).await;
        let left =
            context.catalog.write(move |catalog| timelines::leave(catalog, &project, &timeline));
        if let Err(error) = left.await {
            tracing::warn!(%error, "a timeline is left at the next start");
        }
        region.work.notify_one();
    });
}

/// Deletes branches that expire.
async fn expire_branches(context: &Context, region: &Region) -> Result<(), ApiError> {
    let id = region.id.clone();
    let read = move |catalog: &Connection| branch_rows::expired(catalog, &id, now());
    for branch in context.catalog.read(read).await? {
        match branches::remove(context, branch.project, branch.id.clone()).await {
            Ok(_) => {}
            // It was made the default one meanwhile, or is of a deleted project.
            Err(error) if error.status.is_client_error() => {
                tracing::debug!(branch = branch.id, error = error.message, "not expired");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends in the catalog what an end in the middle left under way: before anything is served, when no
/// compute runs.
pub(super) async fn end_what_was_under_way(context: &Context) -> Result<(), ApiError> {
    let ended = context.catalog.write(|catalog| {
        templates::end_after_crash(catalog)?;
        operations::end_after_crash(catalog, now())
    });
    Ok(ended.await?)
}

/// A branch whose making was under way, and the timeline that it waits for.
pub(super) type Interrupted = (timelines::Timeline, String);

/// The branches of a region whose making an end interrupted. What nobody waits for is taken back: a
/// restore that had not come to its point, a moment that was only looked at. What a branch was to leave is
/// left. Before anything is served, when all that is under way is from before.
pub(super) async fn interrupted(
    context: &Arc<Context>,
    region: &Region,
) -> Result<Vec<Interrupted>, ApiError> {
    let id = region.id.clone();
    let read = move |catalog: &Connection| {
        Ok((timelines::under_way(catalog, &id)?, timelines::left(catalog, &id)?))
    };
    let (under_way, left) = context.catalog.read(read).await?;
    for (project, timeline) in left {
        leave(context, project, timeline);
    }
    let mut waited_for = Vec::new();
    for (timeline, branch) in under_way {
        if let Some(branch) = branch {
            waited_for.push((timeline, branch));
            continue;
        }
        let timelines::Timeline { project, name, .. } = timeline;
        let lost = "the control plane ended before it was done";
        let undone = context.catalog.write(move |catalog| {
            timelines::set_state(catalog, &project, &name, timelines::State::Doomed)?;
            let (action, status) = (Action::CreateBranch, Status::Failed);
            operations::end_all(catalog, &project, action, status, Some(lost), now())
        });
        undone.await?;
    }
    Ok(waited_for)
}

async fn finish_branches(context: &Context, interrupted: Vec<Interrupted>) {
    for (timeline, branch) in interrupted {
        if let Err(error) = finish_branch(context, &timeline, &branch).await {
            tracing::warn!(branch, error = error.message, "an interrupted branch is left as it is");
        }
    }
}

/// Has a branch made whose making was under way, or takes it back.
async fn finish_branch(
    context: &Context,
    timeline: &timelines::Timeline,
    branch: &str,
) -> Result<(), ApiError> {
    let (project, id) = (timeline.project.clone(), branch.to_owned());
    let read = context.catalog.read(move |catalog| {
        let all = operations::list(catalog, &project, None, ROUND_MAX)?;
        let is_its = |operation: &operations::Operation| {
            operation.branch.as_deref() == Some(&id) && operation.status == Status::Running.name()
        };
        Ok(all.into_iter().find(is_its).map(|operation| operation.id).unwrap_or_default())
    });
    let operation = read.await?;
    match branches::complete(context, timeline, branch, &operation).await {
        Ok(()) => tracing::info!(branch, "a branch whose making was interrupted is made"),
        Err(error) => {
            tracing::warn!(branch, error = error.message, "an interrupted branch is taken back");
        }
    }
    Ok(())
}
