//! What is said while something takes long: one line that is written over, on standard error, and
//! only for people.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{client::Client, names::Project, say};
use crate::{
    failure::Failure,
    verbs::{Voice, text},
};

/// What is over before this is not worth a line.
const SAID_AFTER: Duration = Duration::from_millis(300);
/// How often the line is written anew.
const SAID_EVERY: Duration = Duration::from_millis(100);
/// How often an operation is looked at: soon at first, then as often as others' clients look.
const LOOKS: [u64; 5] = [20, 50, 100, 200, 500];
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MARKS: [&str; 4] = ["-", "\\", "|", "/"];

/// Does the work, and says so while it lasts.
pub async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let began = Instant::now();
    if let Ok(done) = tokio::time::timeout(SAID_AFTER, &mut work).await {
        return done;
    }
    for mark in MARKS.iter().cycle() {
        let seconds = began.elapsed().as_secs_f64();
        write(&format!("\r\x1b[K{mark} {what} … {seconds:.1} s"));
        if let Ok(done) = tokio::time::timeout(SAID_EVERY, &mut work).await {
            write("\r\x1b[K");
            return done;
        }
    }
    work.await
}

fn write(text: &str) {
    let mut stderr = std::io::stderr();
    let _unread = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Waits until the operations of an answer have ended, and puts what they became into it. One that
/// failed is a failure.
pub async fn finish(client: &Client, project: &Project, answer: &mut Value) -> Result<(), Failure> {
    let Some(operations) = answer.get_mut("operations").and_then(Value::as_array_mut) else {
        return Ok(());
    };
    for operation in operations {
        let id = text(operation, "/id");
        let what = doing(operation);
        *operation = during(&what, ended(client, project, &id)).await?;
        if let Some(failure) = failed(operation) {
            return Err(failure);
        }
    }
    Ok(())
}

/// Waits for what is under way, and shows what the answer was about.
pub async fn done(
    client: &Client,
    voice: Voice,
    project: &Project,
    mut answer: Value,
    show: impl FnOnce(&Value),
) -> Result<(), Failure> {
    finish(client, project, &mut answer).await?;
    say::answer(voice, &answer, show);
    Ok(())
}

/// An operation as it ended.
pub async fn ended(client: &Client, project: &Project, id: &str) -> Result<Value, Failure> {
    let mut looks = LOOKS.iter().map(|look| Duration::from_millis(*look));
    loop {
        let path = project.path(&["operations", id]);
        let mut shown = client.get(&path, &[]).await?;
        let operation = shown["operation"].take();
        if !matches!(text(&operation, "/status").as_str(), "scheduling" | "running" | "cancelling")
        {
            return Ok(operation);
        }
        tokio::time::sleep(looks.next().unwrap_or(LOOK_EVERY)).await;
    }
}

/// What an operation is about, while it is under way.
pub fn doing(operation: &Value) -> String {
    let [endpoint, branch] = ["/endpoint_id", "/branch_id"].map(|at| text(operation, at));
    match text(operation, "/action").as_str() {
        "create_timeline" => "having the project's storage made".to_owned(),
        "create_branch" => format!("making branch {branch}"),
        "delete_timeline" => format!("deleting branch {branch}"),
        "start_compute" => format!("starting the compute of {endpoint}"),
        "suspend_compute" => format!("suspending the compute of {endpoint}"),
        "apply_config" => "applying the change".to_owned(),
        other => format!("waiting for {other}"),
    }
}

/// The failure of an operation that failed.
pub fn failed(operation: &Value) -> Option<Failure> {
    let status = text(operation, "/status");
    if matches!(status.as_str(), "finished" | "skipped") {
        return None;
    }
    let [id, action, error] = ["/id", "/action", "/error"].map(|at| text(operation, at));
    Some(Failure::new(format!("operation {id} ({action}) ended as {status}: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_that_failed_says_why() {
        let operation = json!({ "id": "1", "action": "start_compute", "status": "failed",
                                "error": "no port is free", "endpoint_id": "ep-a" });
        let failure = failed(&operation).map(|failure| failure.to_string());
        let expected = "operation 1 (start_compute) ended as failed: no port is free";
        assert_eq!(failure.as_deref(), Some(expected));
        assert_eq!(doing(&operation), "starting the compute of ep-a");
        assert!(failed(&json!({ "status": "finished" })).is_none());
    }
}
