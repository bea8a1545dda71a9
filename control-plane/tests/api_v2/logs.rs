//! What an endpoint's Postgres logged, in pages.

use std::{fs, path::PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Fixture, pageserver::timeline_id, text};

/// Where the log of a project's first branch is when no compute of it runs.
fn log_of(fixture: &Fixture) -> PathBuf {
    let name = &timeline_id("main")[..16];
    fixture.folder.path().join(format!("computes/{name}.postgres.log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_from_its_end_page_by_page_and_says_no_password() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let path = format!("projects/{project}/endpoints/ep-{project}/logs");
    let nothing = fixture.get(&path).await?;
    assert_eq!(nothing, json!({ "lines": [], "pagination": { "cursor": "" } }));

    let log = log_of(&fixture);
    fs::write(&log, "one\nALTER ROLE app PASSWORD 'two'\nthree\n")?;
    let newest = fixture.get(&format!("{path}?limit=2")).await?;
    assert_eq!(newest["lines"], json!(["three", "ALTER ROLE app PASSWORD ***"]));
    let cursor = text(&newest["pagination"]["cursor"]);
    // What comes meanwhile moves no page.
    fs::write(log.with_extension("more"), "four\n")?;
    let grown = [fs::read(&log)?, fs::read(log.with_extension("more"))?].concat();
    fs::write(&log, grown)?;
    let oldest = fixture.get(&format!("{path}?limit=2&cursor={cursor}")).await?;
    assert_eq!(oldest, json!({ "lines": ["one"], "pagination": { "cursor": "" } }));

    // A newer compute's log is another one.
    let other = log.with_extension("other");
    fs::write(&other, "begun anew, and longer than the log that was there before it\n")?;
    fs::rename(&other, &log)?;
    let said =
        fixture.refused(Method::GET, &format!("{path}?cursor={cursor}"), Value::Null, 422).await?;
    assert!(said.contains("without a cursor"), "{said}");
    fixture.refused(Method::GET, &format!("{path}?cursor=x"), Value::Null, 400).await?;
    fixture.refused(Method::GET, &format!("{path}?limit=0"), Value::Null, 400).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_shown_by_its_own_project_to_who_has_a_key_and_goes_with_its_branch()
-> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let path = format!("projects/{project}/endpoints/ep-{project}");
    // Started, so that the control plane knows of a compute; it does not come up.
    fixture.done(Method::POST, &format!("{path}/start"), Value::Null).await?;
    let operations = format!("projects/{project}/operations");
    for _ in 0..500 {
        let shown = fixture.get(&operations).await?;
        if shown["operations"][0]["status"] == "failed" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let log = log_of(&fixture);
    fs::write(&log, "it said so\n")?;
    assert_eq!(fixture.get(&format!("{path}/logs")).await?["lines"], json!(["it said so"]));

    let without_key = fixture.http.get(format!("{}/{path}/logs", fixture.url)).send().await?;
    assert_eq!(without_key.status().as_u16(), 401);
    let other = fixture.project().await?;
    let stolen = format!("projects/{other}/endpoints/ep-{project}/logs");
    fixture.refused(Method::GET, &stolen, Value::Null, 404).await?;

    fixture.done(Method::DELETE, &format!("projects/{project}"), Value::Null).await?;
    fixture.refused(Method::GET, &format!("{path}/logs"), Value::Null, 404).await?;
    assert!(!log.exists(), "a deleted project's log is still there");
    Ok(())
}
