//! A layer object's name, and what the manifest says of it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use wal_format::Lsn;

use super::format::LayerKind;
use crate::key::{KEY_BYTES, Key};

/// `delta-{from}-{to}-{nonce}` or `image-{lsn}-{lsn}-{nonce}`, 16 hexadecimal digits each. The
/// nonce keeps two writers of the same range from writing one object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LayerName {
    /// Delta or image.
    pub kind: LayerKind,
    /// Versions are above this; an image's LSN.
    pub from: Lsn,
    /// Versions are at most this.
    pub to: Lsn,
    /// A random number.
    pub nonce: u64,
}

impl LayerName {
    /// Whether the layer has versions at or below `at`.
    pub fn holds_versions_at(&self, at: Lsn) -> bool {
        match self.kind {
            LayerKind::Delta => self.from < at,
            LayerKind::Image => self.from <= at,
        }
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LayerKind::Delta => "delta",
            LayerKind::Image => "image",
        };
        write!(f, "{kind}-{:016X}-{:016X}-{:016x}", self.from.0, self.to.0, self.nonce)
    }
}

impl FromStr for LayerName {
    type Err = String;

    fn from_str(text: &str) -> Result<LayerName, String> {
        let parse = || {
            let mut parts = text.split('-');
            let kind = match parts.next()? {
                "delta" => LayerKind::Delta,
                "image" => LayerKind::Image,
                _ => return None,
            };
            let mut number = || {
                let digits = parts.next()?;
                let hex = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
            };
            let name =
                LayerName { kind, from: Lsn(number()?), to: Lsn(number()?), nonce: number()? };
            (parts.next().is_none() && name.from <= name.to).then_some(name)
        };
        parse().ok_or_else(|| format!("{text:?} is not the name of a layer"))
    }
}

impl Serialize for LayerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LayerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LayerName, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What the manifest says of a layer: enough to know whether it must be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayerSummary {
    /// The object's name in the timeline's folder `layers/`.
    pub name: LayerName,
    /// The object's length.
    pub bytes: u64,
    /// Where its clears begin: they, the index and the footer are read at once.
    pub clears_at: u64,
    /// The lowest key of its versions and clears.
    #[serde(with = "key_text")]
    pub first_key: Key,
    /// The highest key of its versions, or the end of its clears.
    #[serde(with = "key_text")]
    pub last_key: Key,
    /// The latest commit's time, in microseconds since 2000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit_time: Option<i64>,
    /// At and below this only kept points were thought of when it was written; 0 where all LSNs.
    #[serde(default = "unfolded", skip_serializing_if = "is_unfolded")]
    pub folded_to: Lsn,
    /// So many points below that were kept in the layer's range of LSNs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept_points: u64,
}

fn unfolded() -> Lsn {
    Lsn::INVALID
}

fn is_unfolded(lsn: &Lsn) -> bool {
    *lsn == Lsn::INVALID
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
impl LayerSummary {
    /// A delta layer of these LSNs, without a byte.
    pub fn of_nothing(from: Lsn, to: Lsn) -> LayerSummary {
        LayerSummary {
            name: LayerName { kind: LayerKind::Delta, from, to, nonce: 1 },
            bytes: 0,
            clears_at: 0,
            first_key: Key::MIN,
            last_key: Key::MAX,
            last_commit_time: None,
            folded_to: Lsn::INVALID,
            kept_points: 0,
        }
    }
}

/// Keys as 36 hexadecimal digits.
mod key_text {
    use super::*;

    pub fn serialize<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = key.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || de::Error::custom(format!("{text:?} is not a key of 36 hexadecimal digits"));
        if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; KEY_BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * at..2 * at + 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Key::decode(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_name_and_summary_are_read_back_as_they_were_written() {
        let name =
            LayerName { kind: LayerKind::Delta, from: Lsn(0x10), to: Lsn(0xAB), nonce: 0xC0FFEE };
        let text = "delta-0000000000000010-00000000000000AB-0000000000c0ffee";
        assert_eq!(name.to_string(), text);
        assert_eq!(text.parse(), Ok(name));
        for bad in ["", "delta", "delta-1-2-3", &format!("{text}-"), &text.replace("delta", "tail")]
        {
            assert!(bad.parse::<LayerName>().is_err(), "{bad} was taken for a layer");
        }
        let summary = LayerSummary { name, bytes: 10, ..LayerSummary::of_nothing(Lsn(1), Lsn(2)) };
        let json = serde_json::to_string(&summary).expect("a summary is JSON");
        assert_eq!(serde_json::from_str::<LayerSummary>(&json).expect("ours"), summary);
    }
}
