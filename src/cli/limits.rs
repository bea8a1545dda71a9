//! How much the pageserver may take.

use std::time::Duration;

use clap::Args;

const UNLOAD_AFTER_DEFAULT: &str = "5m";

/// The pageserver's bounds.
#[derive(Args, Clone)]
pub struct LimitsArgs {
    /// Memory that the pageserver takes: half of it for parts of layers that were read, a quarter
    /// for WAL that is not stored yet, the rest for merges and connections. Where not said, a
    /// quarter of what the machine, or the container, has, and at most 8G.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory: Option<u64>,
    /// Local disk that the pageserver takes, for parts of layers as they are stored; reserved at
    /// the start, 0 for none. Where not said, with an S3 store and a folder to put it in, a quarter
    /// of that file system and at most 4G; none with a store that is a local folder: that is as
    /// near already.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub disk: Option<u64>,
    /// How long a timeline stays in memory that nobody uses.
    #[arg(long, value_name = "TIME", default_value = UNLOAD_AFTER_DEFAULT, value_parser = time)]
    pub unload_after: Duration,
}

/// Reads `90s`, `5m`, `1h 30m`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a time; write it like 90s, 5m or 1h");
    humantime::parse_duration(text).map_err(|_| expected())
}

/// Reads `512M`, `4G`, `65536`: powers of 1,024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("{text:?} is not a size; write it like 512M, 4G or 65536");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(expected()),
    };
    let number: u64 = digits.parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, time};

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("1h 5m"), Ok(Duration::from_secs(3900)));
        for bad in ["", "5", "-1s", "soon"] {
            assert!(time(bad).is_err(), "{bad:?} was taken for a time");
        }
    }

    #[test]
    fn a_size_is_a_number_with_or_without_a_unit() {
        for (text, size) in
            [("0", 0), ("65536", 65536), ("512M", 512 << 20), ("4g", 4 << 30), ("1TiB", 1 << 40)]
        {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in ["", "M", "-1M", "1.5G", "12X", "99999999999T"] {
            assert!(bytes(bad).is_err(), "{bad:?} was taken for a size");
        }
    }
}
