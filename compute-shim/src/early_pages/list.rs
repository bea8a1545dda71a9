//! The list of the pages that a start read, as it is kept for the next one
//! (`docs/formats/kept-state.md`).

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use wal_format::{Fork, PageKey, Relation, RelationFork};

/// The list's first line, by its version.
const MAGIC: &str = "offshoot start pages 1";
/// The most pages of a list, which a compute has in memory while it starts: 8 MiB.
pub const LIST_PAGES_MAX: usize = 1024;

/// Pages in the order in which they were asked for first, none twice.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct StartList {
    pages: Vec<PageKey>,
    known: HashSet<PageKey>,
}

impl StartList {
    /// Adds a page, if it is new and there is room.
    pub fn add(&mut self, page: PageKey) {
        if self.pages.len() < LIST_PAGES_MAX && self.known.insert(page) {
            self.pages.push(page);
        }
    }

    /// The pages, in order.
    pub fn pages(&self) -> &[PageKey] {
        &self.pages
    }

    /// Reads the list of a file. One that is missing or damaged is none: it only makes a start fast.
    pub fn read(file: &Path) -> Option<StartList> {
        StartList::decode(&fs::read_to_string(file).ok()?)
    }

    /// Writes the file, as a whole or not at all.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut new = file.to_owned().into_os_string();
        new.push(format!(".{}", std::process::id()));
        let mut made =
            fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        made.write_all(self.encode().as_bytes())?;
        fs::rename(&new, file)
    }

    fn encode(&self) -> String {
        let mut text = format!("{MAGIC}\n");
        for run in self.pages.chunk_by(|a, b| a.fork == b.fork && a.block + 1 == b.block) {
            let (PageKey { fork, block }, count) = (run[0], run.len());
            let Relation { tablespace, database, number } = fork.relation;
            let fork = fork.fork as u8;
            writeln!(text, "{tablespace} {database} {number} {fork} {block} {count}")
                .expect("a string takes any text");
        }
        text
    }

    fn decode(text: &str) -> Option<StartList> {
        let runs = text.strip_prefix(MAGIC)?.strip_prefix('\n')?;
        let mut list = StartList::default();
        for run in runs.lines() {
            let words: Vec<u32> =
                run.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
            let &[tablespace, database, number, fork, first, count] = words.as_slice() else {
                return None;
            };
            let relation = Relation { tablespace, database, number };
            let fork = RelationFork { relation, fork: Fork::from_number(fork.try_into().ok()?)? };
            let count = usize::try_from(count).ok().filter(|count| *count <= LIST_PAGES_MAX)?;
            let end = first.checked_add(count as u32)?;
            (first..end).for_each(|block| list.add(fork.block(block)));
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u32, fork: Fork, block: u32) -> PageKey {
        Relation { tablespace: 1663, database: 5, number }.fork(fork).block(block)
    }

    fn list(pages: &[PageKey]) -> StartList {
        let mut list = StartList::default();
        pages.iter().for_each(|page| list.add(*page));
        list
    }

    #[test]
    fn a_list_is_written_and_read_alike_in_the_order_of_its_pages() {
        let pages = [
            page(1259, Fork::Main, 3),
            page(1259, Fork::Main, 4),
            page(1249, Fork::VisibilityMap, 0),
            page(1259, Fork::Main, 0),
        ];
        let text =
            "offshoot start pages 1\n1663 5 1259 0 3 2\n1663 5 1249 2 0 1\n1663 5 1259 0 0 1\n";
        assert_eq!(list(&pages).encode(), text);
        assert_eq!(StartList::decode(text), Some(list(&pages)));
    }

    #[test]
    fn a_page_stands_once_in_a_list_and_a_list_has_an_end() {
        let mut list = list(&[page(1259, Fork::Main, 3), page(1259, Fork::Main, 3)]);
        assert_eq!(list.pages().len(), 1);
        (0..2 * LIST_PAGES_MAX as u32).for_each(|block| list.add(page(1249, Fork::Main, block)));
        assert_eq!(list.pages().len(), LIST_PAGES_MAX);
    }

    #[test]
    fn damage_is_no_list() {
        for bad in [
            "",
            "offshoot start pages 2\n",
            "offshoot start pages 1\n1663 5 1259 0 3\n",
            "offshoot start pages 1\n1663 5 1259 0 3 x\n",
            "offshoot start pages 1\n1663 5 1259 4 3 2\n",
            "offshoot start pages 1\n1663 5 1259 300 3 2\n",
            "offshoot start pages 1\n1663 5 1259 0 4294967295 2\n",
            "offshoot start pages 1\n1663 5 1259 0 3 4294967295\n",
        ] {
            assert_eq!(StartList::decode(bad), None, "{bad:?}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(StartList::read(&folder.path().join("missing")), None);
    }
}
