//! Hostile records and pages: whatever they hold, redo and effects end with a page or an error.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{Relation, Slru, effects, rmid};

/// A record whose kind may be right and whose payload is random: all that it borrows.
#[derive(Clone, Debug)]
struct Parts {
    rmid: u8,
    info: u8,
    main: Vec<u8>,
    /// Each with its data.
    blocks: Vec<(PageKey, Vec<u8>)>,
}

impl Parts {
    fn record(&self) -> Record<'_> {
        let blocks = (0u8..).zip(&self.blocks).map(|(id, (key, data))| BlockRef {
            id,
            key: *key,
            will_init: false,
            image: None,
            data,
        });
        Record {
            xid: 1000,
            prev: Lsn(8),
            info: self.info,
            rmid: self.rmid,
            origin: None,
            top_xid: None,
            main: &self.main,
            blocks: blocks.collect(),
        }
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let payload = || vec(prop_oneof![3 => 0u8..8, 1 => any::<u8>()], 0..120);
    let block = (payload(), 0u32..4, any::<bool>());
    (0..=rmid::BUILTIN_MAX, any::<u8>(), payload(), vec(block, 0..5)).prop_map(
        |(rmid, info, main, blocks)| {
            let key = |map: bool, block: u32| {
                let fork = if map { Fork::VisibilityMap } else { Fork::Main };
                relation().fork(fork).block(block)
            };
            let blocks =
                blocks.into_iter().map(|(data, block, map)| (key(map, block), data)).collect();
            Parts { rmid, info, main, blocks }
        },
    )
}

fn relation() -> Relation {
    Relation { tablespace: 1663, database: 5, number: 16384 }
}

/// A page with some items, any special space, and random bytes over it; or all random.
fn page() -> impl Strategy<Value = Box<Page>> {
    let special = prop_oneof![Just(0), Just(4), Just(8), Just(16), Just(24)];
    let items =
        vec(vec(prop_oneof![2 => 0u8..4, 1 => 0x20u8..0x40, 1 => any::<u8>()], 8..90), 0..12);
    let spoiled = vec((0usize..8192, any::<u8>()), 0..12);
    (special, items, spoiled, any::<bool>(), any::<u8>()).prop_map(
        |(special, items, spoiled, near_header, fill)| {
            let mut page = Page::zeroed();
            page.init(special);
            for (offset, mut item) in (1u16..).zip(items) {
                // A length that an index tuple may have.
                item[6] = item.len() as u8;
                item[7] &= 0xE0;
                page.add_item(offset, &item, crate::Placement::Shift).expect("room");
            }
            if let Ok(special) = page.special_mut(special) {
                special.fill(fill % 3);
            }
            for (at, byte) in spoiled {
                page.bytes_mut()[if near_header { at % 80 } else { at }] = byte;
            }
            page
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_record_and_no_page_makes_redo_panic(parts in parts(), page in page()) {
        let record = parts.record();
        let list = effects(Version::V15, &record);
        let slrus = Slru::ALL.into_iter().map(|slru| Target::Slru(slru, 0));
        let maps = (0..2).map(|block| Target::Page(relation().fork(Fork::VisibilityMap).block(block)));
        let blocks = record.blocks.iter().map(|block| Target::Page(block.key));
        for target in blocks.chain(maps).chain(slrus) {
            let mut page = page.clone();
            let _ = redo(Version::V15, &record, Lsn(4096), target, &mut page);
        }
        drop(list);
    }
}
