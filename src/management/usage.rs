//! `offshoot project usage` and `set-quota`.

use serde_json::{Value, json};

use super::{
    client::Client,
    names::{self, Project},
    progress::done,
    say::{self, fields, list, set, time},
};
use crate::{
    cli::{QuotaArgs, UsageArgs},
    failure::Failure,
    output::{self, size},
    verbs::{Voice, bytes, text},
};

/// Shows what a project used, or all together.
pub async fn usage(client: &Client, voice: Voice, args: UsageArgs) -> Result<(), Failure> {
    let mut query = vec![("granularity", args.by.granularity())];
    query.extend(args.from.as_deref().map(|from| ("from", from)));
    query.extend(args.to.as_deref().map(|to| ("to", to)));
    let periods = match &args.project {
        Some(project) => {
            let project = names::project(client, project).await?;
            query.push(("project_ids", &project.id));
            let mut shown = client.get(&["consumption_history", "projects"], &query).await?;
            shown["projects"][0]["periods"].take()
        }
        None => {
            let mut shown = client.get(&["consumption_history", "account"], &query).await?;
            shown["periods"].take()
        }
    };
    let periods = periods.as_array().map(Vec::as_slice).unwrap_or_default();
    let frames = periods.iter().filter_map(|period| period["consumption"].as_array()).flatten();
    list(voice, "consumption", frames.cloned().collect(), TITLES, row);
    Ok(())
}

const TITLES: [&str; 7] =
    ["from", "active", "compute", "written", "transferred", "logical size", "stored"];

fn row(frame: &Value) -> [String; 7] {
    let seconds = |at: &str| time(frame[at].as_u64().unwrap_or_default());
    [
        text(frame, "/timeframe_start"),
        seconds("active_time_seconds"),
        seconds("compute_time_seconds"),
        bytes(frame, "/written_data_bytes"),
        bytes(frame, "/data_transfer_bytes"),
        bytes(frame, "/logical_size_bytes"),
        bytes(frame, "/synthetic_storage_size_bytes"),
    ]
}

/// Changes what a project may use.
pub async fn set_quota(
    client: &Client,
    voice: Voice,
    project: &Project,
    args: QuotaArgs,
) -> Result<(), Failure> {
    let said = [
        ("active_time_seconds", args.active_time.map(Value::from)),
        ("compute_time_seconds", args.compute_time.map(Value::from)),
        ("written_data_bytes", args.written_data.map(Value::from)),
        ("data_transfer_bytes", args.data_transfer.map(Value::from)),
        ("logical_size_bytes", args.logical_size.map(Value::from)),
    ];
    let mut quota = json!({});
    set(&mut quota, said);
    if quota == json!({}) {
        return Err(Failure::new(
            "say what is to be bounded: --active-time, --compute-time, --written-data, \
             --data-transfer or --logical-size",
        ));
    }
    let body = json!({ "project": { "settings": { "quota": quota } } });
    let changed = client.patch(&project.path(&[]), body).await?;
    done(client, voice, project, changed, |changed| {
        fields(changed, &[("project", "/project/name")]);
        show_quotas(&changed["project"]);
    })
    .await
}

/// How far a project's quotas are used up, where it has any.
pub fn show_quotas(project: &Value) {
    let states = project["quota_states"].as_array().map(Vec::as_slice).unwrap_or_default();
    if states.is_empty() {
        return;
    }
    let rows: Vec<_> = states.iter().map(quota).collect();
    output::text(&output::table(["quota", "used", "of", "exceeded", "counts anew"], &rows));
    for reason in states.iter().filter_map(|state| state["reason"].as_str()) {
        output::text(&format!("{reason}\n"));
    }
}

fn quota(state: &Value) -> [String; 5] {
    let name = text(state, "/quota");
    let amount = |at: &str| {
        let amount = state[at].as_u64().unwrap_or_default();
        if name.ends_with("_seconds") { time(amount) } else { size(amount) }
    };
    let (used, limit) = (amount("used"), amount("limit"));
    [name, used, limit, say::yes_or_no(state, "/exceeded"), text(state, "/resets_at")]
}
