//! How much of what a project may use, and what becomes of one that used it up.

use serde_json::Value;

use super::period::{begin_of, month_of};
use crate::{
    catalog::{Time, consumption::Used},
    v2::time::format,
};

/// What is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meter {
    /// Seconds in a month in which an endpoint's compute runs.
    ActiveTime,
    /// Those times the compute's units.
    ComputeTime,
    /// Bytes of WAL in a month.
    WrittenData,
    /// Bytes that clients are sent in a month.
    DataTransfer,
    /// Bytes that a branch holds.
    LogicalSize,
}

impl Meter {
    /// All, in the order in which they are looked at.
    pub(crate) const ALL: [Meter; 5] = [
        Meter::ActiveTime,
        Meter::ComputeTime,
        Meter::WrittenData,
        Meter::DataTransfer,
        Meter::LogicalSize,
    ];

    /// What it is called in a project's `settings.quota`.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Meter::ActiveTime => "active_time_seconds",
            Meter::ComputeTime => "compute_time_seconds",
            Meter::WrittenData => "written_data_bytes",
            Meter::DataTransfer => "data_transfer_bytes",
            Meter::LogicalSize => "logical_size_bytes",
        }
    }

    /// The code of what is refused because of it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Meter::ActiveTime => "ACTIVE_TIME_QUOTA_EXCEEDED",
            Meter::ComputeTime => "COMPUTE_TIME_QUOTA_EXCEEDED",
            Meter::WrittenData => "WRITTEN_DATA_QUOTA_EXCEEDED",
            Meter::DataTransfer => "DATA_TRANSFER_QUOTA_EXCEEDED",
            Meter::LogicalSize => "LOGICAL_SIZE_QUOTA_EXCEEDED",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Meter::ActiveTime | Meter::ComputeTime => "seconds",
            Meter::WrittenData | Meter::DataTransfer | Meter::LogicalSize => "bytes",
        }
    }

    fn of(self, used: Used, held_bytes: u64) -> u64 {
        match self {
            Meter::ActiveTime => used.active_seconds(),
            Meter::ComputeTime => used.compute_seconds(),
            Meter::WrittenData => used.written_bytes,
            Meter::DataTransfer => used.transfer_bytes,
            Meter::LogicalSize => held_bytes,
        }
    }
}

/// How much a project may use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Quota(Vec<(Meter, u64)>);

impl Quota {
    /// What a project's settings say; 0 is no bound, as what is not said is none. Else what is wrong
    /// with them.
    pub(crate) fn of_settings(settings: &Value) -> Result<Quota, String> {
        let Some(said) = settings.get("quota").filter(|said| !said.is_null()) else {
            return Ok(Quota::default());
        };
        let said = said.as_object().ok_or("settings.quota is a JSON object")?;
        let mut bounds = Vec::new();
        for meter in Meter::ALL {
            match said.get(meter.field()) {
                None | Some(Value::Null) => {}
                Some(bound) => {
                    let bound = bound.as_u64().filter(|bound| i64::try_from(*bound).is_ok());
                    let bound = bound.ok_or_else(|| {
                        let (field, unit) = (meter.field(), meter.unit());
                        format!(
                            "settings.quota.{field} is a whole number of {unit}, 0 for no bound"
                        )
                    })?;
                    bounds.push((meter, bound));
                }
            }
        }
        bounds.retain(|(_, bound)| *bound > 0);
        Ok(Quota(bounds))
    }

    /// Whether nothing is bounded.
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is bounded.
    pub(crate) fn bounds(&self, meter: Meter) -> bool {
        self.0.iter().any(|(bounded, _)| *bounded == meter)
    }

    /// How far each bound is used up: by what was used in the month of `now`, and by a branch that
    /// holds so many bytes.
    pub(crate) fn states(&self, used: Used, held_bytes: u64, now: Time) -> Vec<State> {
        let state = |(meter, limit): &(Meter, u64)| State {
            meter: *meter,
            limit: *limit,
            used: meter.of(used, held_bytes),
            lifted_at: (*meter != Meter::LogicalSize).then(|| begin_of(month_of(now).1)),
        };
        self.0.iter().map(state).collect()
    }
}

/// How far a bound is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    /// What is bounded.
    pub meter: Meter,
    /// By how much.
    pub limit: u64,
    /// How much of it is used.
    pub used: u64,
    /// When it counts anew; never by itself where a branch holds too much.
    pub lifted_at: Option<Time>,
}

impl State {
    /// Whether nothing of it is left.
    pub(crate) fn is_used_up(&self) -> bool {
        self.used >= self.limit
    }

    /// What is used up, how much of how much, and how that is mended.
    pub(crate) fn sentence(&self) -> String {
        let State { meter, limit, used, lifted_at } = self;
        let (field, unit) = (meter.field(), meter.unit());
        match lifted_at {
            Some(at) => format!(
                "the project's quota {field} is used up: {used} of {limit} {unit} this month; \
                 computes start again at {}, or when settings.quota.{field} is raised",
                format(*at)
            ),
            None => format!(
                "the branch is above the project's quota {field}: it holds {used} of {limit} \
                 {unit}; its compute starts again when settings.quota.{field} is raised, or the \
                 branch is put back to a smaller state"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::v2::time::parse;

    fn quota(said: Value) -> Result<Quota, String> {
        Quota::of_settings(&json!({ "quota": said }))
    }

    #[test]
    fn a_quota_is_whole_numbers_and_zero_is_no_bound() {
        assert_eq!(Quota::of_settings(&json!({})), Ok(Quota::default()));
        assert_eq!(quota(json!(null)), Ok(Quota::default()));
        assert_eq!(quota(json!({ "active_time_seconds": 0, "other": "x" })), Ok(Quota::default()));
        let bounded = quota(json!({ "written_data_bytes": 5 })).expect("a quota");
        assert!(bounded.bounds(Meter::WrittenData) && !bounded.bounds(Meter::ActiveTime));
        for bad in [
            json!(1),
            json!({ "active_time_seconds": -1 }),
            json!({
            "logical_size_bytes": "1G" }),
            json!({ "compute_time_seconds": 1.5 }),
            json!({
            "data_transfer_bytes": u64::MAX }),
        ] {
            assert!(quota(bad.clone()).is_err(), "{bad} was taken for a quota");
        }
    }

    #[test]
    fn each_meter_is_held_against_its_own_bound_and_says_what_lifts_it() {
        let now = parse("2026-12-31T23:59:59Z").expect("a moment");
        let used = Used {
            active_us: 60_000_000,
            compute_mcu_us: 15_000_000_000,
            written_bytes: 7,
            transfer_bytes: 8,
        };
        for (meter, is) in Meter::ALL.into_iter().zip([60, 15, 7, 8, 9]) {
            for (limit, is_used_up) in [(is, true), (is + 1, false)] {
                let states = quota(json!({ meter.field(): limit })).expect("a quota");
                let states = states.states(used, 9, now);
                assert_eq!(states.len(), 1);
                assert_eq!((states[0].used, states[0].limit), (is, limit), "{meter:?}");
                assert_eq!(states[0].is_used_up(), is_used_up, "{meter:?}");
                let sentence = states[0].sentence();
                assert!(sentence.contains(meter.field()), "{sentence}");
                assert!(sentence.contains(&format!("{is} of {limit}")), "{sentence}");
                let new_year = sentence.contains("2027-01-01T00:00:00Z");
                assert_eq!(new_year, meter != Meter::LogicalSize, "{sentence}");
            }
        }
    }
}
