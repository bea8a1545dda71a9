//! How a branch is shown.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    connection::ConnectionDetails, context::Context, databases::Database, endpoints::Endpoint,
    operations::Operation, page::NextPage, roles::Role, time,
};
use crate::catalog::{branches, consumption::Used, projects};

/// A branch.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Branch {
    /// Its id; a restore keeps it.
    pub id: String,
    /// Its project.
    pub project_id: String,
    /// The branch that it came from, while that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Where it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_lsn: Option<String>,
    /// The moment that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_timestamp: Option<String>,
    /// Its name, unique in the project.
    pub name: String,
    /// `init` until the pageserver has it, `ready` then.
    pub current_state: String,
    /// When that was last changed.
    pub state_changed_at: String,
    /// Bytes of all relations; only where one branch is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_size: Option<u64>,
    /// Who made it.
    pub creation_source: String,
    /// The same as `default`.
    pub primary: bool,
    /// Whether it is meant where none is named.
    pub default: bool,
    /// It can be neither deleted nor put back.
    pub protected: bool,
    /// The same as `compute_time_seconds`.
    pub cpu_used_sec: u64,
    /// Seconds in which its computes ran this month, times their compute units.
    pub compute_time_seconds: u64,
    /// Seconds in which its computes ran this month.
    pub active_time_seconds: u64,
    /// Bytes of WAL that were written this month.
    pub written_data_bytes: u64,
    /// Bytes that the proxy sent to its clients this month.
    pub data_transfer_bytes: u64,
    /// Why its project's quota keeps it from having a compute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_exceeded: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// When it deletes itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When it was last put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reset_at: Option<String>,
}

/// What the maker of a branch wrote to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Annotation {
    object: AnnotationObject,
    value: Value,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
struct AnnotationObject {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// A branch, and what its maker wrote to it.
#[derive(Serialize, ToSchema)]
pub struct BranchResponse {
    /// It.
    pub branch: Branch,
    /// What its maker wrote.
    pub annotation: Annotation,
}

/// Branches.
#[derive(Serialize, ToSchema)]
pub struct BranchesPage {
    /// They.
    pub branches: Vec<Branch>,
    /// What their makers wrote, by the branch's id; only of those to which something was written.
    pub annotations: std::collections::BTreeMap<String, Annotation>,
    /// Where the page ends.
    pub pagination: NextPage,
}

/// How many branches there are.
#[derive(Serialize, ToSchema)]
pub struct BranchesCount {
    /// So many.
    pub count: usize,
}

/// A branch, and what was asked of it.
#[derive(Serialize, ToSchema)]
pub struct BranchOperations {
    /// It.
    pub branch: Branch,
    /// What was done.
    pub operations: Vec<Operation>,
}

/// A new branch with all that it has.
#[derive(Serialize, ToSchema)]
pub struct BranchCreated {
    /// It.
    pub branch: Branch,
    /// Its endpoint, if it was asked for.
    pub endpoints: Vec<Endpoint>,
    /// What was done.
    pub operations: Vec<Operation>,
    /// Its roles.
    pub roles: Vec<Role>,
    /// Its databases.
    pub databases: Vec<Database>,
    /// How to connect, where it has an endpoint.
    pub connection_uris: Vec<ConnectionDetails>,
}

impl Annotation {
    pub(super) fn of(branch: &branches::Branch) -> Annotation {
        let object = AnnotationObject { kind: "console/branch".to_owned(), id: branch.id.clone() };
        Annotation { object, value: branch.annotation.clone() }
    }

    pub(super) fn is_empty(branch: &branches::Branch) -> bool {
        branch.annotation.as_object().is_none_or(|value| value.is_empty())
    }
}

/// A branch that used so much this month; `is_made` says whether the pageserver has its timeline.
pub(super) fn view(
    branch: &branches::Branch,
    project: &projects::Project,
    is_made: bool,
    used: Used,
) -> Branch {
    let is_default = project.default_branch == branch.id;
    Branch {
        id: branch.id.clone(),
        project_id: branch.project.clone(),
        parent_id: branch.parent.clone(),
        parent_lsn: branch.parent_lsn.clone(),
        parent_timestamp: branch.parent_timestamp.clone(),
        name: branch.name.clone(),
        current_state: if is_made { "ready" } else { "init" }.to_owned(),
        state_changed_at: time::format(branch.updated_at),
        logical_size: None,
        creation_source: "api".to_owned(),
        primary: is_default,
        default: is_default,
        protected: branch.protected,
        cpu_used_sec: used.compute_seconds(),
        compute_time_seconds: used.compute_seconds(),
        active_time_seconds: used.active_seconds(),
        written_data_bytes: used.written_bytes,
        data_transfer_bytes: used.transfer_bytes,
        quota_exceeded: None,
        created_at: time::format(branch.created_at),
        updated_at: time::format(branch.updated_at),
        expires_at: branch.expires_at.map(time::format),
        last_reset_at: branch.last_reset_at.map(time::format),
    }
}

/// What a branch of this project holds, where the pageserver says it.
pub(super) async fn logical_size(context: &Context, branch: &branches::Branch) -> Option<u64> {
    let storage = &context.region(&branch.project).storage;
    let timeline = storage.timeline(&branch.project, &branch.timeline).await;
    timeline.ok().map(|timeline| timeline.logical_size_bytes)
}
