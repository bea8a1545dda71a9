//! Hours, days and months, in UTC.

use time::{Date, Month, OffsetDateTime, Time as TimeOfDay};

use crate::catalog::{Time, consumption::Hour};

/// Microseconds of an hour.
const HOUR_US: i64 = 3_600_000_000;

/// How long a timeframe is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Granularity {
    /// An hour.
    Hourly,
    /// A day.
    Daily,
    /// A calendar month.
    Monthly,
}

/// The hour of a moment.
pub(crate) fn hour_of(time: Time) -> Hour {
    time.div_euclid(HOUR_US)
}

/// The moment at which an hour begins.
pub(crate) fn begin_of(hour: Hour) -> Time {
    hour.saturating_mul(HOUR_US)
}

/// The hours that a stretch of time lies in, and how many microseconds of it lie in each.
pub(crate) fn by_hour(from: Time, lasts_us: u64) -> impl Iterator<Item = (Hour, u64)> {
    let mut at = from;
    let mut left = lasts_us;
    std::iter::from_fn(move || {
        let hour = hour_of(at);
        let until = begin_of(hour.saturating_add(1));
        let here = left.min(until.saturating_sub(at).unsigned_abs());
        at = until;
        left -= here;
        (here > 0).then_some((hour, here))
    })
}

impl Granularity {
    /// The first hour of the timeframe that an hour is in.
    pub(crate) fn first(self, hour: Hour) -> Hour {
        match self {
            Granularity::Hourly => hour,
            Granularity::Daily => hour.div_euclid(24) * 24,
            Granularity::Monthly => {
                let date = date_of(hour);
                hour_of_date(date.year(), date.month())
            }
        }
    }

    /// The first hour of the timeframe after the one that an hour is in.
    pub(crate) fn next(self, hour: Hour) -> Hour {
        match self {
            Granularity::Hourly => hour + 1,
            Granularity::Daily => self.first(hour) + 24,
            Granularity::Monthly => {
                let date = date_of(hour);
                let next = date.month().next();
                let year = date.year() + i32::from(next == Month::January);
                hour_of_date(year, next)
            }
        }
    }
}

/// When the month that a moment is in began, and when the next one does: in this time quotas count.
pub(crate) fn month_of(time: Time) -> (Hour, Hour) {
    let hour = hour_of(time);
    (Granularity::Monthly.first(hour), Granularity::Monthly.next(hour))
}

fn date_of(hour: Hour) -> Date {
    let moment = OffsetDateTime::from_unix_timestamp(hour.saturating_mul(3600));
    moment.unwrap_or(OffsetDateTime::UNIX_EPOCH).date()
}

fn hour_of_date(year: i32, month: Month) -> Hour {
    // Every year that a moment can be of has a first of each month, up to 9999.
    let first = Date::from_calendar_date(year, month, 1).unwrap_or(Date::MAX);
    first.with_time(TimeOfDay::MIDNIGHT).assume_utc().unix_timestamp().div_euclid(3600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2::time::parse;

    fn hour(text: &str) -> Hour {
        hour_of(parse(text).expect("a moment"))
    }

    #[test]
    fn months_begin_on_their_first_also_in_leap_years_and_over_new_year() {
        for (at, first, next) in [
            ("2026-11-28T22:40:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2028-02-29T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
            ("2027-01-01T00:30:00+01:00", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            let moment = parse(at).expect("a moment");
            assert_eq!(month_of(moment), (hour(first), hour(next)), "{at}");
        }
        let at = hour("2026-11-28T22:40:00Z");
        assert_eq!(Granularity::Daily.first(at), hour("2026-11-28T00:00:00Z"));
        assert_eq!(Granularity::Daily.next(at), hour("2026-11-29T00:00:00Z"));
        assert_eq!(Granularity::Hourly.next(at), hour("2026-11-28T23:00:00Z"));
    }

    #[test]
    fn a_stretch_over_the_end_of_an_hour_is_split_there_and_nothing_of_it_is_lost() {
        let from = parse("2026-11-30T23:59:59.5Z").expect("a moment");
        let parts: Vec<_> = by_hour(from, 3_601_000_000).collect();
        let first = hour("2026-11-30T23:00:00Z");
        assert_eq!(parts, [(first, 500_000), (first + 1, 3_600_000_000), (first + 2, 500_000)]);
        assert_eq!(by_hour(from, 0).count(), 0);
        assert_eq!(by_hour(begin_of(first), 7).collect::<Vec<_>>(), [(first, 7)]);
    }
}
