//! `offshoot endpoint`.

use serde_json::{Map, Value, json};

use super::{
    client::Client,
    names::{self, Project},
    progress::{self, done},
    say::{answer, fields, list, set, suspend_after, yes_or_no},
};
use crate::{
    cli::{EndpointArgs, EndpointOptions, EndpointVerb},
    failure::Failure,
    output::say,
    verbs::{Voice, stages, text},
};

/// Carries a verb out.
pub async fn endpoint(client: &Client, voice: Voice, verb: EndpointVerb) -> Result<(), Failure> {
    match verb {
        EndpointVerb::Create { project, branch, read_only, options } => {
            let project = names::project(client, &project).await?;
            let branch = names::branch(client, &project, Some(&branch)).await?;
            let kind = if read_only { "read_only" } else { "read_write" };
            let mut new = json!({ "branch_id": branch.id, "type": kind });
            say_options(&mut new, options, &Value::Null);
            let path = project.path(&["endpoints"]);
            let created = client.post(&path, json!({ "endpoint": new })).await?;
            done(client, voice, &project, created, show).await
        }
        EndpointVerb::List { project } => {
            let project = names::project(client, &project).await?;
            let all = names::endpoints(client, &project).await?;
            list(voice, "endpoints", all, TITLES, row);
            Ok(())
        }
        EndpointVerb::Show(of) => {
            let (project, id) = find(client, &of).await?;
            let shown = client.get(&project.path(&["endpoints", &id]), &[]).await?;
            answer(voice, &shown, show);
            Ok(())
        }
        EndpointVerb::Start { of, trace } => ask(client, voice, of, "start", trace).await,
        EndpointVerb::Suspend(of) => ask(client, voice, of, "suspend", false).await,
        EndpointVerb::Restart(of) => ask(client, voice, of, "restart", false).await,
        EndpointVerb::Update { of, options, disable, enable } => {
            let (project, id) = find(client, &of).await?;
            let path = project.path(&["endpoints", &id]);
            let now = client.get(&path, &[]).await?;
            let mut change = json!({});
            say_options(&mut change, options, &now["endpoint"]["settings"]);
            if disable || enable {
                change["disabled"] = disable.into();
            }
            if change == json!({}) {
                return Err(Failure::new(
                    "say what is to be changed: `offshoot endpoint update --help` has it all",
                ));
            }
            let changed = client.patch(&path, json!({ "endpoint": change })).await?;
            done(client, voice, &project, changed, show).await
        }
        EndpointVerb::Delete(of) => {
            let (project, id) = find(client, &of).await?;
            let path = project.path(&["endpoints", &id]);
            let what = format!("suspending the compute of {id}");
            let deleted = progress::during(&what, client.delete(&path)).await?;
            done(client, voice, &project, deleted, |_| {
                say!("endpoint {id} of {} is deleted; its branch stays", project.name);
            })
            .await
        }
    }
}

async fn find(client: &Client, of: &EndpointArgs) -> Result<(Project, String), Failure> {
    let project = names::project(client, &of.project).await?;
    let id = names::endpoint(client, &project, Some(&of.endpoint)).await?;
    Ok((project, id))
}

/// What was said of an endpoint, as the API takes it: its settings are said as a whole.
fn say_options(endpoint: &mut Value, options: EndpointOptions, settings: &Value) {
    let EndpointOptions { name, min_cu, max_cu, suspend_after, settings: said } = options;
    let fields = [
        ("name", name.map(Value::from)),
        ("autoscaling_limit_min_cu", min_cu.map(Value::from)),
        ("autoscaling_limit_max_cu", max_cu.map(Value::from)),
        ("suspend_timeout_seconds", suspend_after.map(Value::from)),
    ];
    set(endpoint, fields);
    if said.is_empty() {
        return;
    }
    let mut settings = settings.as_object().cloned().unwrap_or_default();
    let of_postgres = settings.entry("pg_settings").or_insert_with(|| Map::new().into());
    for (name, value) in said {
        of_postgres[name] = value.into();
    }
    endpoint["settings"] = settings.into();
}

/// Has a compute started or suspended, waits for that, and shows what the endpoint is then.
async fn ask(
    client: &Client,
    voice: Voice,
    of: EndpointArgs,
    verb: &str,
    trace: bool,
) -> Result<(), Failure> {
    let (project, id) = find(client, &of).await?;
    let mut asked = client.post(&project.path(&["endpoints", &id, verb]), json!({})).await?;
    progress::finish(client, &project, &mut asked).await?;
    let mut shown = client.get(&project.path(&["endpoints", &id]), &[]).await?;
    asked["endpoint"] = shown["endpoint"].take();
    if trace {
        asked["trace"] = client.get(&project.path(&["endpoints", &id, "trace"]), &[]).await?;
    }
    answer(voice, &asked, |asked| {
        show(asked);
        if trace {
            say!("{}", stages(&asked["trace"]["stages"]));
        }
    });
    Ok(())
}

fn show(shown: &Value) {
    let mut endpoint = shown["endpoint"].clone();
    endpoint["suspend"] = suspend_after(&endpoint).into();
    endpoint["disabled"] = yes_or_no(&endpoint, "/disabled").into();
    let settings = endpoint.pointer("/settings/pg_settings").and_then(Value::as_object);
    let setting = |(name, value): (&String, &Value)| {
        format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let settings: Vec<_> = settings.into_iter().flatten().map(setting).collect();
    endpoint["set"] = settings.join(" ").into();
    fields(
        &endpoint,
        &[
            ("endpoint", "/id"),
            ("name", "/name"),
            ("branch", "/branch_id"),
            ("type", "/type"),
            ("host", "/host"),
            ("state", "/current_state"),
            ("disabled", "/disabled"),
            ("suspend after", "/suspend"),
            ("least units", "/autoscaling_limit_min_cu"),
            ("most units", "/autoscaling_limit_max_cu"),
            ("settings", "/set"),
            ("started", "/started_at"),
            ("suspended", "/suspended_at"),
            ("created", "/created_at"),
        ],
    );
}

const TITLES: [&str; 7] = ["id", "branch", "type", "state", "host", "suspend after", "started"];

fn row(endpoint: &Value) -> [String; 7] {
    let [id, branch, kind, state, host, started] =
        ["/id", "/branch_id", "/type", "/current_state", "/host", "/started_at"]
            .map(|at| text(endpoint, at));
    [id, branch, kind, state, host, suspend_after(endpoint), started]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_said_leaves_the_others() {
        let options = EndpointOptions {
            name: None,
            min_cu: None,
            max_cu: None,
            suspend_after: Some(-1),
            settings: vec![("jit".to_owned(), "off".to_owned())],
        };
        let now = json!({ "pg_settings": { "work_mem": "64MB" } });
        let mut change = json!({});
        say_options(&mut change, options, &now);
        let settings = json!({ "pg_settings": { "work_mem": "64MB", "jit": "off" } });
        let expected = json!({ "suspend_timeout_seconds": -1, "settings": settings });
        assert_eq!(change, expected);
    }
}
