//! `offshoot branch`.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{
    client::Client,
    names::{self, Branch, Project},
    progress::{self, done},
    say::{answer, fields, list, set, yes_or_no},
};
use crate::{
    ask::confirm,
    cli::{BranchArgs, BranchVerb, ExpiryArgs, MomentArgs},
    failure::Failure,
    output::{self, say},
    verbs::{Voice, bytes, text},
};

/// Carries a verb out.
pub async fn branch(client: &Client, voice: Voice, verb: BranchVerb) -> Result<(), Failure> {
    match verb {
        BranchVerb::Create {
            project,
            name,
            parent,
            moment,
            schema_only,
            no_compute,
            protected,
            expires_in,
        } => {
            let project = names::project(client, &project).await?;
            let parent = names::branch(client, &project, parent.as_deref()).await?;
            let mut new = json!({ "parent_id": parent.id, "protected": protected });
            let said = [
                ("name", name.map(Value::from)),
                ("init_source", schema_only.then(|| "schema-only".into())),
                ("parent_lsn", moment.lsn.map(Value::from)),
                ("parent_timestamp", moment.timestamp.map(Value::from)),
                ("expires_at", expires_in.map(from_now).map(Value::from)),
            ];
            set(&mut new, said);
            let endpoints = if no_compute { json!([]) } else { json!([{ "type": "read_write" }]) };
            create(client, voice, &project, json!({ "branch": new, "endpoints": endpoints })).await
        }
        BranchVerb::List { project, search } => {
            let project = names::project(client, &project).await?;
            let query: Vec<_> = search.iter().map(|text| ("search", text.as_str())).collect();
            let path = project.path(&["branches"]);
            let all = client.all(&path, "branches", &query, None).await?;
            let names: Vec<_> = all.iter().map(|it| (text(it, "/id"), text(it, "/name"))).collect();
            list(voice, "branches", all, TITLES, |branch| row(branch, &names));
            Ok(())
        }
        BranchVerb::Show(of) => {
            let (project, branch) = find(client, &of).await?;
            let shown = client.get(&project.path(&["branches", &branch.id]), &[]).await?;
            answer(voice, &shown, show);
            Ok(())
        }
        BranchVerb::Rename { of, name } => {
            change(client, voice, &of, json!({ "name": name })).await
        }
        BranchVerb::Protect(of) => change(client, voice, &of, json!({ "protected": true })).await,
        BranchVerb::Unprotect(of) => {
            change(client, voice, &of, json!({ "protected": false })).await
        }
        BranchVerb::Expire { of, when: ExpiryArgs { after, at, never: _ } } => {
            let at = at.or_else(|| after.map(from_now));
            change(client, voice, &of, json!({ "expires_at": at })).await
        }
        BranchVerb::SetDefault(of) => {
            let (project, branch) = find(client, &of).await?;
            let path = project.path(&["branches", &branch.id, "set_as_default"]);
            let changed = client.post(&path, json!({})).await?;
            done(client, voice, &project, changed, show).await
        }
        BranchVerb::Reset { of, keep_as } => {
            let (project, branch) = find(client, &of).await?;
            let shown = client.get(&project.path(&["branches", &branch.id]), &[]).await?;
            let parent = shown.pointer("/branch/parent_id").and_then(Value::as_str);
            let parent = parent.ok_or_else(|| {
                Failure::new(format!(
                    "branch {} has no parent to be reset to: `offshoot branch restore` puts it \
                     back to a moment of its own",
                    branch.name
                ))
            })?;
            let moment = MomentArgs { lsn: None, timestamp: None };
            restore(client, voice, (&project, &branch), parent, moment, keep_as).await
        }
        BranchVerb::Restore { of, from, moment, keep_as } => {
            let (project, branch) = find(client, &of).await?;
            let source = match from {
                Some(from) => names::branch(client, &project, Some(&from)).await?.id,
                None => branch.id.clone(),
            };
            restore(client, voice, (&project, &branch), &source, moment, keep_as).await
        }
        BranchVerb::Schema { of, database, moment } => {
            let (project, branch) = find(client, &of).await?;
            let database = match database {
                Some(database) => database,
                None => only_database(client, &project, &branch).await?,
            };
            let mut query = vec![("db_name", database.as_str())];
            query.extend(moment.lsn.as_deref().map(|lsn| ("lsn", lsn)));
            query.extend(moment.timestamp.as_deref().map(|at| ("timestamp", at)));
            let path = project.path(&["branches", &branch.id, "schema"]);
            let shown = progress::during("dumping the schema", client.get(&path, &query)).await?;
            answer(voice, &shown, |shown| output::text(&text(shown, "/sql")));
            Ok(())
        }
        BranchVerb::Delete { of, yes } => {
            let (project, branch) = find(client, &of).await?;
            if !yes {
                let what = format!("branch {} of {}", branch.name, project.name);
                confirm(&what, "and there is no way back", &branch.name)?;
            }
            let path = project.path(&["branches", &branch.id]);
            let work = client.delete(&path);
            let deleted = progress::during("deleting the branch", work).await?;
            done(client, voice, &project, deleted, |_| {
                say!("branch {} of {} is deleted", branch.name, project.name);
            })
            .await
        }
    }
}

async fn only_database(
    client: &Client,
    project: &Project,
    branch: &Branch,
) -> Result<String, Failure> {
    let path = project.path(&["branches", &branch.id, "databases"]);
    let all = client.all(&path, "databases", &[], None).await?;
    match all.as_slice() {
        [only] => Ok(text(only, "/name")),
        _ => {
            let names: Vec<_> = all.iter().map(|database| text(database, "/name")).collect();
            Err(Failure::new(format!(
                "say which database: --database, of {} has {}",
                branch.name,
                names.join(", ")
            )))
        }
    }
}

async fn find(client: &Client, of: &BranchArgs) -> Result<(Project, Branch), Failure> {
    names::project_and_branch(client, &of.project, Some(&of.branch)).await
}

/// The moment after this time, as the API reads it.
fn from_now(after: Duration) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + after).to_string()
}

async fn create(
    client: &Client,
    voice: Voice,
    project: &Project,
    body: Value,
) -> Result<(), Failure> {
    let path = project.path(&["branches"]);
    let work = client.post(&path, body);
    let created = progress::during("making the branch", work).await?;
    done(client, voice, project, created, |created| show_created(project, created)).await
}

fn show_created(project: &Project, created: &Value) {
    fields(
        created,
        &[
            ("branch", "/branch/name"),
            ("id", "/branch/id"),
            ("made of", "/branch/parent_id"),
            ("at", "/branch/parent_lsn"),
            ("expires", "/branch/expires_at"),
            ("endpoint", "/endpoints/0/id"),
            ("connect", "/connection_uris/0/connection_uri"),
        ],
    );
    let name = text(created, "/branch/name");
    match created.pointer("/endpoints/0") {
        Some(_) => say!("next: offshoot psql {} {name}", project.name),
        None => say!("next: offshoot endpoint create {} {name}", project.name),
    }
}

async fn change(
    client: &Client,
    voice: Voice,
    of: &BranchArgs,
    change: Value,
) -> Result<(), Failure> {
    let (project, branch) = find(client, of).await?;
    let path = project.path(&["branches", &branch.id]);
    let changed = client.patch(&path, json!({ "branch": change })).await?;
    done(client, voice, &project, changed, show).await
}

async fn restore(
    client: &Client,
    voice: Voice,
    (project, branch): (&Project, &Branch),
    source: &str,
    moment: MomentArgs,
    keep_as: Option<String>,
) -> Result<(), Failure> {
    let mut body = json!({ "source_branch_id": source });
    let said = [
        ("source_lsn", moment.lsn.map(Value::from)),
        ("source_timestamp", moment.timestamp.map(Value::from)),
        ("preserve_under_name", keep_as.map(Value::from)),
    ];
    set(&mut body, said);
    let path = project.path(&["branches", &branch.id, "restore"]);
    let work = client.post(&path, body);
    let restored = progress::during("putting the branch back", work).await?;
    done(client, voice, project, restored, show).await
}

fn show(shown: &Value) {
    let mut branch = shown["branch"].clone();
    branch["size"] = bytes(&branch, "/logical_size").into();
    for flag in ["default", "protected"] {
        branch[flag] = yes_or_no(&branch, &format!("/{flag}")).into();
    }
    fields(
        &branch,
        &[
            ("branch", "/name"),
            ("id", "/id"),
            ("state", "/current_state"),
            ("default", "/default"),
            ("protected", "/protected"),
            ("made of", "/parent_id"),
            ("at", "/parent_lsn"),
            ("size", "/size"),
            ("expires", "/expires_at"),
            ("last reset", "/last_reset_at"),
            ("created", "/created_at"),
        ],
    );
}

const TITLES: [&str; 8] =
    ["name", "id", "made of", "at", "default", "protected", "expires", "created"];

fn row(branch: &Value, names: &[(String, String)]) -> [String; 8] {
    let parent = text(branch, "/parent_id");
    let parent = names.iter().find(|(id, _)| *id == parent).map_or(parent, |(_, it)| it.clone());
    [
        text(branch, "/name"),
        text(branch, "/id"),
        parent,
        text(branch, "/parent_lsn"),
        yes_or_no(branch, "/default"),
        yes_or_no(branch, "/protected"),
        text(branch, "/expires_at"),
        text(branch, "/created_at"),
    ]
}
