//! `offshoot template`.

use std::path::Path;

use reqwest::Method;
use serde_json::json;

use super::{Voice, bytes, list, text};
use crate::{
    api::{Api, milliseconds},
    cli::TemplateVerb,
    failure::Failure,
    output::{self, say},
};

/// Carries a verb out.
pub async fn template(api: &Api, voice: Voice, verb: TemplateVerb) -> Result<(), Failure> {
    match verb {
        TemplateVerb::Import { name, pgdata } => import(api, voice, &name, &pgdata).await,
        TemplateVerb::Delete { template } => {
            let path = ["templates", &template];
            let answer = api.pageserver(Method::DELETE, &path, None::<&()>).await?;
            if voice.json {
                let took = milliseconds(answer.took);
                output::json(&json!({ "deleted": template, "took_ms": took }));
            } else {
                say!("template {template} deleted");
            }
            Ok(())
        }
        TemplateVerb::List => {
            let templates = api.pageserver(Method::GET, &["templates"], None::<&()>).await?.value;
            if voice.json {
                output::json(&templates);
                return Ok(());
            }
            let rows: Vec<_> = list(&templates, "templates")
                .iter()
                .map(|template| {
                    let [name, created] = ["/name", "/created_at"].map(|at| text(template, at));
                    let sizes = ["/logical_size_bytes", "/stored_bytes"];
                    let [size, stored] = sizes.map(|at| bytes(template, at));
                    [name, size, stored, created]
                })
                .collect();
            output::text(&output::table(["name", "size", "stored", "created"], &rows));
            Ok(())
        }
    }
}

async fn import(api: &Api, voice: Voice, name: &str, pgdata: &Path) -> Result<(), Failure> {
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
