//! Postgres' way of counting time: microseconds since the year 2000, UTC.

use time::{
    OffsetDateTime, UtcDateTime, format_description::well_known::Rfc3339, macros::utc_datetime,
};

const EPOCH: UtcDateTime = utc_datetime!(2000-01-01 00:00:00);

/// The time now.
pub fn now() -> i64 {
    micros(OffsetDateTime::now_utc())
}

/// A moment as Postgres counts it.
pub fn micros(moment: OffsetDateTime) -> i64 {
    (moment.to_utc() - EPOCH).whole_microseconds() as i64
}

/// The moment, for people: `2026-11-23T08:00:00.5Z`.
pub fn text(micros: i64) -> String {
    let moment = EPOCH.checked_add(time::Duration::microseconds(micros));
    moment
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{micros} microseconds after 2000"))
}

/// The moment in letters that a name may have: `20261123T080000Z`.
pub fn name_part(micros: i64) -> String {
    let text = text(micros);
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    seconds.chars().filter(|letter| letter.is_ascii_alphanumeric()).chain(['Z']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_from_2000_and_written_with_its_zone() {
        assert_eq!(text(0), "2000-01-01T00:00:00Z");
        assert_eq!(text(1_500_000), "2000-01-01T00:00:01.5Z");
        assert_eq!(name_part(1_500_000), "20000101T000001Z");
        assert_eq!(micros(EPOCH.into()), 0);
        assert!(now() > 800_000_000_000_000);
    }
}
