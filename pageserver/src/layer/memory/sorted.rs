//! A memory layer's versions by key, then LSN.

use wal_format::Lsn;

use super::{Chain, MemoryLayer};
use crate::{change::ValueKind, key::Key};

/// Versions whose bytes are fetched from memory at once.
const VERSIONS_AHEAD: usize = 64;

/// The order of a layer's versions.
pub struct Sorted<'l> {
    layer: &'l MemoryLayer,
    /// The numbers of the chains, by their keys.
    chains: Vec<u32>,
    /// The places of all versions: chain by chain, by rising LSN.
    places: Vec<u32>,
}

impl<'l> Sorted<'l> {
    /// Of this layer.
    pub(super) fn new(layer: &'l MemoryLayer) -> Sorted<'l> {
        let mut chains: Vec<(Key, u32)> =
            layer.chains.iter().enumerate().map(|(at, chain)| (chain.key, at as u32)).collect();
        chains.sort_unstable();
        // Versions came by rising LSN: each takes the next place of its chain.
        let mut next = vec![0; layer.chains.len()];
        let mut end = 0;
        for (_, number) in &chains {
            next[*number as usize] = end;
            end += layer.chains[*number as usize].count;
        }
        let mut places = vec![0; layer.versions.len()];
        for (place, version) in layer.versions.iter().enumerate() {
            let next = &mut next[version.chain as usize];
            places[*next as usize] = place as u32;
            *next += 1;
        }
        let chains = chains.into_iter().map(|(_, number)| number).collect();
        Sorted { layer, chains, places }
    }

    /// Each key with its versions.
    pub fn keys(&self) -> impl Iterator<Item = KeyVersions<'_>> {
        let (mut start, mut fetched) = (0, 0);
        self.chains.iter().map(move |number| {
            let chain = &self.layer.chains[*number as usize];
            let end = start + chain.count as usize;
            // Most keys have few versions: they are fetched with those of the keys that follow.
            if fetched < end {
                fetched = self.places.len().min(start.max(fetched) + VERSIONS_AHEAD);
                fetch(self.layer, &self.places[start..fetched]);
            }
            let places = &self.places[start..end];
            start = end;
            KeyVersions { layer: self.layer, chain, places }
        })
    }
}

/// A key's versions, by rising LSN.
#[derive(Clone, Copy)]
pub struct KeyVersions<'l> {
    layer: &'l MemoryLayer,
    chain: &'l Chain,
    places: &'l [u32],
}

impl<'l> KeyVersions<'l> {
    /// The key.
    pub fn key(&self) -> Key {
        self.chain.key
    }

    /// The longest row of records without an image between.
    pub fn records_max(&self) -> usize {
        self.chain.records_max()
    }

    /// Whether the first version needs nothing older.
    pub fn is_complete(&self) -> bool {
        self.chain.is_complete
    }

    /// The versions' bytes, without a copy.
    pub fn iter(&self) -> impl Iterator<Item = (Lsn, ValueKind, &'l [u8])> + use<'l> {
        let (layer, places) = (self.layer, self.places);
        places.chunks(VERSIONS_AHEAD).enumerate().flat_map(move |(number, places)| {
            if number > 0 {
                fetch(layer, places);
            }
            places.iter().map(move |place| {
                let version = &layer.versions[*place as usize];
                (version.lsn, version.kind, bytes(layer, *place))
            })
        })
    }
}

fn bytes(layer: &MemoryLayer, place: u32) -> &[u8] {
    let version = &layer.versions[place as usize];
    let at = version.at as usize;
    &layer.pieces[version.piece as usize][at..at + version.bytes as usize]
}

/// Has the processor fetch some versions side by side: they are far from each other in memory, and
/// each would be waited for by itself. A version and a small record are on one or two lines of the
/// cache.
fn fetch(layer: &MemoryLayer, places: &[u32]) {
    for places in places.chunks(VERSIONS_AHEAD) {
        // First where they are, then they themselves: what is waited for does not depend on each
        // other.
        let mut found: [&[u8]; VERSIONS_AHEAD] = [&[]; VERSIONS_AHEAD];
        let mut seen = 0;
        for (found, place) in found.iter_mut().zip(places) {
            *found = bytes(layer, *place);
            seen ^= layer.versions[*place as usize].lsn.0 as u8;
        }
        for bytes in found {
            seen ^= bytes.first().copied().unwrap_or(0) ^ bytes.last().copied().unwrap_or(0);
        }
        std::hint::black_box(seen);
    }
}
