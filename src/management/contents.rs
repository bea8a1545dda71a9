//! `offshoot role` and `offshoot database`.

use serde_json::{Value, json};

use super::{
    client::Client,
    names::{self, Branch, Project},
    progress::{self, done},
    say::{answer, fields, list},
};
use crate::{
    ask::confirm,
    cli::{DatabaseVerb, RoleVerb, WhereArgs},
    failure::Failure,
    output::say,
    verbs::{Voice, text},
};

/// Carries a verb out.
pub async fn role(client: &Client, voice: Voice, verb: RoleVerb) -> Result<(), Failure> {
    match verb {
        RoleVerb::Create { at, name, no_login } => {
            let (project, branch) = find(client, at).await?;
            let body = json!({ "role": { "name": name, "no_login": no_login } });
            let path = project.path(&["branches", &branch.id, "roles"]);
            let made = progress::during("creating the role", client.post(&path, body)).await?;
            done(client, voice, &project, made, show_role).await
        }
        RoleVerb::List { at } => {
            let (project, branch) = find(client, at).await?;
            let all = roles(client, &project, &branch).await?;
            list(voice, "roles", all, ["name", "authentication", "created"], |role| {
                ["/name", "/authentication_method", "/created_at"].map(|at| text(role, at))
            });
            Ok(())
        }
        RoleVerb::Delete { at, name } => {
            let (project, branch) = find(client, at).await?;
            let path = project.path(&["branches", &branch.id, "roles", &name]);
            let deleted = progress::during("deleting the role", client.delete(&path)).await?;
            done(client, voice, &project, deleted, |_| {
                say!("role {name} of {} is deleted", branch.name);
            })
            .await
        }
        RoleVerb::ResetPassword { at, name } => {
            let (project, branch) = find(client, at).await?;
            let path = project.path(&["branches", &branch.id, "roles", &name, "reset_password"]);
            let work = client.post(&path, json!({}));
            let reset = progress::during("resetting the password", work).await?;
            done(client, voice, &project, reset, show_role).await
        }
        RoleVerb::RevealPassword { at, name } => {
            let (project, branch) = find(client, at).await?;
            let path = project.path(&["branches", &branch.id, "roles", &name, "reveal_password"]);
            let revealed = client.get(&path, &[]).await?;
            answer(voice, &revealed, |revealed| say!("{}", text(revealed, "/password")));
            Ok(())
        }
    }
}

/// Carries a verb out.
pub async fn database(client: &Client, voice: Voice, verb: DatabaseVerb) -> Result<(), Failure> {
    match verb {
        DatabaseVerb::Create { at, name, owner } => {
            let (project, branch) = find(client, at).await?;
            let owner = match owner {
                Some(owner) => owner,
                None => only_role(&branch, &roles(client, &project, &branch).await?)?,
            };
            let body = json!({ "database": { "name": name, "owner_name": owner } });
            let path = project.path(&["branches", &branch.id, "databases"]);
            let made = progress::during("creating the database", client.post(&path, body)).await?;
            done(client, voice, &project, made, show_database).await
        }
        DatabaseVerb::List { at } => {
            let (project, branch) = find(client, at).await?;
            let all = databases(client, &project, &branch).await?;
            list(voice, "databases", all, ["name", "owner", "created"], |database| {
                ["/name", "/owner_name", "/created_at"].map(|at| text(database, at))
            });
            Ok(())
        }
        DatabaseVerb::Update { at, database, change } => {
            let (project, branch) = find(client, at).await?;
            let change = match (change.name, change.owner) {
                (Some(name), _) => json!({ "name": name }),
                (None, owner) => json!({ "owner_name": owner }),
            };
            let path = project.path(&["branches", &branch.id, "databases", &database]);
            let work = client.patch(&path, json!({ "database": change }));
            let changed = progress::during("changing the database", work).await?;
            done(client, voice, &project, changed, show_database).await
        }
        DatabaseVerb::Delete { at, name, yes } => {
            let (project, branch) = find(client, at).await?;
            if !yes {
                let what = format!("database {name} of branch {}", branch.name);
                confirm(&what, "with all that is in it", &name)?;
            }
            let path = project.path(&["branches", &branch.id, "databases", &name]);
            let deleted = progress::during("deleting the database", client.delete(&path)).await?;
            done(client, voice, &project, deleted, |_| {
                say!("database {name} of {} is deleted", branch.name);
            })
            .await
        }
    }
}

async fn find(client: &Client, at: WhereArgs) -> Result<(Project, Branch), Failure> {
    names::project_and_branch(client, &at.project, at.branch.as_deref()).await
}

/// A branch's roles.
pub async fn roles(
    client: &Client,
    project: &Project,
    branch: &Branch,
) -> Result<Vec<Value>, Failure> {
    client.all(&project.path(&["branches", &branch.id, "roles"]), "roles", &[], None).await
}

/// A branch's databases.
pub async fn databases(
    client: &Client,
    project: &Project,
    branch: &Branch,
) -> Result<Vec<Value>, Failure> {
    client.all(&project.path(&["branches", &branch.id, "databases"]), "databases", &[], None).await
}

fn only_role(branch: &Branch, roles: &[Value]) -> Result<String, Failure> {
    match roles {
        [role] => Ok(text(role, "/name")),
        [] => Err(Failure::new(format!(
            "branch {} has no role that could own a database: create one first",
            branch.name
        ))),
        many => {
            let names: Vec<_> = many.iter().map(|role| text(role, "/name")).collect();
            Err(Failure::new(format!(
                "branch {} has the roles {}: --owner says which one owns the database",
                branch.name,
                names.join(", ")
            )))
        }
    }
}

fn show_role(answer: &Value) {
    fields(
        &answer["role"],
        &[
            ("role", "/name"),
            ("branch", "/branch_id"),
            ("authentication", "/authentication_method"),
            ("password", "/password"),
        ],
    );
}

fn show_database(answer: &Value) {
    fields(
        &answer["database"],
        &[("database", "/name"), ("branch", "/branch_id"), ("owner", "/owner_name")],
    );
}
