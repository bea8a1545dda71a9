//! `offshoot project`.

use serde_json::{Value, json};

use super::{
    client::Client,
    names::{self, Project},
    progress,
    say::{fields, list, suspend_after, time},
};
use crate::{
    ask::confirm,
    cli::{CreateProjectArgs, ProjectOptions, ProjectVerb},
    failure::Failure,
    output::{self, say},
    verbs::{Voice, text},
};

/// Carries a verb out.
pub async fn project(client: &Client, voice: Voice, verb: ProjectVerb) -> Result<(), Failure> {
    match verb {
        ProjectVerb::Create(args) => create(client, voice, args).await,
        ProjectVerb::List { search, deleted } => {
            let recoverable = deleted.to_string();
            let mut query = vec![("recoverable", recoverable.as_str())];
            query.extend(search.as_deref().map(|search| ("search", search)));
            let all = client.all(&["projects"], "projects", &query, None).await?;
            match deleted {
                false => list(voice, "projects", all, TITLES, row),
                true => list(voice, "projects", all, DELETED_TITLES, deleted_row),
            }
            Ok(())
        }
        ProjectVerb::Show { project } => {
            let project = names::project(client, &project).await?;
            let shown = client.get(&project.path(&[]), &[]).await?;
            show(voice, &shown);
            Ok(())
        }
        ProjectVerb::Update { project, name, options } => {
            let project = names::project(client, &project).await?;
            let mut change = json!({});
            say_options(&mut change, name, &options);
            if change == json!({}) {
                return Err(Failure::new(
                    "say what is to be changed: --name, --history or --suspend-after",
                ));
            }
            let mut changed =
                client.patch(&project.path(&[]), json!({ "project": change })).await?;
            progress::finish(client, &project, &mut changed).await?;
            show(voice, &changed);
            Ok(())
        }
        ProjectVerb::Delete { project, yes } => {
            let project = names::project(client, &project).await?;
            if !yes {
                let what = format!("project {}", project.name);
                confirm(&what, "and can be restored for a week", &project.name)?;
            }
            let path = project.path(&[]);
            let work = client.delete(&path);
            let deleted = progress::during("ending the project's computes", work).await?;
            if voice.json {
                output::json(&deleted);
                return Ok(());
            }
            let until = text(&deleted, "/project/recoverable_until");
            say!("project {} is deleted; until {until} it can be restored:", project.name);
            say!("  offshoot project restore {}", project.id);
            Ok(())
        }
        ProjectVerb::Restore { project } => {
            let id = names::deleted_project(client, &project).await?;
            let restored = client.post(&["projects", &id, "recover"], json!({})).await?;
            show(voice, &restored);
            Ok(())
        }
    }
}

async fn create(client: &Client, voice: Voice, args: CreateProjectArgs) -> Result<(), Failure> {
    let mut new = json!({});
    say_options(&mut new, args.name, &args.options);
    let texts = [
        ("/template", args.template),
        ("/region_id", args.region),
        ("/branch/name", args.branch),
        ("/branch/role_name", args.role),
        ("/branch/database_name", args.database),
    ];
    new["branch"] = json!({});
    for (at, said) in texts {
        let (object, field) = at.rsplit_once('/').unwrap_or_default();
        if let (Some(said), Some(object)) = (said, new.pointer_mut(object)) {
            object[field] = said.into();
        }
    }
    if let Some(version) = args.pg_version {
        new["pg_version"] = version.into();
    }
    let mut created = client.post(&["projects"], json!({ "project": new })).await?;
    let made = Project::of(&created)
        .ok_or_else(|| Failure::new("the control plane does not say which project it made"))?;
    progress::finish(client, &made, &mut created).await?;
    if voice.json {
        output::json(&created);
        return Ok(());
    }
    fields(
        &created,
        &[
            ("project", "/project/name"),
            ("id", "/project/id"),
            ("region", "/project/region_id"),
            ("branch", "/branch/name"),
            ("endpoint", "/endpoints/0/id"),
            ("role", "/roles/0/name"),
            ("database", "/databases/0/name"),
            ("connect", "/connection_uris/0/connection_uri"),
        ],
    );
    say!("next: offshoot psql {}", made.name);
    Ok(())
}

/// What was said of a project, as the API takes it.
fn say_options(project: &mut Value, name: Option<String>, options: &ProjectOptions) {
    if let Some(name) = name {
        project["name"] = name.into();
    }
    if let Some(history) = options.history {
        project["history_retention_seconds"] = history.as_secs().into();
    }
    if let Some(seconds) = options.suspend_after {
        project["default_endpoint_settings"] = json!({ "suspend_timeout_seconds": seconds });
    }
}

const TITLES: [&str; 5] = ["name", "id", "region", "history", "created"];

fn row(project: &Value) -> [String; 5] {
    let [name, id, region, created] =
        ["/name", "/id", "/region_id", "/created_at"].map(|at| text(project, at));
    [name, id, region, history(project), created]
}

const DELETED_TITLES: [&str; 4] = ["name", "id", "deleted", "can be restored until"];

fn deleted_row(project: &Value) -> [String; 4] {
    ["/name", "/id", "/deleted_at", "/recoverable_until"].map(|at| text(project, at))
}

fn history(project: &Value) -> String {
    time(project["history_retention_seconds"].as_u64().unwrap_or_default())
}

fn show(voice: Voice, shown: &Value) {
    if voice.json {
        output::json(shown);
        return;
    }
    let mut shown = shown["project"].clone();
    shown["history"] = history(&shown).into();
    shown["suspend"] = suspend_after(&shown["default_endpoint_settings"]).into();
    fields(
        &shown,
        &[
            ("project", "/name"),
            ("id", "/id"),
            ("region", "/region_id"),
            ("postgres", "/pg_version"),
            ("default branch", "/default_branch_id"),
            ("history", "/history"),
            ("suspend after", "/suspend"),
            ("created", "/created_at"),
            ("updated", "/updated_at"),
        ],
    );
}
