//! `offshoot api-key`.

use serde_json::{Value, json};

use super::{
    client::Client,
    say::{answer, fields, list},
};
use crate::{
    cli::ApiKeyVerb,
    failure::Failure,
    output::say,
    verbs::{Voice, text},
};

/// Carries a verb out.
pub async fn api_key(client: &Client, voice: Voice, verb: ApiKeyVerb) -> Result<(), Failure> {
    match verb {
        ApiKeyVerb::Create { name } => {
            let made = client.post(&["api_keys"], json!({ "key_name": name })).await?;
            answer(voice, &made, |made| {
                fields(made, &[("id", "/id"), ("name", "/name"), ("key", "/key")]);
                say!("it is not shown again");
            });
        }
        ApiKeyVerb::List => {
            let all = client.get(&["api_keys"], &[]).await?;
            let all = all.as_array().cloned().unwrap_or_default();
            list(voice, "api_keys", all, ["id", "name", "created", "last used"], row);
        }
        ApiKeyVerb::Revoke { id } => {
            let revoked = client.delete(&["api_keys", &id.to_string()]).await?;
            answer(voice, &revoked, |key| say!("API key {} is revoked", text(key, "/name")));
        }
    }
    Ok(())
}

fn row(key: &Value) -> [String; 4] {
    ["/id", "/name", "/created_at", "/last_used_at"].map(|at| text(key, at))
}
