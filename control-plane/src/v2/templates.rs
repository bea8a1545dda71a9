//! Templates: any moment of a branch, published under a name for new projects to begin as.
//!
//! A branch of that moment gets a Postgres of its own, in which what lets people in is removed: the
//! roles' passwords, those for other servers, and what statistics know of them; the tables that held
//! them are written anew. What the pageserver then copies has none of it, in old row versions neither.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    branches::moment,
    context::{Context, finish, new_timeline, operation},
    error::{ApiError, GeneralError},
    operations::Operation,
    postgres::Postgres,
    request::{Body, Path, Query},
    storage::{StorageError, StoredTemplate},
    time::{self, now},
    work,
};
use crate::{
    Region, StartRequest,
    catalog::{
        self, branches, ids,
        operations::{self, Action, Status},
        projects,
        roles::{self, Change},
        templates::{self, Template as Row},
        timelines,
    },
};

/// The template of projects that name none.
const DEFAULT: &str = "default";

/// Nothing but us works in the Postgres that secrets are removed from: a subscription's worker would
/// take its source's place, and statistics would be gathered anew.
const SETTINGS: [(&str, &str); 2] =
    [("autovacuum", "off"), ("max_logical_replication_workers", "0")];

/// `POST /templates`
#[derive(Deserialize, ToSchema)]
pub struct CreateTemplate {
    template: NewTemplate,
}

/// A template to be made: of the project's default branch and its head, where nothing else is said.
#[derive(Deserialize, ToSchema)]
pub struct NewTemplate {
    name: String,
    project_id: String,
    branch_id: Option<String>,
    lsn: Option<String>,
    timestamp: Option<String>,
}

/// A template.
#[derive(Debug, Serialize, ToSchema)]
pub struct Template {
    /// Its name, which is one template's in a region.
    pub name: String,
    /// Where it is: projects of this region can be made of it.
    pub region_id: String,
    /// `init` while it is being made, `ready` then.
    pub current_state: String,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where it stands: in the WAL of what it was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// Bytes of all relations, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_size_bytes: Option<u64>,
    /// Of those, what is copied, while it is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_bytes: Option<u64>,
    /// Bytes of its layers in the object store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// The project that it was made of, where it was made of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// That project's branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch_id: Option<String>,
}

/// A template.
#[derive(Serialize, ToSchema)]
pub struct TemplateResponse {
    template: Template,
}

/// A template, and what was asked for it.
#[derive(Serialize, ToSchema)]
pub struct TemplateOperations {
    template: Template,
    operations: Vec<Operation>,
}

/// Templates.
#[derive(Serialize, ToSchema)]
pub struct TemplatesResponse {
    templates: Vec<Template>,
    /// Regions that do not answer: of theirs, those are listed that were published here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unavailable_region_ids: Vec<String>,
}

/// Which template of several that are called alike.
#[derive(Deserialize, IntoParams)]
pub struct TemplateQuery {
    /// The region; where none is said, the default one if it has a template of this name.
    region_id: Option<String>,
}

impl Template {
    fn of(
        region: &Region,
        row: Option<Row>,
        stored: Option<StoredTemplate>,
        name: String,
    ) -> Template {
        let is_ready = stored.as_ref().is_some_and(|stored| stored.id.is_some());
        let made_at = row.as_ref().map(|row| time::format(row.created_at));
        let stored = stored.unwrap_or_default();
        Template {
            name,
            region_id: region.id.to_string(),
            current_state: if is_ready { "ready" } else { "init" }.to_owned(),
            id: stored.id,
            lsn: stored.lsn,
            created_at: stored.created_at.or(made_at).unwrap_or_default(),
            logical_size_bytes: stored.logical_size_bytes,
            copied_bytes: stored.copied_bytes,
            stored_bytes: stored.stored_bytes,
            project_id: row.as_ref().map(|row| row.project.clone()),
            branch_id: row.map(|row| row.branch),
        }
    }
}

/// List the templates.
#[utoipa::path(get, path = "/templates", tag = "templates",
    responses((status = 200, body = TemplatesResponse), (status = "default", body = GeneralError)))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
) -> Result<Json<TemplatesResponse>, ApiError> {
    let of_region = |region: &Arc<Region>| {
        let (context, region) = (context.clone(), region.clone());
        async move { (list_region(&context, &region).await, region) }
    };
    let (mut all, mut silent) = (Vec::new(), Vec::new());
    for (listed, region) in join_all(context.regions.all().iter().map(of_region)).await {
        let (templates, answers) = listed?;
        all.extend(templates);
        silent.extend((!answers).then(|| region.id.to_string()));
    }
    // Of one name the default region's first: that is the one that the name alone means.
    let default = context.regions.default().id.as_str();
    all.sort_by(|one, other| {
        let place = |it: &Template| (it.name.clone(), it.region_id != default);
        place(one).cmp(&place(other))
    });
    Ok(Json(TemplatesResponse { templates: all, unavailable_region_ids: silent }))
}

/// A region's templates, and whether it says so itself: of one that does not answer, those that were
/// published here.
async fn list_region(
    context: &Context,
    region: &Region,
) -> Result<(Vec<Template>, bool), ApiError> {
    let id = region.id.clone();
    let rows = context.catalog.read(move |catalog| templates::list(catalog, &id)).await?;
    let mut rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
    let (stored, answers) = match region.storage.templates().await {
        Ok(stored) => (stored, true),
        // Whoever has one region hears that it is gone.
        Err(error) if context.regions.all().len() == 1 => return Err(error.into()),
        Err(_) => (Vec::new(), false),
    };
    let mut all = Vec::new();
    for stored in stored {
        let name = stored.name.clone();
        all.push(Template::of(region, rows.remove(&name), Some(stored), name));
    }
    for (name, row) in rows.into_iter().filter(|(_, row)| row.is_making || !answers) {
        let stored = if answers { region.storage.template(&name).await? } else { None };
        let is_made = !row.is_making;
        let mut template = Template::of(region, Some(row), stored, name);
        if is_made {
            template.current_state = "ready".to_owned();
        }
        all.push(template);
    }
    Ok((all, answers))
}

/// Show a template, by name or id.
#[utoipa::path(get, path = "/templates/{template}", tag = "templates",
    params(("template" = String, Path), TemplateQuery),
    responses((status = 200, body = TemplateResponse), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    Query(TemplateQuery { region_id }): Query<TemplateQuery>,
) -> Result<Json<TemplateResponse>, ApiError> {
    let (_, template) = find(&context, &name, region_id.as_deref()).await?;
    Ok(Json(TemplateResponse { template }))
}

/// A template, and where it is.
async fn find(
    context: &Context,
    said: &str,
    region: Option<&str>,
) -> Result<(Arc<Region>, Template), ApiError> {
    let region = match region {
        Some(id) => context.regions.named(id).map_err(ApiError::not_found)?.clone(),
        None => region_of(context, said).await?,
    };
    match find_in(context, &region, said).await? {
        Some(template) => Ok((region, template)),
        None => Err(ApiError::not_found(format!("there is no template {said:?}"))),
    }
}

/// The region that has a template of this name or id: the default one, where it has one, or where
/// nobody has.
async fn region_of(context: &Context, said: &str) -> Result<Arc<Region>, ApiError> {
    let default = context.regions.default();
    if context.regions.all().len() == 1 || find_in(context, default, said).await?.is_some() {
        return Ok(default.clone());
    }
    Ok(elsewhere(context, said, default).await.unwrap_or(default).clone())
}

/// Another region that has a template of this name or id, if one of those that answer does.
async fn elsewhere<'c>(
    context: &'c Context,
    said: &str,
    than: &Arc<Region>,
) -> Option<&'c Arc<Region>> {
    let others = context.regions.all().iter().filter(|region| !Arc::ptr_eq(region, than));
    let asked = others.map(async |region| {
        matches!(find_in(context, region, said).await, Ok(Some(_))).then_some(region)
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    while let Some(answer) = asked.next().await {
        if answer.is_some() {
            return answer;
        }
    }
    None
}

async fn find_in(
    context: &Context,
    region: &Region,
    said: &str,
) -> Result<Option<Template>, ApiError> {
    let stored = region.storage.template(said).await?;
    let name = stored.as_ref().map_or(said, |stored| &stored.name).to_owned();
    let (of, id) = (name.clone(), region.id.clone());
    let row = context.catalog.read(move |catalog| templates::find(catalog, &id, &of)).await?;
    let is_making = row.as_ref().is_some_and(|row| row.is_making);
    let is_there = stored.is_some() || is_making;
    Ok(is_there.then(|| Template::of(region, row, stored, name)))
}

/// Why a project of this region cannot be made of a template that the region does not have.
pub(super) async fn absent(context: &Context, said: &str, region: &Arc<Region>) -> String {
    let id = &region.id;
    match elsewhere(context, said, region).await {
        Some(other) => format!(
            "template {said:?} is in region {}, and the project would be in region {id}: ask for \
             region_id {}, or publish a template in {id}",
            other.id, other.id
        ),
        None => format!("there is no template {said:?} in region {id}"),
    }
}

/// Publish a moment of a branch as a template. Its operation ends when projects can be made of it.
#[utoipa::path(post, path = "/templates", tag = "templates", request_body = CreateTemplate,
    responses((status = 201, body = TemplateOperations), (status = "default", body = GeneralError)))]
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    Body(CreateTemplate { template: new }): Body<CreateTemplate>,
) -> Result<(StatusCode, Json<TemplateOperations>), ApiError> {
    check_name(&new.name)?;
    let moment = moment(new.lsn.as_deref(), new.timestamp.as_deref())?;
    let created = finish(async move {
        context.ensure_tenant(&new.project_id).await?;
        let region = context.region(&new.project_id);
        if region.storage.template(&new.name).await?.is_some() {
            return Err(templates::taken(&new.name).into());
        }
        let written = context.catalog.write(move |catalog| {
            let project = projects::get(catalog, &new.project_id)?;
            let branch = new.branch_id.unwrap_or_else(|| project.default_branch.clone());
            let branch = branches::get(catalog, &project.id, &branch)?;
            branches::refuse_unmade(catalog, &branch)?;
            if roles::waiting(catalog, &branch.id)?.iter().any(|(_, it)| *it == Change::NoRows) {
                return Err(catalog::Error::Refused(format!(
                    "branch {} has its parent's rows until its compute is first started: start it \
                     first",
                    branch.id
                )));
            }
            let (action, status) = (Action::PublishTemplate, Status::Running);
            let operation = operation(&project.id, Some(&branch.id), None, action, status);
            let name = format!("template-{}", ids::suffix(&mut rand::rng()));
            let timeline = new_timeline(&project.id, name, &branch.timeline, moment);
            // Wanted by nobody else: a crash leaves it to be removed.
            timelines::insert(catalog, &timeline, timelines::State::Wanted)?;
            timelines::count_for(catalog, &project.id, &timeline.name, &branch.id)?;
            let row = Row {
                region: project.region,
                name: new.name,
                project: project.id,
                branch: branch.id,
                operation: operation.id.clone(),
                is_making: true,
                created_at: now(),
            };
            templates::insert(catalog, &row)?;
            Ok((row, timeline, operations::insert(catalog, &operation, now())?))
        });
        let (row, timeline, operation) = written.await?;
        let (making, of, under_way) = (context.clone(), row.clone(), operation.clone());
        tokio::spawn(async move { make(&making, of, timeline, &under_way).await });
        let name = row.name.clone();
        Ok(TemplateOperations {
            template: Template::of(&region, Some(row), None, name),
            operations: vec![operation.into()],
        })
    });
    created.await.map(|created| (StatusCode::CREATED, Json(created)))
}

/// A name that the pageserver takes, and that no id looks like.
fn check_name(name: &str) -> Result<(), ApiError> {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    let is_id = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let begins_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if begins_well && name.len() <= 63 && name.bytes().all(is_letter) && !is_id {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "{name:?} cannot be a template's name: use 1 to 63 of a-z, 0-9, _ and -, and begin with a \
         letter or a digit"
    )))
}

/// Makes a template, and writes down how that ended.
async fn make(
    context: &Arc<Context>,
    row: Row,
    timeline: timelines::Timeline,
    operation: &operations::Operation,
) {
    let made = publish(context, &row, &timeline).await;
    let timelines::Timeline { project, name, .. } = timeline;
    let forgotten = context.forget(&project, &name).await;
    if let Err(error) = &forgotten {
        tracing::warn!(template = row.name, error = error.message, "its compute may still run");
    }
    let is_made = made.is_ok();
    let written = context.catalog.write(move |catalog| match is_made {
        true => templates::set_made(catalog, &row.region, &row.name),
        false => templates::remove(catalog, &row.region, &row.name),
    });
    let ended = async {
        written.await?;
        context.end(operation, made.as_ref().copied()).await
    };
    if let Err(error) = ended.await {
        tracing::warn!(error = error.message, "how a template was made is not written down");
    }
    work::leave(context, project, name);
}

async fn publish(
    context: &Context,
    row: &Row,
    timeline: &timelines::Timeline,
) -> Result<(), ApiError> {
    let timelines::Timeline { project, name, parent, moment } = timeline;
    let parent = parent.as_deref().unwrap_or(timelines::FIRST);
    context.refuse_used_up(project, parent).await?;
    let region = context.region(project);
    region.storage.create_timeline(project, name, parent, moment.as_ref()).await?;
    let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let request = StartRequest {
        settings: Some(settings.into()),
        ..StartRequest::of(project.clone(), name.clone())
    };
    let compute = region.endpoints.start(&request).await?;
    let postgres = Postgres { socket_folder: &compute.sockets, port: compute.port };
    postgres.remove_secrets().await.map_err(|error| ApiError::refused(error.to_string()))?;
    // Stopped: its head is the end of a clean shutdown.
    region.endpoints.stop(project, name).await?;
    Ok(region.storage.publish_template(&row.name, project, name).await?)
}

/// Delete a template that no project is made of.
#[utoipa::path(delete, path = "/templates/{template}", tag = "templates",
    params(("template" = String, Path), TemplateQuery),
    responses((status = 200, body = TemplateResponse), (status = "default", body = GeneralError)))]
pub(super) async fn delete(
    State(context): State<Arc<Context>>,
    Path(said): Path<String>,
    Query(TemplateQuery { region_id }): Query<TemplateQuery>,
) -> Result<Json<TemplateResponse>, ApiError> {
    let deleted = finish(async move {
        let (region, template) = find(&context, &said, region_id.as_deref()).await?;
        if template.name == DEFAULT {
            return Err(ApiError::refused("projects that name no template begin as this one"));
        }
        // Projects may call it by either.
        let name = template.name.clone();
        let id = template.id.clone().unwrap_or_else(|| name.clone());
        let names = (name.clone(), id.clone());
        let within = region.id.clone();
        let begun = context.catalog.write(move |catalog| {
            templates::begin_removal(catalog, &within, [&names.0, &names.1], now())
        });
        begun.await?;
        let deleted = region.storage.delete_template(&name).await;
        let is_deleted = deleted.is_ok();
        let ended = context.catalog.write(move |catalog| {
            let within = &region.id;
            if !is_deleted {
                return templates::end_removal(catalog, within, [&name, &id]);
            }
            templates::remove(catalog, within, &name)?;
            templates::remove(catalog, within, &id)
        });
        ended.await?;
        match deleted {
            Ok(()) => Ok(TemplateResponse { template }),
            // Tenants that are no projects, or whose catalog was lost, are known to it alone.
            Err(StorageError::Refused(reason)) => Err(ApiError::conflict(reason)),
            Err(error) => Err(error.into()),
        }
    });
    deleted.await.map(Json)
}
