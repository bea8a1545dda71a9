//! `offshoot operation`.

use serde_json::{Value, json};

use super::{
    client::Client,
    names, progress,
    say::{answer, fields, list},
};
use crate::{
    cli::OperationVerb,
    failure::Failure,
    verbs::{Voice, text},
};

/// Carries a verb out.
pub async fn operation(client: &Client, voice: Voice, verb: OperationVerb) -> Result<(), Failure> {
    match verb {
        OperationVerb::List { project, limit } => {
            let project = names::project(client, &project).await?;
            let path = project.path(&["operations"]);
            let all = client.all(&path, "operations", &[], limit).await?;
            list(voice, "operations", all, TITLES, row);
            Ok(())
        }
        OperationVerb::Show { project, operation, wait } => {
            let project = names::project(client, &project).await?;
            let path = project.path(&["operations", &operation]);
            let mut shown = client.get(&path, &[]).await?;
            if wait {
                let what = progress::doing(&shown["operation"]);
                let ended = progress::ended(client, &project, &operation);
                shown = json!({ "operation": progress::during(&what, ended).await? });
            }
            answer(voice, &shown, |shown| show(&shown["operation"]));
            match wait {
                true => progress::failed(&shown["operation"]).map_or(Ok(()), Err),
                false => Ok(()),
            }
        }
    }
}

fn show(operation: &Value) {
    fields(
        operation,
        &[
            ("operation", "/id"),
            ("action", "/action"),
            ("status", "/status"),
            ("error", "/error"),
            ("branch", "/branch_id"),
            ("endpoint", "/endpoint_id"),
            ("began", "/created_at"),
            ("ms", "/total_duration_ms"),
        ],
    );
}

const TITLES: [&str; 6] = ["id", "action", "status", "of", "began", "ms"];

fn row(operation: &Value) -> [String; 6] {
    let of = ["/endpoint_id", "/branch_id"].map(|at| text(operation, at));
    let of = of.into_iter().find(|of| of != "-").unwrap_or_else(|| "-".to_owned());
    let [id, action, status, began, took] =
        ["/id", "/action", "/status", "/created_at", "/total_duration_ms"]
            .map(|at| text(operation, at));
    [id, action, status, of, began, took]
}
