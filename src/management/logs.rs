//! `offshoot logs`.

use serde_json::json;

use super::{client::Client, names, say::answer};
use crate::{cli::LogsArgs, failure::Failure, output::say, verbs::Voice};

/// Prints the end of what an endpoint's Postgres logged.
pub async fn logs(client: &Client, voice: Voice, args: LogsArgs) -> Result<(), Failure> {
    let project = names::project(client, &args.project).await?;
    let id = names::endpoint(client, &project, args.endpoint.as_deref()).await?;
    let path = project.path(&["endpoints", &id, "logs"]);
    // The newest come first.
    let mut lines = client.all(&path, "lines", &[], Some(args.tail)).await?;
    lines.reverse();
    answer(voice, &json!({ "lines": &lines }), |_| {
        for line in &lines {
            say!("{}", line.as_str().unwrap_or_default());
        }
    });
    Ok(())
}
