//! What was used, in timeframes of an hour, a day or a month.
//!
//! Whole seconds are shown, and what is shown adds up: the hours of a month are as long together as
//! the month, because each shows by how much the month's whole seconds grew in it.

use super::period::Granularity;
use crate::catalog::consumption::{Hour, Row, Sizes, Used};

/// What was used in a timeframe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Frame {
    /// Its first hour.
    pub from: Hour,
    /// The first hour after it.
    pub to: Hour,
    /// Seconds in which a compute ran.
    pub active_seconds: u64,
    /// Those times the compute's units.
    pub compute_seconds: u64,
    /// Bytes of WAL.
    pub written_bytes: u64,
    /// Bytes that clients were sent.
    pub transfer_bytes: u64,
    /// What was held at its end, or is now.
    pub sizes: Sizes,
    /// Bytes in the object store, times the hours that they were there.
    pub stored_byte_hours: u64,
}

impl Frame {
    /// Adds another project's.
    pub(crate) fn add(&mut self, other: &Frame) {
        self.active_seconds += other.active_seconds;
        self.compute_seconds += other.compute_seconds;
        self.written_bytes += other.written_bytes;
        self.transfer_bytes += other.transfer_bytes;
        self.sizes.logical_bytes += other.sizes.logical_bytes;
        self.sizes.stored_bytes += other.sizes.stored_bytes;
        self.stored_byte_hours += other.stored_byte_hours;
    }
}

/// The hours from which rows are needed, for timeframes from this one on.
pub(crate) fn rows_from(from: Hour) -> Hour {
    Granularity::Monthly.first(from)
}

/// The timeframes from the one of the hour `from` to the one before the hour `to`. `rows` are in the
/// order of hours, from [`rows_from`] on; `before` is what was held until then.
pub(crate) fn frames(
    rows: &[Row],
    before: Sizes,
    granularity: Granularity,
    from: Hour,
    to: Hour,
) -> Vec<Frame> {
    let from = granularity.first(from);
    let mut rows = rows.iter().peekable();
    let mut now = Now { month: rows_from(from), used: Used::default(), sizes: before };
    for hour in now.month..from {
        now.pass(hour, rows.next_if(|row| row.hour == hour));
    }
    let mut frames = Vec::new();
    let mut first = from;
    while first < to {
        let next = granularity.next(first);
        now.begin(first);
        let begun = now.used;
        let mut stored_byte_hours = 0;
        for hour in first..next.min(to) {
            now.pass(hour, rows.next_if(|row| row.hour == hour));
            stored_byte_hours += now.sizes.stored_bytes;
        }
        frames.push(Frame {
            from: first,
            to: next,
            active_seconds: now.used.active_seconds() - begun.active_seconds(),
            compute_seconds: now.used.compute_seconds() - begun.compute_seconds(),
            written_bytes: now.used.written_bytes - begun.written_bytes,
            transfer_bytes: now.used.transfer_bytes - begun.transfer_bytes,
            sizes: now.sizes,
            stored_byte_hours,
        });
        first = next;
    }
    frames
}

/// What was used since the month began, and is held.
struct Now {
    month: Hour,
    used: Used,
    sizes: Sizes,
}

impl Now {
    fn begin(&mut self, hour: Hour) {
        let month = rows_from(hour);
        if month != self.month {
            *self = Now { month, used: Used::default(), sizes: self.sizes };
        }
    }

    fn pass(&mut self, hour: Hour, row: Option<&Row>) {
        self.begin(hour);
        if let Some(row) = row {
            self.used += row.used;
            self.sizes = row.sizes.unwrap_or(self.sizes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metering::period::hour_of, v2::time::parse};

    fn hour(text: &str) -> Hour {
        hour_of(parse(text).expect("a moment"))
    }

    fn row(hour: Hour, active_us: u64, written_bytes: u64) -> Row {
        let used =
            Used { active_us, compute_mcu_us: active_us * 250, written_bytes, transfer_bytes: 1 };
        Row { hour, used, sizes: None }
    }

    #[test]
    fn the_hours_of_a_month_add_up_to_the_month_to_the_second_and_the_byte() {
        let first = hour("2026-11-01T00:00:00Z");
        let rows: Vec<_> = (0..30 * 24).map(|n| row(first + n, 1_700_000, 3)).collect();
        let end = hour("2026-12-01T00:00:00Z");
        let all = |granularity| frames(&rows, Sizes::default(), granularity, first, end);
        let sum = |granularity| {
            let mut sum = Frame::default();
            all(granularity).iter().for_each(|frame| sum.add(frame));
            sum
        };
        let month = sum(Granularity::Monthly);
        assert_eq!((all(Granularity::Monthly).len(), month.active_seconds), (1, 1224));
        assert_eq!((month.compute_seconds, month.written_bytes), (306, 2160));
        for finer in [Granularity::Hourly, Granularity::Daily] {
            assert_eq!(sum(finer), month, "{finer:?}");
        }
        assert_eq!(all(Granularity::Daily).len(), 30);
        // From the middle of the month on, the hours are as they were.
        let late = frames(&rows, Sizes::default(), Granularity::Hourly, first + 100, end);
        assert_eq!(late, all(Granularity::Hourly)[100..]);
    }

    #[test]
    fn a_month_begins_with_nothing_and_with_what_is_held() {
        let first = hour("2026-11-30T22:00:00Z");
        let held = |bytes| Some(Sizes { logical_bytes: bytes, stored_bytes: 2 * bytes });
        let rows = [
            Row { sizes: held(10), ..row(first + 1, 900_000, 1) },
            Row { sizes: held(20), ..row(first + 3, 900_000, 2) },
        ];
        let before = Sizes { logical_bytes: 1, stored_bytes: 2 };
        let hours = frames(&rows, before, Granularity::Hourly, first, first + 5);
        let stored: Vec<_> = hours.iter().map(|frame| frame.sizes.stored_bytes).collect();
        assert_eq!(stored, [2, 20, 20, 40, 40]);
        let months = frames(&rows, before, Granularity::Monthly, first, first + 5);
        assert_eq!(months.len(), 2);
        assert_eq!((months[0].written_bytes, months[1].written_bytes), (1, 2));
        // 0.9 s each: no second is whole in either month.
        assert_eq!((months[0].active_seconds, months[1].active_seconds), (0, 0));
        // The month's hours until now: three at 40.
        assert_eq!(
            (months[1].stored_byte_hours, months[1].sizes.logical_bytes),
            (20 + 40 + 40, 20)
        );
    }
}
