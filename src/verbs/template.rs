//! `offshoot template import`.

use std::path::Path;

use reqwest::Method;
use serde_json::json;

use super::Voice;
use crate::{
    api::{Api, milliseconds},
    failure::Failure,
    output::{self, say},
};

/// Has the pageserver make a template of a data directory.
pub async fn import_template(
    api: &Api,
    voice: Voice,
    name: &str,
    pgdata: &Path,
) -> Result<(), Failure> {
    // The pageserver has a working directory of its own.
    let pgdata = std::path::absolute(pgdata)
        .map_err(|error| Failure::new(format!("{}: {error}", pgdata.display())))?;
    let body = json!({ "name": name, "pgdata": pgdata });
    let answer = api.pageserver(Method::POST, &["templates"], Some(&body)).await?;
    if voice.json {
        output::json(&answer.with_time());
        return Ok(());
    }
    say!("template {name} imported in {} ms", milliseconds(answer.took));
    say!("use it: offshoot tenant create NAME --template {name}");
    Ok(())
}
