//! What goes on in the background, and what is put right at the start.
//!
//! Everything that is to be done stands in the catalog; this only carries it out, and again until
//! it succeeds.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{
    branches,
    context::Context,
    error::ApiError,
    project_views::DELETED_KEPT,
    storage::StorageError,
    time::{self, now},
};
use crate::catalog::{
    Catalog, Time, branches as branch_rows,
    operations::{self, Action, Status},
    projects, rebuild, retries, templates, timelines,
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
/// How often those are pruned.
const PRUNE_EVERY: Time = 60 * 1_000_000;

/// Does what is to be done, until it is told to stop.
pub(super) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut pruned_at = 0;
    loop {
        let round = round(&context, &mut pruned_at);
        let outcome = tokio::select! {
            outcome = round => outcome,
            () = stop.cancelled() => return,
        };
        let wait = match outcome {
            Ok(true) => continue,
            Ok(false) => PERIOD,
            Err(error) => {
                tracing::warn!(error = error.message, "work in the background is tried again");
                PAUSE
            }
        };
        tokio::select! {
            () = context.work.notified() => {}
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One round; whether there may be more to do at once. One thing that fails keeps no other from
/// being done; the last failure is told.
async fn round(context: &Arc<Context>, pruned_at: &mut Time) -> Result<bool, ApiError> {
    let outcomes = [
        make_tenants(context).await,
        remove_timelines(context).await,
        remove_projects(context).await.map(|()| false),
        expire_branches(context).await.map(|()| false),
        prune(context, pruned_at).await.map(|()| false),
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

/// Forgets what is kept for a while only.
async fn prune(context: &Context, pruned_at: &mut Time) -> Result<(), ApiError> {
    let now = now();
    if now - *pruned_at < PRUNE_EVERY {
        return Ok(());
    }
    *pruned_at = now;
    let pruned = context.catalog.write(move |catalog| {
        operations::prune(catalog, now - OPERATIONS_KEPT)?;
        retries::prune(catalog, now - RETRIES_KEPT)
    });
    Ok(pruned.await?)
}

/// Makes the tenants of new projects; whether any was made. Whoever needs one now makes it without
/// waiting for this, so requests go before.
async fn make_tenants(context: &Arc<Context>) -> Result<bool, ApiError> {
    let read = |catalog: &rusqlite::Connection| projects::without_tenant(catalog, ROUND_MAX);
    let wanted = context.catalog.read(read).await?;
    let make = |project: projects::Project| async move {
        context.calm.wait().await;
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
async fn remove_timelines(context: &Context) -> Result<bool, ApiError> {
    let read = |catalog: &rusqlite::Connection| timelines::removable(catalog, ROUND_MAX);
    let doomed = context.catalog.read(read).await?;
    let mut any = false;
    for timeline in doomed {
        let timelines::Timeline { project, name, .. } = timeline;
        match context.storage.delete_timeline(&project, &name).await {
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
async fn remove_projects(context: &Context) -> Result<(), ApiError> {
    let before = now() - DELETED_KEPT;
    let over =
        context.catalog.read(move |catalog| projects::deleted_before(catalog, before)).await?;
    for project in over {
        context.storage.delete_tenant(&project).await?;
        context.catalog.write(move |catalog| projects::remove(catalog, &project)).await?;
    }
    Ok(())
}

/// Deletes branches that expire.
async fn expire_branches(context: &Context) -> Result<(), ApiError> {
    let expired = context.catalog.read(|catalog| branch_rows::expired(catalog, now())).await?;
    for branch in expired {
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

/// Puts right what an end in the middle left: before anything is served, when no compute runs.
pub(super) async fn recover(context: &Context) -> Result<(), ApiError> {
    let under_way = context.catalog.read(timelines::under_way).await?;
    let ended = context.catalog.write(|catalog| {
        templates::end_after_crash(catalog)?;
        operations::end_after_crash(catalog, now())
    });
    ended.await?;
    for (timeline, branch) in under_way {
        match branch {
            Some(branch) => finish_branch(context, &timeline, &branch).await?,
            // A restore that had not come to its point, or a moment that was only looked at.
            None => {
                let timelines::Timeline { project, name, .. } = timeline;
                let lost = "the control plane ended before it was done";
                let undone = context.catalog.write(move |catalog| {
                    timelines::set_state(catalog, &project, &name, timelines::State::Doomed)?;
                    let (action, status) = (Action::CreateBranch, Status::Failed);
                    operations::end_all(catalog, &project, action, status, Some(lost), now())
                });
                undone.await?;
            }
        }
    }
    Ok(())
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

/// Fills a new catalog with what the pageserver has in the bucket; how many projects.
pub(super) async fn rebuild(
    catalog: &Catalog,
    storage: &super::storage::Storage,
) -> Result<usize, ApiError> {
    let tenants = storage.tenants().await?;
    let count = tenants.len();
    for tenant in tenants {
        let timelines = storage.timelines(&tenant.id).await?;
        let mut rows = Vec::with_capacity(timelines.len());
        for timeline in timelines {
            let own = timeline.ancestor.filter(|from| from.tenant_id == timeline.tenant_id);
            rows.push(rebuild::TenantTimeline {
                name: timeline.name,
                parent: own.map(|from| from.name),
                branch_point: timeline.branch_point,
                created_at: time::parse(&timeline.created_at)?,
            });
        }
        let tenant = rebuild::Tenant {
            history_seconds: tenant.history.seconds.unwrap_or_default(),
            created_at: time::parse(&tenant.created_at)?,
            name: tenant.name,
            id: tenant.id,
            timelines: rows,
        };
        catalog.write(move |catalog| rebuild::add(catalog, &tenant)).await?;
    }
    Ok(count)
}
