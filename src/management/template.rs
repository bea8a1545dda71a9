//! `offshoot template`, but for `import`, which is the pageserver's.

use serde_json::{Value, json};

use super::{
    client::Client,
    names,
    progress::done,
    say::{answer, fields, list, set},
};
use crate::{
    cli::{MomentArgs, TemplateVerb},
    failure::Failure,
    output::say,
    verbs::{self, Voice, bytes, text},
};

/// Carries a verb out. An import needs no API key.
pub async fn template(
    client: impl FnOnce() -> Result<Client, Failure>,
    storage: &crate::api::Api,
    voice: Voice,
    verb: TemplateVerb,
) -> Result<(), Failure> {
    match verb {
        TemplateVerb::Import { name, pgdata } => {
            verbs::import_template(storage, voice, &name, &pgdata).await
        }
        TemplateVerb::Create { name, project, branch, moment } => {
            create(&client()?, voice, &name, &project, branch.as_deref(), moment).await
        }
        TemplateVerb::List => {
            let all = client()?.all(&["templates"], "templates", &[], None).await?;
            list(voice, "templates", all, TITLES, row);
            Ok(())
        }
        TemplateVerb::Show { template, region } => {
            let shown = client()?.get(&["templates", &template], &within(&region)).await?;
            answer(voice, &shown, show);
            Ok(())
        }
        TemplateVerb::Delete { template, region } => {
            let path = ["templates", &template];
            let deleted = client()?.delete_of(&path, &within(&region)).await?;
            answer(voice, &deleted, |_| say!("template {template} deleted"));
            Ok(())
        }
    }
}

async fn create(
    client: &Client,
    voice: Voice,
    name: &str,
    project: &str,
    branch: Option<&str>,
    moment: MomentArgs,
) -> Result<(), Failure> {
    let (project, branch) = names::project_and_branch(client, project, branch).await?;
    let mut new = json!({ "name": name, "project_id": project.id, "branch_id": branch.id });
    let said =
        [("lsn", moment.lsn.map(Value::from)), ("timestamp", moment.timestamp.map(Value::from))];
    set(&mut new, said);
    let made = client.post(&["templates"], json!({ "template": new })).await?;
    done(client, voice, &project, made, |_| {
        say!("template {name} is made of branch {} of {}", branch.name, project.name);
        say!("use it: offshoot project create NAME --template {name}");
    })
    .await
}

/// Of which region, where it is said.
fn within(region: &Option<String>) -> Vec<(&str, &str)> {
    region.iter().map(|region| ("region_id", region.as_str())).collect()
}

fn show(shown: &Value) {
    let mut shown = shown["template"].clone();
    for (field, at) in
        [("size", "/logical_size_bytes"), ("copied", "/copied_bytes"), ("stored", "/stored_bytes")]
    {
        shown[field] = bytes(&shown, at).into();
    }
    fields(
        &shown,
        &[
            ("template", "/name"),
            ("id", "/id"),
            ("region", "/region_id"),
            ("state", "/current_state"),
            ("project", "/project_id"),
            ("branch", "/branch_id"),
            ("lsn", "/lsn"),
            ("size", "/size"),
            ("copied", "/copied"),
            ("stored", "/stored"),
            ("created", "/created_at"),
        ],
    );
}

const TITLES: [&str; 7] = ["name", "region", "state", "of", "size", "stored", "created"];

fn row(template: &Value) -> [String; 7] {
    let fields = ["/name", "/region_id", "/current_state", "/project_id", "/created_at"];
    let [name, region, state, of, created] = fields.map(|at| text(template, at));
    let [size, stored] = ["/logical_size_bytes", "/stored_bytes"].map(|at| bytes(template, at));
    [name, region, state, of, size, stored, created]
}
