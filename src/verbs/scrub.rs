//! `offshoot scrub`.

use std::time::{Duration, SystemTime};

use pageserver::scrub::{Fault, Removal};

use super::Voice;
use crate::{
    cli::ScrubArgs,
    failure::Failure,
    output::{self, say},
    roles::open_store,
};

/// Looks at the whole store, and says what is wrong.
pub async fn scrub(voice: Voice, args: ScrubArgs) -> Result<(), Failure> {
    let store = open_store(&args.store).await?;
    let older_than = Duration::from_secs(args.older_than.saturating_mul(3600));
    let removal = Removal { older_than: args.remove_unnamed.then_some(older_than) };
    let report = pageserver::scrub::scrub(store, removal, SystemTime::now()).await;
    let report = report.map_err(|error| Failure::unavailable(error.to_string()))?;
    if voice.json {
        let json = serde_json::to_value(&report);
        output::json(&json.map_err(|error| Failure::new(error.to_string()))?);
    } else {
        let rows: Vec<_> = report
            .findings
            .iter()
            .map(|found| {
                let fault = match found.fault {
                    Fault::Unnamed if found.removed => "unnamed, removed",
                    Fault::Unnamed => "unnamed",
                    Fault::Missing => "missing",
                    Fault::Damaged => "damaged",
                };
                let bytes = found.bytes.map_or_else(|| "-".to_owned(), output::size);
                [fault.to_owned(), bytes, found.object.clone(), found.detail.clone()]
            })
            .collect();
        if !rows.is_empty() {
            output::text(&output::table(["fault", "size", "object", "detail"], &rows));
        }
        say!(
            "{} layers of {} tenants and templates were read, {}",
            report.layers,
            report.tenants,
            output::size(report.bytes)
        );
    }
    let bad = report.findings.iter().filter(|found| found.fault != Fault::Unnamed).count();
    match bad {
        0 => Ok(()),
        bad => Err(Failure::new(format!("{bad} objects are missing or damaged"))),
    }
}
