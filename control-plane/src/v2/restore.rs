//! Putting a branch back: its id and name go to a new timeline, made of any branch at any moment.
//!
//! 1. The new timeline is written down as wanted, and made by the pageserver.
//! 2. One write lets the branch stand for it. What it was until now becomes a branch under the name
//!    that was asked for, the parent of this one and of all that were made of it before.
//! 3. A compute that ran is started anew.
//! 4. The timeline that it stood for is left. What was used on it until then is this branch's; then it is the
//!    branch's of that name, or doomed, and stays for those that came from it.
//!
//! A crash before 2 leaves a timeline that no branch stands for: it goes at the next start. After 2
//! the restore is done; a timeline that is not left yet is left at the next start.

use std::sync::Arc;

use axum::{Json, extract::State};
use rusqlite::Connection;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    branch_views::{Branch, BranchOperations},
    branches::{moment, view_now},
    context::{Context, finish, new_timeline, operation},
    endpoints,
    error::{ApiError, GeneralError},
    names::check_name,
    request::{Body, Path},
    time::now,
    work,
};
use crate::catalog::{
    self, branches, endpoints as endpoint_rows, ids,
    operations::{self, Action, Status},
    roles, timelines,
};

/// `POST /projects/{project_id}/branches/{branch_id}/restore`
#[derive(Clone, Deserialize, ToSchema)]
pub struct RestoreBranch {
    /// The branch that it is to be as: its parent, itself, or any other.
    source_branch_id: String,
    /// At this LSN; at its head where no moment is said.
    source_lsn: Option<String>,
    /// At this moment.
    source_timestamp: Option<String>,
    /// What it was until now stays as a branch of this name.
    preserve_under_name: Option<String>,
}

/// Put a branch back to a moment of its own or of another branch. Its id, name and endpoint stay.
#[utoipa::path(post, path = "/projects/{project_id}/branches/{branch_id}/restore",
    tag = "branches", params(("project_id" = String, Path), ("branch_id" = String, Path)),
    request_body = RestoreBranch,
    responses((status = 200, body = BranchOperations), (status = "default", body = GeneralError)))]
pub(super) async fn restore(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
    Body(asked): Body<RestoreBranch>,
) -> Result<Json<BranchOperations>, ApiError> {
    let moment = moment(asked.source_lsn.as_deref(), asked.source_timestamp.as_deref())?;
    if let Some(name) = &asked.preserve_under_name {
        check_name("branch", name)?;
    }
    if asked.source_branch_id == id && moment.is_none() {
        return Err(ApiError::invalid(
            "a branch is put back to itself at a moment: say source_lsn or source_timestamp",
        ));
    }
    finish(async move { put_back(context, project, id, asked, moment).await }).await.map(Json)
}

async fn put_back(
    context: Arc<Context>,
    project: String,
    id: String,
    asked: RestoreBranch,
    moment: Option<timelines::Moment>,
) -> Result<BranchOperations, ApiError> {
    context.ensure_tenant(&project).await?;
    let _turn = context.turn(&id).await;
    let (name, source_id) = (asked.preserve_under_name.clone(), asked.source_branch_id.clone());
    let (of, branch_id) = (project.clone(), id.clone());
    let began = context.catalog.write(move |catalog| {
        let branch = branches::get(catalog, &of, &branch_id)?;
        let source = branches::get(catalog, &of, &source_id)?;
        check(catalog, &branch, &source, name.as_deref())?;
        let timeline = timelines::next_name(catalog, &of, &branch.id)?;
        let timeline = new_timeline(&of, timeline, &source.timeline, moment);
        timelines::insert(catalog, &timeline, timelines::State::Wanted)?;
        let new = operation(&of, Some(&branch.id), None, Action::CreateBranch, Status::Running);
        Ok((branch, source, timeline, operations::insert(catalog, &new, now())?))
    });
    let (branch, source, timeline, operation) = began.await?;

    let parent = timeline.parent.as_deref().unwrap_or(timelines::FIRST);
    let moment = timeline.moment.as_ref();
    let storage = &context.region(&project).storage;
    let made = storage.create_timeline(&project, &timeline.name, parent, moment).await;
    let switched = match made {
        Ok(made) => {
            let (asked, branch) = (asked.clone(), branch.clone());
            let (timeline, operation) = (timeline.clone(), operation.id.clone());
            let at = made.branch_point;
            let written = context.catalog.write(move |catalog| {
                let view = switch(catalog, branch, &source, &timeline, at, &asked)?;
                operations::set_status(catalog, &operation, Status::Finished, None, now())?;
                Ok((operations::get(catalog, &timeline.project, &operation)?, view))
            });
            written.await.map_err(ApiError::from)
        }
        Err(error) => Err(error.into()),
    };
    let (ended, view) = match switched {
        Ok(switched) => switched,
        Err(error) => return Err(give_up(&context, &timeline, &operation, error).await),
    };
    let mut operations = vec![ended.into()];
    let followed = follow(&context, &branch).await;
    work::leave(&context, branch.project, branch.timeline);
    operations.extend(followed?);
    Ok(BranchOperations { branch: view, operations })
}

fn check(
    catalog: &Connection,
    branch: &branches::Branch,
    source: &branches::Branch,
    keep_as: Option<&str>,
) -> Result<(), catalog::Error> {
    branches::refuse_protected(branch)?;
    for branch in [branch, source] {
        branches::refuse_unmade(catalog, branch)?;
    }
    match keep_as {
        Some(name) => branches::refuse_taken(catalog, &branch.project, name, None),
        None => Ok(()),
    }
}

/// Lets the branch stand for its new timeline.
fn switch(
    catalog: &Connection,
    before: branches::Branch,
    source: &branches::Branch,
    timeline: &timelines::Timeline,
    begins_at: String,
    asked: &RestoreBranch,
) -> Result<Branch, catalog::Error> {
    let now = now();
    let mut branch = branches::get(catalog, &before.project, &before.id)?;
    timelines::set_state(catalog, &branch.project, &timeline.name, timelines::State::Made)?;
    let kept = asked.preserve_under_name.as_ref().map(|name| branches::Branch {
        id: ids::branch(&mut rand::rng()),
        name: name.clone(),
        created_at: now,
        updated_at: now,
        expires_at: None,
        ..branch.clone()
    });
    // Its computes still run on that.
    timelines::count_for(catalog, &branch.project, &before.timeline, &branch.id)?;
    branch.timeline.clone_from(&timeline.name);
    branch.parent_lsn = Some(begins_at);
    branch.parent_timestamp.clone_from(&asked.source_timestamp);
    branch.last_reset_at = Some(now);
    branch.updated_at = now;
    match kept {
        Some(kept) => {
            branches::adopt(catalog, &branch.id, Some(&kept.id))?;
            branch.parent = Some(kept.id.clone());
            branches::update(catalog, &branch)?;
            branches::insert(catalog, &kept)?;
            branches::copy_contents(catalog, &branch.id, &kept.id)?;
        }
        None => branches::update(catalog, &branch)?,
    }
    if source.id != branch.id {
        branches::clear_contents(catalog, &branch.id)?;
        branches::copy_contents(catalog, &source.id, &branch.id)?;
    }
    if timeline.moment.is_some() {
        roles::keep_verifiers(catalog, &branch.id)?;
    }
    view_now(catalog, &branch)
}

/// Takes a restore back that did not come to its end; the reason.
async fn give_up(
    context: &Context,
    timeline: &timelines::Timeline,
    operation: &operations::Operation,
    reason: ApiError,
) -> ApiError {
    let (project, name) = (timeline.project.clone(), timeline.name.clone());
    let (id, said) = (operation.id.clone(), reason.message.clone());
    let taken_back = context.catalog.write(move |catalog| {
        timelines::set_state(catalog, &project, &name, timelines::State::Doomed)?;
        operations::set_status(catalog, &id, Status::Failed, Some(&said), now())
    });
    if let Err(error) = taken_back.await {
        tracing::warn!(%error, "a restore that failed is taken back at the next start");
    }
    context.wake_work(&timeline.project);
    reason
}

/// Ends the computes of what the branch stood for, and starts anew those that ran.
async fn follow(
    context: &Arc<Context>,
    before: &branches::Branch,
) -> Result<Vec<super::operations::Operation>, ApiError> {
    let id = before.id.clone();
    let read = context.catalog.read(move |catalog| endpoint_rows::all_of_branch(catalog, &id));
    let mut ran = read.await?;
    ran.retain(|endpoint| context.runs(endpoint, before));
    context.forget(&before.project, &before.timeline).await?;
    let mut operations = Vec::with_capacity(ran.len());
    for endpoint in ran {
        let (branch, id) = (Some(before.id.as_str()), Some(endpoint.id.as_str()));
        let new = operation(&before.project, branch, id, Action::StartCompute, Status::Running);
        let started =
            context.catalog.write(move |catalog| operations::insert(catalog, &new, now())).await?;
        let (carrying, under_way) = (context.clone(), started.clone());
        tokio::spawn(async move {
            endpoints::carry_out(&carrying, &endpoint.id, vec![under_way]).await;
        });
        operations.push(started.into());
    }
    Ok(operations)
}
