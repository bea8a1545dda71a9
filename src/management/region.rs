//! `offshoot region`.

use serde_json::Value;

use super::{
    client::Client,
    say::{list, yes_or_no},
};
use crate::{
    cli::RegionVerb,
    failure::Failure,
    verbs::{Voice, text},
};

/// Carries a verb out.
pub async fn region(client: &Client, voice: Voice, verb: RegionVerb) -> Result<(), Failure> {
    match verb {
        RegionVerb::List => {
            let all = client.get(&["regions"], &[]).await?;
            let all = all["regions"].as_array().cloned().unwrap_or_default();
            list(voice, "regions", all, ["id", "name", "default", "available"], row);
        }
    }
    Ok(())
}

fn row(region: &Value) -> [String; 4] {
    let [id, name] = ["/region_id", "/name"].map(|at| text(region, at));
    let [default, available] = ["/default", "/available"].map(|at| yes_or_no(region, at));
    [id, name, default, available]
}
