//! How a project is shown.

use rusqlite::Connection;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    account::ACCOUNT_ID,
    branch_views::Branch,
    connection::ConnectionDetails,
    context::Context,
    databases::Database,
    endpoints::Endpoint,
    names::PG_VERSION,
    operations::Operation,
    page::Cursor,
    quotas::{QuotaState, Standing},
    roles::Role,
    time,
};
use crate::{
    catalog::{self, Time, consumption, projects},
    metering::{
        frames::{Frame, frames},
        period::{Granularity, begin_of, hour_of, month_of},
    },
};

/// How long a deleted project can be recovered: a week, in microseconds.
pub(super) const DELETED_KEPT: Time = 7 * 24 * 3600 * 1_000_000;

/// A project, as lists show it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectListItem {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Always `offshoot`.
    pub platform_id: String,
    /// Where it is.
    pub region_id: String,
    /// Always `k8s-neonvm`, which clients expect; it says nothing here.
    pub provisioner: String,
    /// What new endpoints have where nothing else is said.
    pub default_endpoint_settings: Value,
    /// Settings, as they were said.
    pub settings: Value,
    /// The major version of Postgres.
    pub pg_version: u32,
    /// Where connections go.
    pub proxy_host: String,
    /// The most that a branch may hold, in MiB; 0 for no limit.
    pub branch_logical_size_limit: u64,
    /// The same in bytes.
    pub branch_logical_size_limit_bytes: u64,
    /// Passwords made here can be revealed.
    pub store_passwords: bool,
    /// The same as `active_time_seconds` of one project.
    pub active_time: u64,
    /// The same as `compute_time_seconds` of one project.
    pub cpu_used_sec: u64,
    /// How far each of its quotas is used up.
    pub quota_states: Vec<QuotaState>,
    /// Who made it.
    pub creation_source: String,
    /// How much history is kept.
    pub history_retention_seconds: u64,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// When it was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<String>,
    /// Until when it can be recovered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recoverable_until: Option<String>,
    /// The account.
    pub owner_id: String,
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectView {
    /// What lists show too.
    #[serde(flatten)]
    pub item: ProjectListItem,
    /// The branch that is meant where none is named.
    pub default_branch_id: String,
    /// Bytes of layers in the object store, times the hours of this month that they were there.
    pub data_storage_bytes_hour: u64,
    /// Bytes of layers in the object store, now.
    pub synthetic_storage_size: u64,
    /// Bytes that the proxy sent to clients this month.
    pub data_transfer_bytes: u64,
    /// Bytes of WAL that were written this month.
    pub written_data_bytes: u64,
    /// Seconds in which computes ran this month, times their compute units.
    pub compute_time_seconds: u64,
    /// Seconds in which computes ran this month.
    pub active_time_seconds: u64,
    /// When this month began.
    pub consumption_period_start: String,
    /// When it ends, and what is counted by month begins anew.
    pub consumption_period_end: String,
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectResponse {
    /// It.
    pub project: ProjectView,
}

/// A changed project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectUpdated {
    /// It.
    pub project: ProjectView,
    /// None: it is changed when this answers.
    pub operations: Vec<Operation>,
}

/// Projects.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectsPage {
    /// They.
    pub projects: Vec<ProjectListItem>,
    /// Where the page ends.
    pub pagination: Cursor,
}

/// A new project with all that it has.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectCreated {
    /// It.
    pub project: ProjectView,
    /// How to connect.
    pub connection_uris: Vec<ConnectionDetails>,
    /// Its first branch.
    pub branch: Branch,
    /// That branch's endpoint.
    pub endpoints: Vec<Endpoint>,
    /// That branch's role, with its password.
    pub roles: Vec<Role>,
    /// That branch's database.
    pub databases: Vec<Database>,
    /// Its making.
    pub operations: Vec<Operation>,
}

/// A project with what it used this month.
pub(super) struct Shown {
    project: projects::Project,
    month: Frame,
    standing: Standing,
}

impl Shown {
    /// As it is now.
    pub(super) fn of(
        catalog: &Connection,
        project: projects::Project,
    ) -> Result<Shown, catalog::Error> {
        let now = time::now();
        let (first, end) = month_of(now);
        let (rows, before) = consumption::between(catalog, &project.id, first, end)?;
        let until = hour_of(now) + 1;
        let month = frames(&rows, before, Granularity::Monthly, first, until);
        let standing = Standing::of(catalog, &project, now)?;
        Ok(Shown { project, month: month.first().copied().unwrap_or_default(), standing })
    }

    /// The project's id.
    pub(super) fn id(&self) -> &str {
        &self.project.id
    }
}

/// A project, as lists show it.
pub(super) fn list_item(context: &Context, shown: Shown) -> ProjectListItem {
    let Shown { project, month, standing } = shown;
    let limit = project.settings.pointer("/quota/logical_size_bytes").and_then(Value::as_u64);
    let limit = limit.unwrap_or_default();
    ProjectListItem {
        id: project.id,
        name: project.name,
        platform_id: "offshoot".to_owned(),
        region_id: project.region.to_string(),
        provisioner: "k8s-neonvm".to_owned(),
        default_endpoint_settings: project.endpoint_settings,
        settings: project.settings,
        pg_version: PG_VERSION,
        proxy_host: super::connection::proxy_host(&context.connect_at),
        branch_logical_size_limit: limit >> 20,
        branch_logical_size_limit_bytes: limit,
        store_passwords: true,
        active_time: month.active_seconds,
        cpu_used_sec: month.compute_seconds,
        quota_states: standing.view(),
        creation_source: "api".to_owned(),
        history_retention_seconds: project.history_seconds,
        created_at: time::format(project.created_at),
        updated_at: time::format(project.updated_at),
        deleted_at: project.deleted_at.map(time::format),
        recoverable_until: project.deleted_at.map(|at| time::format(at + DELETED_KEPT)),
        owner_id: ACCOUNT_ID.to_owned(),
    }
}

/// A project.
pub(super) fn view(context: &Context, shown: Shown) -> ProjectView {
    let default_branch_id = shown.project.default_branch.clone();
    let month = shown.month;
    ProjectView {
        item: list_item(context, shown),
        default_branch_id,
        data_storage_bytes_hour: month.stored_byte_hours,
        synthetic_storage_size: month.sizes.stored_bytes,
        data_transfer_bytes: month.transfer_bytes,
        written_data_bytes: month.written_bytes,
        compute_time_seconds: month.compute_seconds,
        active_time_seconds: month.active_seconds,
        consumption_period_start: time::format(begin_of(month.from)),
        consumption_period_end: time::format(begin_of(month.to)),
    }
}
