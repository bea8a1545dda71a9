//! `offshoot project`.

use serde_json::{Value, json};

use super::{
    client::Client,
    names::{self, Project},
    progress::{self, done},
    say::{answer, fields, list, set, suspend_after, time},
    usage,
};
use crate::{
    ask::confirm,
    cli::{CreateProjectArgs, ProjectOptions, ProjectVerb},
    failure::Failure,
    output::say,
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
            answer(voice, &shown, show);
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
            let changed = client.patch(&project.path(&[]), json!({ "project": change })).await?;
            done(client, voice, &project, changed, show).await
        }
        ProjectVerb::Usage(args) => usage::usage(client, voice, args).await,
        ProjectVerb::SetQuota { project, quota } => {
            let project = names::project(client, &project).await?;
            usage::set_quota(client, voice, &project, quota).await
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
            answer(voice, &deleted, |deleted| {
                let until = text(deleted, "/project/recoverable_until");
                say!("project {} is deleted; until {until} it can be restored:", project.name);
                say!("  offshoot project restore {}", project.id);
            });
            Ok(())
        }
        ProjectVerb::Restore { project } => {
            let id = names::deleted_project(client, &project).await?;
            let restored = client.post(&["projects", &id, "recover"], json!({})).await?;
            answer(voice, &restored, show);
            Ok(())
        }
    }
}

async fn create(client: &Client, voice: Voice, args: CreateProjectArgs) -> Result<(), Failure> {
    let mut new = json!({});
    say_options(&mut new, args.name, &args.options);
    let of_project = [
        ("template", args.template.map(Value::from)),
        ("region_id", args.region.map(Value::from)),
        ("pg_version", args.pg_version.map(Value::from)),
    ];
    set(&mut new, of_project);
    let of_branch = [
        ("name", args.branch.map(Value::from)),
        ("role_name", args.role.map(Value::from)),
        ("database_name", args.database.map(Value::from)),
    ];
    let mut branch = json!({});
    set(&mut branch, of_branch);
    new["branch"] = branch;
    let created = client.post(&["projects"], json!({ "project": new })).await?;
    let made = Project::of(&created)
        .ok_or_else(|| Failure::new("the control plane does not say which project it made"))?;
    done(client, voice, &made, created, |created| show_created(&made, created)).await
}

fn show_created(made: &Project, created: &Value) {
    fields(
        created,
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
}

/// What was said of a project, as the API takes it.
fn say_options(project: &mut Value, name: Option<String>, options: &ProjectOptions) {
    let settings = |seconds| json!({ "suspend_timeout_seconds": seconds });
    let said = [
        ("name", name.map(Value::from)),
        ("history_retention_seconds", options.history.map(|history| history.as_secs().into())),
        ("default_endpoint_settings", options.suspend_after.map(settings)),
    ];
    set(project, said);
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

fn show(shown: &Value) {
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
    usage::show_quotas(&shown);
}
