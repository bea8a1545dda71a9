//! How a project is shown.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    account::ACCOUNT_ID, branch_views::Branch, connection::ConnectionDetails, context::Context,
    databases::Database, endpoints::Endpoint, names::PG_VERSION, operations::Operation,
    page::Cursor, roles::Role, time,
};
use crate::catalog::{Time, projects};

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
    /// Not measured: 0.
    pub active_time: u64,
    /// Not measured: 0.
    pub cpu_used_sec: u64,
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
    /// Not measured: 0.
    pub data_storage_bytes_hour: u64,
    /// Not measured: 0.
    pub data_transfer_bytes: u64,
    /// Not measured: 0.
    pub written_data_bytes: u64,
    /// Not measured: 0.
    pub compute_time_seconds: u64,
    /// Not measured: 0.
    pub active_time_seconds: u64,
    /// Nothing is charged: the time of its making.
    pub consumption_period_start: String,
    /// Nothing is charged: the time of its making.
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

/// A project, as lists show it.
pub(super) fn list_item(context: &Context, project: projects::Project) -> ProjectListItem {
    let limit = project.settings.pointer("/quota/logical_size_bytes").and_then(Value::as_u64);
    let limit = limit.unwrap_or_default();
    ProjectListItem {
        id: project.id,
        name: project.name,
        platform_id: "offshoot".to_owned(),
        region_id: context.region.clone(),
        provisioner: "k8s-neonvm".to_owned(),
        default_endpoint_settings: project.endpoint_settings,
        settings: project.settings,
        pg_version: PG_VERSION,
        proxy_host: super::connection::proxy_host(&context.connect_at),
        branch_logical_size_limit: limit >> 20,
        branch_logical_size_limit_bytes: limit,
        store_passwords: true,
        active_time: 0,
        cpu_used_sec: 0,
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
pub(super) fn view(context: &Context, project: projects::Project) -> ProjectView {
    let made = time::format(project.created_at);
    let default_branch_id = project.default_branch.clone();
    ProjectView {
        item: list_item(context, project),
        default_branch_id,
        data_storage_bytes_hour: 0,
        data_transfer_bytes: 0,
        written_data_bytes: 0,
        compute_time_seconds: 0,
        active_time_seconds: 0,
        consumption_period_start: made.clone(),
        consumption_period_end: made,
    }
}
