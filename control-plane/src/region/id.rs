//! What a region is called.

use std::{fmt, str::FromStr};

use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};

/// The longest id, in bytes.
const BYTES_MAX: usize = 63;

/// A region's id, as `region_id` says it: 1 to 63 of `a`-`z`, `0`-`9` and `-`, a letter or digit at
/// both ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegionId(String);

impl RegionId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegionId {
    type Err = String;

    fn from_str(text: &str) -> Result<RegionId, String> {
        let is_end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let is_good = bytes.iter().all(|b| is_end(b) || *b == b'-')
            && bytes.first().is_some_and(is_end)
            && bytes.last().is_some_and(is_end)
            && bytes.len() <= BYTES_MAX;
        is_good.then(|| RegionId(text.to_owned())).ok_or_else(|| {
            format!(
                "{text:?} cannot be a region's id: use 1 to {BYTES_MAX} of a-z, 0-9 and -, with a \
                 letter or a digit at both ends, like eu-central-1"
            )
        })
    }
}

impl TryFrom<String> for RegionId {
    type Error = String;

    fn try_from(text: String) -> Result<RegionId, String> {
        text.parse()
    }
}

impl From<RegionId> for String {
    fn from(id: RegionId) -> String {
        id.0
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToSql for RegionId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for RegionId {
    /// What was written down once is not looked at again.
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<RegionId> {
        String::column_result(value).map(RegionId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_word_of_small_letters_digits_and_hyphens() {
        for good in ["local", "eu", "aws-us-east-2", "1", &"x".repeat(63)] {
            assert_eq!(good.parse::<RegionId>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-", "EU", "eu_west", "eu/west", "eu west", "-eu", "eu-", &"x".repeat(64)] {
            let refused = bad.parse::<RegionId>().err().unwrap_or_default();
            assert!(refused.contains("cannot be a region's id"), "{bad:?}: {refused:?}");
        }
    }
}
