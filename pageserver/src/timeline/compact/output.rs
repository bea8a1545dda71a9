//! Writes the layers of a merged run: disjoint in keys, cut where one is large enough.

use rustc_hash::FxHashMap;
use wal_format::Lsn;

use crate::{
    change::Value,
    error::Error,
    key::{Key, KeyKind},
    layer::{
        Clear,
        format::LayerKind,
        name::LayerName,
        writer::{LayerWriter, WrittenLayer},
    },
    timeline::retention::Retained,
};

/// A merged layer is closed when it has about this many bytes. A few thousand blocks: its index
/// and its filter are read at once, and are some 100 KiB.
pub const LAYER_BYTES: usize = if cfg!(test) { 3 << 10 } else { 32 << 20 };
/// The same for layers of history, which are asked for one place: so their index is smaller.
const HISTORY_LAYER_BYTES: usize = if cfg!(test) { 64 } else { 8 << 20 };

/// A run while it is written, by rising keys.
pub struct Output<'o> {
    from: Lsn,
    to: Lsn,
    retained: &'o Retained,
    /// Of the whole run, by rising LSN.
    clears: Vec<OutputClear>,
    /// Which of them hide a version of the layer that is being written.
    hides: Vec<bool>,
    hiding: Hiding,
    writer: Option<LayerWriter>,
    /// What is below was written.
    start: Key,
    latest_commit: i64,
}

impl<'o> Output<'o> {
    /// A run without a version, of these LSNs; `clears` are all of its range.
    pub fn new(from: Lsn, to: Lsn, clears: Vec<OutputClear>, retained: &'o Retained) -> Output<'o> {
        Output {
            from,
            to,
            retained,
            hides: vec![false; clears.len()],
            hiding: Hiding::new(&clears),
            clears,
            writer: None,
            start: Key::MIN,
            latest_commit: i64::MIN,
        }
    }

    /// Adds a version; the layer that is thereby finished, where one is.
    pub fn add(
        &mut self,
        key: Key,
        lsn: Lsn,
        value: &Value,
    ) -> Result<Option<WrittenLayer>, Error> {
        // The latest commit is the run's, which now begins earlier.
        let key = match key.as_history() {
            Some((end, latest)) => {
                self.latest_commit = self.latest_commit.max(latest);
                Key::history(end, self.latest_commit)
            }
            None => key,
        };
        let finished = if self.is_cut(key) { self.cut(key)? } else { None };
        for place in self.hiding.of(key, &self.clears) {
            self.hides[*place] |= lsn < self.clears[*place].clear.lsn;
        }
        let mut writer = self.writer.take().unwrap_or_else(|| LayerWriter::new(self.name()));
        writer.add(key, lsn, value)?;
        self.writer = Some(writer);
        Ok(finished)
    }

    /// The last layer, where there is anything in it.
    pub fn finish(mut self) -> Result<Option<WrittenLayer>, Error> {
        self.cut(Key::MAX)
    }

    /// Whether a new layer begins with this key.
    fn is_cut(&self, key: Key) -> bool {
        let Some(writer) = &self.writer else { return false };
        let last = writer.last_key().filter(|last| *last != key);
        last.is_some_and(|last| match (last.kind(), key.kind()) {
            (Some(KeyKind::History), _) => writer.bytes() >= HISTORY_LAYER_BYTES,
            (_, Some(KeyKind::History)) => true,
            _ => writer.bytes() >= LAYER_BYTES,
        })
    }

    fn cut(&mut self, end: Key) -> Result<Option<WrittenLayer>, Error> {
        let part = self.start..end;
        let clipped = |clear: &Clear| Clear {
            range: clear.range.start.max(part.start)..clear.range.end.min(part.end),
            lsn: clear.lsn,
        };
        // One that hides nothing any more goes with what it hid.
        let hides = self.clears.iter().zip(&self.hides);
        let hides = hides.filter(|(clear, hides)| clear.hides_older || **hides);
        let clears = hides.map(|(clear, _)| &clear.clear).filter(|clear| clear.overlaps(&part));
        let clears: Vec<Clear> = clears.map(clipped).collect();
        self.hides.fill(false);
        self.start = end;
        let writer = self.writer.take().unwrap_or_else(|| LayerWriter::new(self.name()));
        let mut written = writer.finish(&clears)?;
        if let Some(written) = &mut written {
            let folded_to = self.retained.cutoff_lsn();
            written.summary.folded_to = folded_to;
            written.summary.kept_points =
                self.retained.points_in(self.from, self.to.min(folded_to));
        }
        Ok(written)
    }

    fn name(&self) -> LayerName {
        let (from, to) = (self.from, self.to);
        LayerName { kind: LayerKind::Delta, from, to, nonce: rand::random() }
    }
}

/// A clear on its way into the output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutputClear {
    /// The clear.
    pub clear: Clear,
    /// Whether it may hide what is older than the run.
    pub hides_older: bool,
}

/// The clears of each key, by their places: asked for by rising keys.
struct Hiding {
    /// By falling start.
    ahead: Vec<usize>,
    active: Vec<usize>,
    key: Option<Key>,
}

impl Hiding {
    fn new(clears: &[OutputClear]) -> Hiding {
        let mut ahead: Vec<usize> = (0..clears.len()).collect();
        ahead.sort_by_key(|place| std::cmp::Reverse(clears[*place].clear.range.start));
        Hiding { ahead, active: Vec::new(), key: None }
    }

    fn of(&mut self, key: Key, clears: &[OutputClear]) -> &[usize] {
        if self.key.replace(key) != Some(key) {
            while let Some(place) =
                self.ahead.pop_if(|place| clears[*place].clear.range.start <= key)
            {
                self.active.push(place);
            }
            self.active.retain(|place| key < clears[*place].clear.range.end);
        }
        &self.active
    }
}

/// Of clears of one range that the same reads see, the newest.
pub fn without_repeated(clears: Vec<Clear>, retained: &Retained) -> Vec<Clear> {
    let seen = |clear: &Clear| {
        let seen = retained.seen_first_by(clear.lsn).unwrap_or(clear.lsn);
        (clear.range.start, clear.range.end, seen)
    };
    let mut newest = FxHashMap::default();
    for clear in &clears {
        let lsn = newest.entry(seen(clear)).or_insert(clear.lsn);
        *lsn = clear.lsn.max(*lsn);
    }
    clears.into_iter().filter(|clear| newest.get(&seen(clear)) == Some(&clear.lsn)).collect()
}

/// When each key was emptied: asked for by rising keys.
pub struct ClearedKeys {
    /// By falling start.
    ahead: Vec<Clear>,
    active: Vec<Clear>,
}

impl ClearedKeys {
    /// Of these clears.
    pub fn new(clears: &[Clear]) -> ClearedKeys {
        let mut ahead = clears.to_vec();
        ahead.sort_by_key(|clear| std::cmp::Reverse(clear.range.start));
        ClearedKeys { ahead, active: Vec::new() }
    }

    /// The LSNs at which the key was emptied, rising. Keys rise from call to call.
    pub fn of(&mut self, key: Key) -> Vec<Lsn> {
        while let Some(clear) = self.ahead.pop_if(|clear| clear.range.start <= key) {
            self.active.push(clear);
        }
        self.active.retain(|clear| key < clear.range.end);
        let mut lsns: Vec<Lsn> = self.active.iter().map(|clear| clear.lsn).collect();
        lsns.sort_unstable();
        lsns
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use wal_format::{Fork, Relation};

    use super::*;
    use crate::layer::cleared_at;

    fn key(block: u32) -> Key {
        let relation = Relation { tablespace: 1663, database: 5, number: 100 };
        Key::page(relation.fork(Fork::Main).block(block))
    }

    fn any_clears() -> impl Strategy<Value = Vec<Clear>> {
        let clear = (0..40_u32, 1..20_u32, 1..50_u64).prop_map(|(first, blocks, lsn)| Clear {
            range: key(first)..key(first + blocks),
            lsn: Lsn(lsn),
        });
        prop::collection::vec(clear, 0..20).prop_map(|mut clears: Vec<Clear>| {
            clears.sort_by_key(|clear| clear.lsn);
            clears
        })
    }

    fn written(versions: &[(u32, u64)], clears: Vec<OutputClear>) -> Vec<WrittenLayer> {
        let retained = Retained::default();
        let mut output = Output::new(Lsn(0), Lsn(100), clears, &retained);
        let mut layers = Vec::new();
        for (block, lsn) in versions {
            // Nothing that could be compressed.
            let mut image = vec![0; 3000];
            StdRng::seed_from_u64(u64::from(*block)).fill(&mut image[..]);
            let image = Value::Image(image.into());
            let layer = output.add(key(*block), Lsn(*lsn), &image).expect("it is in order");
            layers.extend(layer);
        }
        layers.extend(output.finish().expect("it is whole"));
        layers
    }

    fn clear(blocks: Range<u32>, lsn: u64, hides_older: bool) -> OutputClear {
        let range = key(blocks.start)..key(blocks.end);
        OutputClear { clear: Clear { range, lsn: Lsn(lsn) }, hides_older }
    }

    /// The keys that each layer speaks of.
    fn spans(layers: &[WrittenLayer]) -> Vec<(Key, Key)> {
        layers.iter().map(|layer| (layer.summary.first_key, layer.summary.last_key)).collect()
    }

    #[test]
    fn a_clear_stays_where_it_hides_something_and_goes_where_it_hides_nothing() {
        let only_this = [(key(5), key(5))];
        let with_clear = [(key(5), key(9))];
        // What it hid is given up already.
        assert_eq!(spans(&written(&[(5, 50)], vec![clear(4..9, 50, false)])), only_this);
        assert_eq!(spans(&written(&[(5, 50)], vec![clear(6..9, 60, false)])), only_this);
        // A read between the two LSNs sees the version.
        assert_eq!(spans(&written(&[(5, 49)], vec![clear(5..9, 50, false)])), with_clear);
        assert_eq!(spans(&written(&[(5, 50)], vec![clear(5..9, 50, true)])), with_clear);
        assert_eq!(written(&[], vec![clear(4..9, 50, false)]).len(), 0);
        assert_eq!(written(&[], vec![clear(4..9, 50, true)]).len(), 1);
    }

    #[test]
    fn a_clear_of_many_layers_stays_in_those_of_which_it_hides_something() {
        let old: Vec<(u32, u64)> = (0..20).map(|block| (block, 10)).collect();
        let new: Vec<(u32, u64)> = (20..40).map(|block| (block, 90)).collect();
        let layers = written(&[old, new].concat(), vec![clear(0..60, 50, false)]);
        assert!(layers.len() > 4, "{} layers", layers.len());
        // A clear reaches to where the next layer begins, a layer's versions do not.
        let begins = layers.iter().skip(1).map(|layer| layer.summary.first_key);
        let ends = layers.iter().map(|layer| layer.summary.last_key);
        let has_clear: Vec<bool> =
            ends.zip(begins.chain([key(60)])).map(|(end, next)| end == next).collect();
        assert_eq!((has_clear.first(), has_clear.last()), (Some(&true), Some(&false)));
        assert!(has_clear.is_sorted_by(|one, next| one >= next), "{has_clear:?}");
    }

    proptest! {
        #[test]
        fn every_key_is_emptied_when_one_of_its_clears_says_so(clears in any_clears()) {
            let mut cleared = ClearedKeys::new(&clears);
            for key in (0..70).map(key) {
                let mut expected: Vec<Lsn> = clears
                    .iter()
                    .filter(|clear| clear.range.contains(&key))
                    .map(|clear| clear.lsn)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(cleared.of(key), expected);
            }
        }

        #[test]
        fn reads_of_kept_lsns_miss_no_clear(
            clears in any_clears(), cutoff in 0..60_u64, points in prop::collection::vec(0..60_u64, 0..4)
        ) {
            let retained = Retained::at(Lsn(cutoff), points.into_iter().map(Lsn));
            let kept = without_repeated(clears.clone(), &retained);
            for at in (0..60).map(Lsn).filter(|at| retained.check(*at).is_ok()) {
                for key in (0..70).map(key) {
                    let is_cleared = cleared_at(&clears, key, at).is_some();
                    prop_assert_eq!(cleared_at(&kept, key, at).is_some(), is_cleared);
                }
            }
        }
    }
}
