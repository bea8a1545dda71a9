//! What projects used, by hour, day or month.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    context::Context,
    error::{ApiError, GeneralError},
    page::{Cursor, page_limit},
    request::Query,
    time::{self, now},
};
use crate::{
    catalog::{
        self, Time,
        consumption::{self, Hour},
    },
    metering::{
        frames::{Frame, frames, rows_from},
        period::{Granularity, begin_of, hour_of},
    },
};

/// The most timeframes of one answer and project: a month of hours, three years of months.
const FRAMES_MAX: i64 = 31 * 24;

/// What was used in a timeframe.
#[derive(Debug, Serialize, ToSchema)]
pub struct Consumption {
    /// When it begins.
    pub timeframe_start: String,
    /// When it ends.
    pub timeframe_end: String,
    /// Seconds in which an endpoint's compute ran, of all endpoints together.
    pub active_time_seconds: u64,
    /// Those, times the most compute units that the endpoint had.
    pub compute_time_seconds: u64,
    /// Bytes of WAL that were written.
    pub written_data_bytes: u64,
    /// Bytes that the proxy sent to clients in sessions.
    pub data_transfer_bytes: u64,
    /// Bytes of all relations of all branches at its end, or now.
    pub logical_size_bytes: u64,
    /// Bytes of layers in the object store at its end, or now.
    pub synthetic_storage_size_bytes: u64,
    /// The same, times the hours that they were there.
    pub data_storage_bytes_hour: u64,
}

/// What was used in a calendar month, or the part of it that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConsumptionPeriod {
    /// Which: `2026-11`.
    pub period_id: String,
    /// Always `offshoot`.
    pub period_plan: String,
    /// When it begins.
    pub period_start: String,
    /// When it ends.
    pub period_end: String,
    /// Its timeframes.
    pub consumption: Vec<Consumption>,
}

/// What a project used.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectConsumption {
    /// Its id. It may be deleted.
    pub project_id: String,
    /// By month.
    pub periods: Vec<ConsumptionPeriod>,
}

/// What projects used.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectsConsumption {
    /// In the order of their ids.
    pub projects: Vec<ProjectConsumption>,
    /// Where the page ends.
    pub pagination: Cursor,
}

/// What all projects together used.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountConsumption {
    /// By month.
    pub periods: Vec<ConsumptionPeriod>,
}

/// Which time, and which projects.
#[derive(Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes the parameters; they are read one by one")]
pub struct ConsumptionQuery {
    /// From the timeframe of this moment on; this month where nothing is said.
    from: Option<String>,
    /// To the timeframe before this moment; until now where nothing is said.
    to: Option<String>,
    /// `hourly`, `daily` or `monthly`; `hourly` where nothing is said.
    granularity: Option<String>,
    /// These projects alone; may be said several times.
    project_ids: Option<Vec<String>>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// At most so many projects: 1 to 1000, 100 where nothing is said.
    limit: Option<u32>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    granularity: Granularity,
    from: Hour,
    to: Hour,
    projects: Vec<String>,
    after: String,
    limit: usize,
}

impl Asked {
    fn of(parameters: Vec<(String, String)>, now: Time) -> Result<Asked, ApiError> {
        let mut granularity = Granularity::Hourly;
        let (mut from, mut to, mut limit) = (None, None, None);
        let (mut projects, mut after) = (Vec::new(), String::new());
        for (name, value) in parameters {
            match name.as_str() {
                "from" => from = Some(time::parse(&value)?),
                "to" => to = Some(time::parse(&value)?),
                "granularity" => granularity = granularity_of(&value)?,
                "cursor" => after = value,
                "limit" => {
                    let number = value.parse();
                    limit = Some(number.map_err(|_| {
                        ApiError::invalid(format!("limit is a number, not {value:?}"))
                    })?);
                }
                "project_ids" | "project_ids[]" => {
                    projects.extend(value.split(',').map(str::to_owned));
                }
                _ => {}
            }
        }
        let end = hour_of(now) + 1;
        let from = from.map_or_else(|| rows_from(hour_of(now)), hour_of);
        // An hour that has begun is in; hours that have not are in none.
        let to = to.map_or(end, |to| hour_of(to - 1) + 1).min(end);
        let from = granularity.first(from);
        let count = (to - from).max(0) / hours_in(granularity);
        if count > FRAMES_MAX {
            return Err(ApiError::invalid(format!(
                "at most {FRAMES_MAX} timeframes are shown at once: ask for less time, or for longer \
                 timeframes"
            )));
        }
        Ok(Asked { granularity, from, to, projects, after, limit: page_limit(limit)? })
    }

    /// The projects of this page.
    fn page(&self, catalog: &rusqlite::Connection) -> Result<Vec<String>, catalog::Error> {
        if self.projects.is_empty() {
            return consumption::projects(catalog, &self.after, self.limit);
        }
        let mut named = self.projects.clone();
        named.sort_unstable();
        named.dedup();
        named.retain(|id| *id > self.after);
        named.truncate(self.limit);
        Ok(named)
    }

    /// What a project used.
    fn frames(
        &self,
        catalog: &rusqlite::Connection,
        project: &str,
    ) -> Result<Vec<Frame>, catalog::Error> {
        let (rows, before) = consumption::between(catalog, project, rows_from(self.from), self.to)?;
        Ok(frames(&rows, before, self.granularity, self.from, self.to))
    }
}

fn granularity_of(text: &str) -> Result<Granularity, ApiError> {
    match text {
        "hourly" => Ok(Granularity::Hourly),
        "daily" => Ok(Granularity::Daily),
        "monthly" => Ok(Granularity::Monthly),
        other => Err(ApiError::invalid(format!(
            "{other:?} is no granularity: ask for hourly, daily or monthly"
        ))),
    }
}

/// The least.
fn hours_in(granularity: Granularity) -> i64 {
    match granularity {
        Granularity::Hourly => 1,
        Granularity::Daily => 24,
        Granularity::Monthly => 28 * 24,
    }
}

/// Show what projects used, by hour, day or month.
#[utoipa::path(get, path = "/consumption_history/projects", tag = "consumption",
    params(ConsumptionQuery),
    responses((status = 200, body = ProjectsConsumption),
        (status = "default", body = GeneralError)))]
pub(super) async fn projects(
    State(context): State<Arc<Context>>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<ProjectsConsumption>, ApiError> {
    let asked = Asked::of(parameters, now())?;
    let read = context.catalog.read(move |catalog| {
        let page = asked.page(catalog)?;
        let cursor = page.last().cloned().unwrap_or_default();
        let view = |project_id: String| {
            let periods = periods(asked.frames(catalog, &project_id)?);
            Ok(ProjectConsumption { project_id, periods })
        };
        let projects = page.into_iter().map(view).collect::<Result<_, catalog::Error>>()?;
        Ok(ProjectsConsumption { projects, pagination: Cursor { cursor } })
    });
    Ok(Json(read.await?))
}

/// Show what all projects together used, by hour, day or month.
#[utoipa::path(get, path = "/consumption_history/account", tag = "consumption",
    params(ConsumptionQuery),
    responses((status = 200, body = AccountConsumption),
        (status = "default", body = GeneralError)))]
pub(super) async fn account(
    State(context): State<Arc<Context>>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<AccountConsumption>, ApiError> {
    let mut asked = Asked::of(parameters, now())?;
    let read = context.catalog.read(move |catalog| {
        let mut all: Vec<Frame> =
            frames(&[], Default::default(), asked.granularity, asked.from, asked.to);
        loop {
            let page = asked.page(catalog)?;
            let Some(last) = page.last() else { return Ok(all) };
            last.clone_into(&mut asked.after);
            for project in page {
                let frames = asked.frames(catalog, &project)?;
                all.iter_mut().zip(&frames).for_each(|(sum, frame)| sum.add(frame));
            }
        }
    });
    Ok(Json(AccountConsumption { periods: periods(read.await?) }))
}

/// By calendar month.
fn periods(frames: Vec<Frame>) -> Vec<ConsumptionPeriod> {
    let mut periods: Vec<(Hour, ConsumptionPeriod)> = Vec::new();
    for frame in frames {
        let month = rows_from(frame.from);
        if periods.last().is_none_or(|(last, _)| *last != month) {
            let start = time::format(begin_of(month));
            let period = ConsumptionPeriod {
                period_id: start.chars().take("2026-11".len()).collect(),
                period_plan: "offshoot".to_owned(),
                period_start: start,
                period_end: time::format(begin_of(Granularity::Monthly.next(month))),
                consumption: Vec::new(),
            };
            periods.push((month, period));
        }
        if let Some((_, period)) = periods.last_mut() {
            period.consumption.push(Consumption::from(frame));
        }
    }
    periods.into_iter().map(|(_, period)| period).collect()
}

impl From<Frame> for Consumption {
    fn from(frame: Frame) -> Consumption {
        Consumption {
            timeframe_start: time::format(begin_of(frame.from)),
            timeframe_end: time::format(begin_of(frame.to)),
            active_time_seconds: frame.active_seconds,
            compute_time_seconds: frame.compute_seconds,
            written_data_bytes: frame.written_bytes,
            data_transfer_bytes: frame.transfer_bytes,
            logical_size_bytes: frame.sizes.logical_bytes,
            synthetic_storage_size_bytes: frame.sizes.stored_bytes,
            data_storage_bytes_hour: frame.stored_byte_hours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(parameters: &[(&str, &str)]) -> Result<Asked, ApiError> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Asked::of(parameters.iter().map(own).collect(), time::parse("2026-11-28T22:40:00Z")?)
    }

    #[test]
    fn whole_timeframes_are_shown_up_to_the_one_that_goes_on() -> Result<(), ApiError> {
        let hour = |text| time::parse(text).map(hour_of);
        let all = asked(&[])?;
        assert_eq!(all.from, hour("2026-11-01T00:00:00Z")?);
        assert_eq!(all.to, hour("2026-11-28T23:00:00Z")?);
        let some = asked(&[
            ("from", "2026-11-02T13:10:00+01:00"),
            ("to", "2026-11-03T00:00:00Z"),
            ("granularity", "daily"),
            ("project_ids", "b,a"),
            ("project_ids", "c"),
        ])?;
        assert_eq!(
            (some.from, some.to),
            (hour("2026-11-02T00:00:00Z")?, hour("2026-11-03T00:00:00Z")?)
        );
        assert_eq!(some.projects, ["b", "a", "c"]);
        for bad in [
            ("granularity", "weekly"),
            ("from", "yesterday"),
            ("from", "2020-01-01T00:00:00Z"),
            ("limit", "0"),
            ("limit", "many"),
        ] {
            assert!(asked(&[bad]).is_err(), "{bad:?} was taken");
        }
        Ok(())
    }
}
