//! Moments: RFC 3339 outside, microseconds since 2000 inside, as in WAL.

use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::datetime};

use super::error::ApiError;

const POSTGRES_EPOCH: OffsetDateTime = datetime!(2000-01-01 00:00 UTC);

/// The moment that this text means, in microseconds since 2000.
pub(super) fn parse(text: &str) -> Result<i64, ApiError> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        ApiError::bad_request(format!(
            "{text:?} is not a timestamp: RFC 3339 with a zone was expected, as in \
             2026-11-23T10:25:00Z or 2026-11-23T11:25:00+01:00"
        ))
    })?;
    Ok(micros(moment))
}

/// The moment as text, in UTC.
pub(super) fn format(micros: i64) -> String {
    // A moment that RFC 3339 cannot say, beyond the year 9999, was not written by us.
    POSTGRES_EPOCH
        .checked_add(time::Duration::microseconds(micros))
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{micros} microseconds since 2000"))
}

/// Now.
pub(super) fn now() -> i64 {
    micros(OffsetDateTime::now_utc())
}

/// Fits: years have at most four digits.
fn micros(moment: OffsetDateTime) -> i64 {
    (moment - POSTGRES_EPOCH).whole_microseconds() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_read_with_its_zone_and_written_in_utc() {
        let micros = parse("2026-11-23T11:25:00.123456+01:00").expect("it has a zone");
        assert_eq!(format(micros), "2026-11-23T10:25:00.123456Z");
        assert_eq!(parse("2000-01-01T00:00:00Z").expect("the epoch"), 0);
        for bad in ["2026-11-23T11:25:00", "2026-11-23", "yesterday", "", "2026-13-01T00:00:00Z"] {
            assert!(parse(bad).is_err(), "{bad} was taken for a timestamp");
        }
    }
}
