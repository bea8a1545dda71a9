//! Moments as the API writes and reads them: RFC 3339 with a zone.

use std::time::SystemTime;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::error::ApiError;
use crate::catalog::Time;

/// Now, in microseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "the one place that asks the clock")]
pub(crate) fn now() -> Time {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Time::try_from(since.as_micros()).unwrap_or(Time::MAX),
        Err(_) => 0,
    }
}

/// A moment in UTC.
pub(crate) fn format(time: Time) -> String {
    let nanoseconds = i128::from(time) * 1000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // Every year up to 9999 can be written.
    moment.format(&Rfc3339).unwrap_or_default()
}

/// Reads a moment.
pub(crate) fn parse(text: &str) -> Result<Time, ApiError> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|error| {
        ApiError::invalid(format!(
            "{text:?} is not a moment: {error}; write it like 2026-03-01T12:00:00Z"
        ))
    })?;
    Ok(Time::try_from(moment.unix_timestamp_nanos() / 1000).unwrap_or(Time::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_and_read_alike() {
        let time = 1_772_366_400_123_456;
        assert_eq!(format(time), "2026-03-01T12:00:00.123456Z");
        assert_eq!(parse(&format(time)), Ok(time));
        assert_eq!(parse("2026-03-01T13:00:00.123456+01:00"), Ok(time));
        for bad in ["2026-03-01T12:00:00", "yesterday", "", "2026-03-01"] {
            assert!(parse(bad).is_err(), "{bad:?} was taken for a moment");
        }
    }
}
