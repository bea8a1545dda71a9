use proptest::prelude::*;

use super::*;

fn page_with(items: &[&[u8]]) -> Box<Page> {
    let mut page = Page::zeroed();
    page.init(16);
    for (index, item) in items.iter().enumerate() {
        page.add_item(index as u16 + 1, item, Placement::Shift).expect("room");
    }
    page
}

fn items(page: &Page) -> Vec<Vec<u8>> {
    (1..=page.max_offset()).map(|offset| page.item(offset).expect("an item").to_vec()).collect()
}

#[test]
fn items_are_found_where_they_were_added() {
    let mut page = page_with(&[b"one", b"three"]);
    page.add_item(2, b"two", Placement::Shift).expect("room");
    assert_eq!(items(&page), [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    let bounds = page.bounds().expect("sound");
    assert_eq!(bounds, Bounds { lower: 36, upper: 8192 - 16 - 24, special: 8192 - 16 });
}

#[test]
fn one_deletion_and_several_keep_the_other_items() {
    let all: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; usize::from(n) * 3 + 1]).collect();
    let refs: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    for gone in [vec![3u16], vec![1, 20], vec![2, 3, 4, 19, 20], (1..=20).collect()] {
        let mut page = page_with(&refs);
        page.delete_items(gone.iter().copied()).expect("sound");
        let left: Vec<Vec<u8>> = (1..=20u16)
            .filter(|offset| !gone.contains(offset))
            .map(|offset| all[usize::from(offset) - 1].clone())
            .collect();
        assert_eq!(items(&page), left);
        let used: usize = left.iter().map(|item| align8(item.len())).sum();
        assert_eq!(page.bounds().expect("sound").upper, 8192 - 16 - used);
    }
}

#[test]
fn an_overwritten_item_may_grow_and_shrink() {
    let mut page = page_with(&[b"aaaa", b"bbbb", b"cccc"]);
    for new in [&b"longer than before"[..], b"x", b"eight ch"] {
        page.overwrite_item(2, new).expect("room");
        assert_eq!(page.item(1).expect("an item"), b"aaaa");
        assert_eq!(page.item(3).expect("an item"), b"cccc");
        assert_eq!(page.item(2).expect("an item"), new);
    }
}

proptest! {
    #[test]
    fn a_repair_puts_items_in_the_order_of_their_line_pointers_wherever_they_lay(
        items in proptest::collection::vec((1usize..120, any::<bool>(), any::<u32>()), 1..60),
    ) {
        let mut page = Page::zeroed();
        page.init(16);
        let lower = PAGE_HEADER_BYTES + items.len() * LINE_POINTER_BYTES;
        page.set_lower(lower);
        // They lie in any order, and some are gone.
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|index| items[*index].2);
        let mut upper = 8192 - 16;
        for index in order {
            let (bytes, stays, _) = items[index];
            upper -= align8(bytes);
            let offset = index as u16 + 1;
            if stays {
                let pointer = LinePointer::new(LinePointerState::Normal, upper, bytes);
                page.set_line_pointer(offset, pointer).expect("it is there");
                page.item_mut(offset).expect("it is there").fill(offset as u8);
            }
        }
        page.set_upper(upper);
        page.repair_fragmentation().expect("sound");

        let mut upper = 8192 - 16;
        for (offset, (bytes, stays, _)) in (1..).zip(items) {
            if stays {
                upper -= align8(bytes);
                prop_assert_eq!(page.item_range(offset), Ok(upper..upper + bytes));
                prop_assert!(page.item(offset).expect("it is there").iter().all(|byte| *byte == offset as u8));
            }
        }
        prop_assert_eq!(page.bounds().expect("sound").upper, upper);
    }
}

#[test]
fn line_pointers_without_storage_survive_a_repair() {
    let mut page = Page::zeroed();
    page.init(0);
    for offset in 1..=5 {
        page.add_item(offset, &[offset as u8; 30], Placement::Heap).expect("room");
    }
    let redirect = LinePointer::new(LinePointerState::Redirect, 3, 0);
    page.set_line_pointer(1, redirect).expect("there");
    page.set_line_pointer(2, LinePointer::UNUSED).expect("there");
    page.set_line_pointer(5, LinePointer::UNUSED).expect("there");
    page.repair_fragmentation().expect("sound");
    assert_eq!(page.max_offset(), 4);
    assert_eq!(page.flags() & flags::HAS_FREE_LINES, flags::HAS_FREE_LINES);
    assert!(page.line_pointer(1).expect("there") == redirect);
    assert_eq!(page.item(4).expect("an item"), [4; 30]);
    assert_eq!(page.bounds().expect("sound").upper, 8192 - 64);
}

#[test]
fn a_checksum_depends_on_the_block_and_not_on_itself() {
    let mut page = page_with(&[b"data"]);
    page.set_checksum(7);
    assert!(page.verify_checksum(7));
    assert!(!page.verify_checksum(8));
    page.bytes_mut()[8000] ^= 1;
    assert!(!page.verify_checksum(7));
    assert!(Page::zeroed().verify_checksum(7));
}

proptest! {
    #[test]
    fn no_page_makes_an_operation_panic(
        header in proptest::array::uniform32(any::<u8>()),
        pointers in proptest::collection::vec(any::<u32>(), 0..40),
        sane in any::<bool>(),
        offset in 0u16..50,
        bytes in 0usize..9000,
    ) {
        let mut page = Page::zeroed();
        page.bytes_mut()[..32].copy_from_slice(&header);
        if sane {
            page.put_u16(12, (24 + pointers.len() * 4) as u16);
            page.put_u16(14, 400);
            page.put_u16(16, 8176);
        }
        for (index, pointer) in pointers.iter().enumerate() {
            page.put_u32(24 + index * 4, *pointer);
        }
        let item = vec![1; bytes];
        type Step = fn(&mut Page, u16, &[u8]) -> Result<(), PageError>;
        let steps: [Step; 8] = [
            |page, offset, item| page.add_item(offset, item, Placement::Shift),
            |page, offset, item| page.add_item(offset, item, Placement::Heap),
            |page, offset, item| page.overwrite_item(offset, item),
            |page, offset, _| page.delete_item(offset),
            |page, offset, _| page.delete_item_keeping_pointer(offset),
            |page, offset, _| page.delete_items([1, 2, offset].into_iter()),
            |page, _, _| page.repair_fragmentation(),
            |page, _, _| page.truncate_line_pointers(),
        ];
        for step in steps {
            let mut page = page.clone();
            let _ = step(&mut page, offset, &item);
        }
    }
}
