//! What people call things, and the ids that the API wants.

use serde_json::Value;

use super::client::Client;
use crate::{failure::Failure, verbs::text};

/// A project that was named.
pub struct Project {
    pub id: String,
    pub name: String,
    pub default_branch: String,
}

impl Project {
    /// What the API says of a project, if that is what it says.
    pub fn of(shown: &Value) -> Option<Project> {
        let field = |at: &str| shown.pointer(at).and_then(Value::as_str).map(str::to_owned);
        Some(Project {
            id: field("/project/id")?,
            name: field("/project/name")?,
            default_branch: field("/project/default_branch_id")?,
        })
    }

    /// The path of what belongs to it.
    pub fn path<'p>(&'p self, rest: &[&'p str]) -> Vec<&'p str> {
        [&["projects", self.id.as_str()], rest].concat()
    }
}

/// A branch that was named.
pub struct Branch {
    pub id: String,
    pub name: String,
}

/// Finds a project by its id, or else by its name.
pub async fn project(client: &Client, said: &str) -> Result<Project, Failure> {
    match client.get(&["projects", said], &[]).await.map(|shown| Project::of(&shown)) {
        Ok(Some(found)) => return Ok(found),
        // Some names are paths of the API's own.
        Ok(None) => {}
        Err(failure) if failure.is_not_found() => {}
        Err(failure) => return Err(failure),
    }
    let found = projects(client, said, false).await?;
    let id = only("project", said, &found, || {
        format!("there is no project {said:?}: `offshoot project list` shows them all")
    })?;
    let shown = client.get(&["projects", &id], &[]).await?;
    Project::of(&shown).ok_or_else(|| Failure::new(format!("project {id} is not shown as one")))
}

/// The id of a deleted project that can be restored.
pub async fn deleted_project(client: &Client, said: &str) -> Result<String, Failure> {
    let found = projects(client, said, true).await?;
    only("project", said, &found, || {
        format!(
            "there is no deleted project {said:?} that can be restored: `offshoot project list \
             --deleted` shows them all"
        )
    })
}

async fn projects(client: &Client, said: &str, deleted: bool) -> Result<Vec<Value>, Failure> {
    let recoverable = if deleted { "true" } else { "false" };
    let query = [("search", said), ("recoverable", recoverable)];
    client.all(&["projects"], "projects", &query, None).await
}

/// Finds a branch of a project by its id or name; the default one where none was said.
pub async fn branch(
    client: &Client,
    project: &Project,
    said: Option<&str>,
) -> Result<Branch, Failure> {
    let said = said.unwrap_or(&project.default_branch);
    let path = project.path(&["branches"]);
    let found = client.all(&path, "branches", &[("search", said)], None).await?;
    let id = only("branch", said, &found, || {
        let Project { name, .. } = project;
        format!("project {name} has no branch {said:?}: `offshoot branch list {name}` shows them")
    })?;
    let name = found.iter().find(|branch| branch["id"] == id.as_str());
    Ok(Branch { name: name.map(|branch| text(branch, "/name")).unwrap_or_default(), id })
}

/// Finds a project, and a branch of it as [`branch`] does.
pub async fn project_and_branch(
    client: &Client,
    said: &str,
    branch_said: Option<&str>,
) -> Result<(Project, Branch), Failure> {
    let project = project(client, said).await?;
    let branch = branch(client, &project, branch_said).await?;
    Ok((project, branch))
}

/// A project's endpoints.
pub async fn endpoints(client: &Client, project: &Project) -> Result<Vec<Value>, Failure> {
    client.all(&project.path(&["endpoints"]), "endpoints", &[], None).await
}

/// Finds an endpoint of a project by its id or name; or by its branch's, the default one's where none
/// was said: the one to read and write, where it has that. Its id.
pub async fn endpoint(
    client: &Client,
    project: &Project,
    said: Option<&str>,
) -> Result<String, Failure> {
    let all = endpoints(client, project).await?;
    if let Some(said) = said {
        let named: Vec<Value> = all.iter().filter(|it| is(it, said)).cloned().collect();
        if !named.is_empty() {
            return only("endpoint", said, &named, String::new);
        }
    }
    let name = &project.name;
    let branch = branch(client, project, said).await.map_err(|failure| {
        if !failure.is_not_found() {
            return failure;
        }
        Failure::not_found(format!(
            "project {name} has neither an endpoint nor a branch {:?}: `offshoot endpoint list \
             {name}` shows them",
            said.unwrap_or_default()
        ))
    })?;
    let is_its = |endpoint: &&Value| endpoint["branch_id"] == branch.id.as_str();
    let its: Vec<&Value> = all.iter().filter(is_its).collect();
    let to_write = its.iter().find(|endpoint| endpoint["type"] == "read_write");
    to_write.or(its.first()).map(|endpoint| text(endpoint, "/id")).ok_or_else(|| {
        Failure::not_found(format!(
            "branch {:?} has no endpoint: `offshoot endpoint create {name} {}` makes one",
            branch.name, branch.name
        ))
    })
}

fn is(thing: &Value, said: &str) -> bool {
    thing["id"] == said || thing["name"] == said
}

/// The id of the one thing that is called so: an id comes before a name.
fn only(
    kind: &str,
    said: &str,
    found: &[Value],
    none: impl FnOnce() -> String,
) -> Result<String, Failure> {
    if found.iter().any(|thing| thing["id"] == said) {
        return Ok(said.to_owned());
    }
    let ids: Vec<String> =
        found.iter().filter(|thing| is(thing, said)).map(|thing| text(thing, "/id")).collect();
    match ids.as_slice() {
        [] => Err(Failure::not_found(none())),
        [id] => Ok(id.clone()),
        many => Err(Failure::conflict(format!(
            "{} have the name {said:?}: say one by its id ({})",
            count(many.len(), kind),
            many.join(", ")
        ))),
    }
}

fn count(number: usize, kind: &str) -> String {
    let ending = if kind.ends_with("ch") { "es" } else { "s" };
    format!("{number} {kind}{ending}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_comes_before_a_name_and_a_name_that_two_have_is_refused() {
        let found = [
            json!({ "id": "a", "name": "shop" }),
            json!({ "id": "b", "name": "shop" }),
            json!({ "id": "c", "name": "a" }),
            json!({ "id": "d", "name": "shopping" }),
        ];
        let only = |said: &str| only("project", said, &found, || "none".to_owned());
        assert_eq!(only("a").ok().as_deref(), Some("a"));
        assert_eq!(only("shopping").ok().as_deref(), Some("d"));
        let failure = only("shop").expect_err("two are called so").to_string();
        assert!(failure.contains("2 projects") && failure.contains("a, b"), "{failure}");
        assert!(only("sho").is_err_and(|failure| failure.is_not_found()));
    }
}
