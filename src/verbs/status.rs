//! `offshoot status`: what runs where.

use reqwest::Method;
use serde_json::json;

use super::{Voice, compute::compute_table, list, text};
use crate::{
    api::Api,
    failure::Failure,
    output::{self, say},
};

const NO_BODY: Option<&()> = None;

/// Says what runs where.
pub async fn status(api: &Api, voice: Voice) -> Result<(), Failure> {
    let control_plane = api.control_plane(Method::GET, &["status"], NO_BODY).await?.value;
    let pageserver = api.pageserver(Method::GET, &["status"], NO_BODY).await;
    if voice.json {
        let pageserver = match pageserver {
            Ok(answer) => answer.value,
            Err(failure) => json!({ "unavailable": failure.to_string() }),
        };
        output::json(&json!({ "control_plane": control_plane, "pageserver": pageserver }));
        return Ok(());
    }
    say!("offshoot {}", text(&control_plane, "/version"));
    let regions = list(&control_plane, "regions");
    for region in regions {
        if regions.len() > 1 {
            let default = if region["default"] == json!(true) { ", the default one" } else { "" };
            let silent = if region["answers"] == json!(true) { "" } else { ", does not answer" };
            say!("{:<14}{}{default}{silent}", "region", text(region, "/id"));
        }
        let fields = [
            ("pageserver", "/addresses/pageserver"),
            ("its HTTP API", "/addresses/pageserver_http"),
            ("safekeepers", "/addresses/safekeepers"),
        ];
        for (name, pointer) in fields {
            say!("{name:<14}{}", text(region, pointer).replace(['[', ']', '"'], ""));
        }
    }
    let bound = |what: &str| match text(&control_plane, &format!("/bounds/{what}")) {
        by if by.is_empty() || by == "-" => "not bounded".to_owned(),
        by => format!("by {by}"),
    };
    say!("{:<14}memory {}, processors {}", "limits", bound("memory"), bound("cpu"));
    let reason = text(&control_plane, "/bounds/reason");
    if !reason.is_empty() && reason != "-" {
        say!("{:<14}{reason}", "");
    }
    if let Err(failure) = pageserver {
        say!("{failure}");
    }
    output::text(&compute_table(list(&control_plane, "computes")));
    Ok(())
}
