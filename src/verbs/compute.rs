//! `offshoot compute`, but for `run`, which is a role.

use control_plane::StartRequest;
use reqwest::Method;
use serde_json::Value;

use super::{Voice, list, stages, text};
use crate::{
    api::{Answer, Api, milliseconds},
    cli::ComputeVerb,
    failure::Failure,
    output::{self, say},
};

const NO_BODY: Option<&()> = None;

/// Carries a verb out.
pub async fn compute(api: &Api, voice: Voice, verb: ComputeVerb) -> Result<(), Failure> {
    match verb {
        ComputeVerb::Start { tenant, branch, port, settings, trace } => {
            let settings = (!settings.is_empty()).then(|| settings.into_iter().collect());
            let answer =
                start(api, StartRequest { port, settings, ..StartRequest::of(tenant, branch) })
                    .await?;
            if voice.json {
                output::json(&answer.with_time());
                return Ok(());
            }
            say!("running after {} ms", milliseconds(answer.took));
            say!("{}", text(&answer.value, "/connection"));
            if trace {
                say!("{}", stages(&answer.value["trace"]));
            }
            Ok(())
        }
        ComputeVerb::Stop { tenant, branch } => {
            let path = ["computes", &tenant, &branch];
            let answer = api.control_plane(Method::DELETE, &path, NO_BODY).await?;
            if voice.json {
                output::json(&answer.with_time());
            } else {
                say!("stopped after {} ms", milliseconds(answer.took));
            }
            Ok(())
        }
        ComputeVerb::List => {
            let computes = api.control_plane(Method::GET, &["computes"], NO_BODY).await?.value;
            if voice.json {
                output::json(&computes);
            } else {
                output::text(&compute_table(list(&computes, "computes")));
            }
            Ok(())
        }
        ComputeVerb::Run(_) => Err(Failure::new("compute run is a role, not a request")),
    }
}

/// Starts a branch's compute, unless it runs already.
pub(super) async fn start(api: &Api, request: StartRequest) -> Result<Answer, Failure> {
    api.control_plane(Method::POST, &["computes"], Some(&request)).await
}

/// Computes with their state.
pub(super) fn compute_table(computes: &[Value]) -> String {
    let fields = ["/region", "/tenant", "/branch", "/state", "/port", "/start_ms", "/reason"];
    let rows: Vec<_> =
        computes.iter().map(|compute| fields.map(|field| text(compute, field))).collect();
    output::table(["region", "tenant", "branch", "state", "port", "start ms", "reason"], &rows)
}
