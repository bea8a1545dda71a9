//! What hostile WAL once did, or nearly did, is tried again with every test run: the inputs in `fuzz/corpus`, through the functions that
//! the fuzz targets run (docs/fuzzing.md).

mod harness;

use std::{fs, path::PathBuf};

use harness::{Base, Block, Case, Image, PageShape, TARGETS};

/// What is kept of one target.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("a folder that can be read").path()).collect()
}

#[test]
fn no_kept_input_breaks_its_target() {
    for (name, target) in TARGETS {
        let kept = corpus(name);
        assert!(!kept.is_empty(), "nothing is kept of {name}");
        for path in kept {
            let input = fs::read(&path).expect("an input that can be read");
            // The panic's own message comes before this one.
            let outcome = std::panic::catch_unwind(|| harness::run(target, &input));
            assert!(outcome.is_ok(), "{} breaks {name}", path.display());
        }
    }
}

#[test]
fn every_target_has_its_file_and_every_kept_input_its_target() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(fuzz.join(folder)).expect("a folder of the fuzz targets");
        let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let mut names: Vec<_> =
            entries.filter_map(|entry| stem(entry.expect("an entry").path())).collect();
        names.sort();
        names
    };
    let mut expected = TARGETS.map(|(name, _)| name);
    expected.sort();
    assert_eq!(names("fuzz_targets"), expected);
    assert_eq!(names("corpus"), expected);
}

#[test]
fn a_case_is_read_as_it_was_written() {
    let image = Image { info: 0x0B, hole_offset: 40, hole_bytes: 8000, bytes: vec![1, 2, 3] };
    let before = PageShape { base: Base::Zeros, runs: vec![(3, vec![9; 40]), (70, vec![1])] };
    let block = |id, image| Block {
        id,
        fork: 2,
        number: 77,
        will_init: id == 0,
        data: vec![id; 5],
        image,
        before: before.clone(),
    };
    let noise = PageShape { base: Base::Noise(7), runs: Vec::new() };
    let orderly = Base::Orderly { seed: 3, items: 20, special: 2 };
    let case = Case {
        info: 0x50,
        xid: 731,
        origin: 4,
        blocks: vec![block(0, None), block(3, Some(image))],
        elsewhere: PageShape { base: orderly, ..noise },
        main: vec![5; 10],
    };
    assert_eq!(Case::decode(&case.encode()), case);
}

#[test]
fn a_page_s_shape_gives_the_page() {
    for special in [0, 8, 16] {
        let base = Base::Orderly { seed: 5, items: 100, special };
        let page = PageShape { base, runs: vec![(8000, vec![7; 16])] }.page();
        assert!(page.bounds().is_ok() && page.max_offset() == 100);
        assert_eq!(PageShape::of(&page).page(), page);
    }
}
