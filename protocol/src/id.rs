//! Identifiers: 128-bit random numbers, written as 32 hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: 32 hexadecimal digits were expected")]
pub struct IdParseError(pub String);

/// 16 random bytes; the types around it keep one kind from being taken for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Id(u128);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Id {
    type Err = IdParseError;

    fn from_str(text: &str) -> Result<Id, IdParseError> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Id).ok_or_else(|| IdParseError(text.to_owned()))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.to_be_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(|bytes| Id(u128::from_be_bytes(bytes)))
        }
    }
}

/// A tenant: one customer's databases and all their branches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(Id);

/// A timeline: one line of history, branched from another at a point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(Id);

/// The identity of a safekeeper's disk: lost with it, never made again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(Id);

impl TenantId {
    /// The id made of these random bits.
    pub fn from_bits(bits: u128) -> TenantId {
        TenantId(Id(bits))
    }

    /// Its bits.
    pub fn bits(self) -> u128 {
        self.0.0
    }
}

impl TimelineId {
    /// The id made of these random bits.
    pub fn from_bits(bits: u128) -> TimelineId {
        TimelineId(Id(bits))
    }

    /// Its bits.
    pub fn bits(self) -> u128 {
        self.0.0
    }
}

impl Identity {
    /// The id made of these random bits.
    pub fn from_bits(bits: u128) -> Identity {
        Identity(Id(bits))
    }

    /// Its bits.
    pub fn bits(self) -> u128 {
        self.0.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for TenantId {
    type Err = IdParseError;

    fn from_str(text: &str) -> Result<TenantId, IdParseError> {
        text.parse().map(TenantId)
    }
}

impl FromStr for TimelineId {
    type Err = IdParseError;

    fn from_str(text: &str) -> Result<TimelineId, IdParseError> {
        text.parse().map(TimelineId)
    }
}

impl FromStr for Identity {
    type Err = IdParseError;

    fn from_str(text: &str) -> Result<Identity, IdParseError> {
        text.parse().map(Identity)
    }
}

/// A timeline and the tenant it belongs to: what every request names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TenantTimeline {
    /// The tenant.
    pub tenant: TenantId,
    /// The timeline.
    pub timeline: TimelineId,
}

impl fmt::Display for TenantTimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.timeline)
    }
}

/// A safekeeper's number, given by the operator; its disk's [`Identity`] is another matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A proposer's term of office. Zero before the first election; at most one proposer holds each.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Term(pub u64);

impl Term {
    /// The next higher term.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_and_read_as_32_digits() {
        let id = TenantId::from_bits(0xABC);
        assert_eq!(id.to_string(), "00000000000000000000000000000abc");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "abc", "0000000000000000000000000000000g"] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad} was taken for an id");
        }
    }
}
