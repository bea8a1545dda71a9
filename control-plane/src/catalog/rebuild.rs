//! The catalog made anew of what the pageservers of all regions have in their buckets.
//!
//! A tenant's name is its project's id; a timeline's name is its branch's id and a number, the
//! highest of which is what the branch stands for. Endpoints are called after their branch. What
//! Postgres holds, roles and databases with their verifiers, is seen at a branch's next start.
//! Lost are the names that people gave, passwords in the clear, settings, protection, expiry, API
//! keys and operations; and a state that a restore had set aside, or a branch that was deleted and
//! lives on for its children, is a branch again.

use rusqlite::Connection;
use serde_json::json;

use super::{
    Error, Time,
    branches::{self, Branch},
    consumption,
    endpoints::{self, Endpoint},
    ids,
    projects::{self, Project},
    timelines::{self, State, Timeline},
};
use crate::RegionId;

/// A tenant, as the pageserver tells of it.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Where it is.
    pub region: RegionId,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// How much history it keeps, in seconds.
    pub history_seconds: u64,
    /// When it was made.
    pub created_at: Time,
    /// Its timelines.
    pub timelines: Vec<TenantTimeline>,
}

/// A timeline of a tenant, as the pageserver tells of it.
#[derive(Clone, Debug)]
pub struct TenantTimeline {
    /// Its name.
    pub name: String,
    /// The name of the timeline it came from, if that is the tenant's own.
    pub parent: Option<String>,
    /// Where it begins.
    pub branch_point: String,
    /// When it was made.
    pub created_at: Time,
}

/// The name of a branch's timeline: its id, and how many it has had.
pub fn timeline_name(branch: &str, count: u64) -> String {
    format!("{branch}_{count}")
}

/// Reads a timeline's name: the branch that it was made for, and which of its timelines it is; one without
/// a number comes before all others.
pub fn branch_of(project: &str, timeline: &str) -> (String, Option<u64>) {
    if timeline == timelines::FIRST {
        return (ids::first_branch(project), None);
    }
    match timeline.rsplit_once('_').and_then(|(id, count)| Some((id, count.parse().ok()?))) {
        Some((id, count)) => (id.to_owned(), Some(count)),
        // Not named by the catalog.
        None => (format!("{}-{}", ids::first_branch(project), letters(timeline)), None),
    }
}

/// A name as a part of an id.
fn letters(name: &str) -> String {
    let one = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    name.chars().map(one).collect::<String>().to_lowercase()
}

/// Adds a tenant as a project.
pub fn add(catalog: &Connection, tenant: &Tenant) -> Result<(), Error> {
    let project = &tenant.name;
    if let Some(other) = projects::find(catalog, project)? {
        return Err(Error::Refused(format!(
            "region {} and region {} both have project {project}: of a copied bucket only one can be \
             served",
            other.region, tenant.region
        )));
    }
    let first = ids::first_branch(project);
    // What each timeline is called as a branch: its id where it is the newest of its branch, else
    // an id of its own.
    let newest = |branch: &str| {
        let all = tenant.timelines.iter().map(|timeline| branch_of(project, &timeline.name));
        all.filter(|(id, _)| id == branch).map(|(_, count)| count).max()
    };
    let branch_id = |timeline: &str| {
        let (id, count) = branch_of(project, timeline);
        match count {
            _ if newest(&id) == Some(count) => id,
            Some(count) => format!("{id}-{count}"),
            None => format!("{id}-{}", timelines::FIRST),
        }
    };
    projects::insert(
        catalog,
        &Project {
            id: project.clone(),
            region: tenant.region.clone(),
            name: project.clone(),
            template: None,
            history_seconds: tenant.history_seconds,
            settings: json!({}),
            endpoint_settings: json!({}),
            default_branch: first.clone(),
            tenant: Some(tenant.id.clone()),
            created_at: tenant.created_at,
            updated_at: tenant.created_at,
            deleted_at: None,
        },
    )?;
    for timeline in &tenant.timelines {
        let parent = timeline.parent.clone();
        timelines::insert(
            catalog,
            &Timeline {
                project: project.clone(),
                name: timeline.name.clone(),
                parent: parent.clone(),
                moment: None,
            },
            State::Made,
        )?;
        let id = branch_id(&timeline.name);
        branches::insert(
            catalog,
            &Branch {
                name: if id == first { timelines::FIRST.to_owned() } else { id.clone() },
                parent: parent.as_deref().map(branch_id),
                parent_lsn: Some(timeline.branch_point.clone()),
                ..Branch::new(&id, project, &timeline.name, timeline.created_at)
            },
        )?;
        endpoints::insert(catalog, &Endpoint::new(project, &id, timeline.created_at))?;
    }
    consumption::begin_anew(catalog, project)
}
