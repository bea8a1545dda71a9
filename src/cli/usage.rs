//! What projects use, and may use.

use clap::{Args, ValueEnum};

/// How long a timeframe is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum By {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A calendar month.
    Month,
}

impl By {
    /// As the API calls it.
    pub fn granularity(self) -> &'static str {
        match self {
            By::Hour => "hourly",
            By::Day => "daily",
            By::Month => "monthly",
        }
    }
}

/// Which time.
#[derive(Args)]
pub struct UsageArgs {
    /// The project, by name or id; all together where none is said.
    pub project: Option<String>,
    /// How long a line's time is.
    #[arg(long, value_enum, default_value_t = By::Day)]
    pub by: By,
    /// From the timeframe of this moment on; the beginning of this month where nothing is said.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// To the timeframe before this moment; until now where nothing is said.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

/// What a project may use. `none` takes a bound away; what is not said stays.
#[derive(Args)]
pub struct QuotaArgs {
    /// Time in a month in which its computes run: 100h.
    #[arg(long, value_name = "TIME|none", value_parser = seconds)]
    pub active_time: Option<u64>,
    /// The same, times the compute units that they have.
    #[arg(long, value_name = "TIME|none", value_parser = seconds)]
    pub compute_time: Option<u64>,
    /// WAL that is written in a month: 5G.
    #[arg(long, value_name = "SIZE|none", value_parser = bytes)]
    pub written_data: Option<u64>,
    /// What clients are sent in a month.
    #[arg(long, value_name = "SIZE|none", value_parser = bytes)]
    pub data_transfer: Option<u64>,
    /// What each of its branches may hold.
    #[arg(long, value_name = "SIZE|none", value_parser = bytes)]
    pub logical_size: Option<u64>,
}

/// Seconds, 0 for no bound.
fn seconds(text: &str) -> Result<u64, String> {
    let is_bound = |seconds: &u64| *seconds > 0;
    match text {
        "none" => Ok(0),
        _ => super::limits::time(text).map(|time| time.as_secs()).and_then(|seconds| {
            Some(seconds).filter(is_bound).ok_or_else(|| "at least 1s, or none".to_owned())
        }),
    }
}

/// Bytes, 0 for no bound.
fn bytes(text: &str) -> Result<u64, String> {
    let is_bound = |bytes: &u64| *bytes > 0;
    match text {
        "none" => Ok(0),
        _ => super::limits::bytes(text)
            .and_then(|bytes| Some(bytes).filter(is_bound).ok_or_else(|| "none, or more".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, seconds};

    #[test]
    fn a_bound_is_an_amount_or_none() {
        assert_eq!((seconds("100h"), seconds("none")), (Ok(360_000), Ok(0)));
        assert_eq!((bytes("5G"), bytes("none")), (Ok(5 << 30), Ok(0)));
        for bad in ["", "0", "-1", "0s", "much"] {
            assert!(seconds(bad).is_err() && bytes(bad).is_err(), "{bad:?} was taken");
        }
    }
}
