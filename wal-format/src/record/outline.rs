//! What ingest needs of most records: the pages that they change, all of which they name, and what is to be kept of them for each page.
//!
//! A record that is kept for one of its pages is kept without that page's name, which whoever reads it knows: in a small record that would
//! be a third of what is left.

use super::{
    BLOCK_ID_MAX, FORK_MASK, HAS_DATA, HAS_IMAGE, MAIN_DATA_LONG, MAIN_DATA_SHORT,
    RECORD_HEADER_BYTES, RecordHeader, SAME_RELATION, WILL_INIT,
};
use crate::{
    Fork, PageKey, Slru, Target, Version,
    effects::changes_named_pages,
    fields::Fields,
    redo::{self, slru},
    rmgr::{self, transaction},
};

/// Bytes of a relation's name in a block reference (`RelFileNode`).
const RELATION_BYTES: u32 = 12;
/// Bytes of a block's number.
const BLOCK_BYTES: u32 = 4;

/// A record that changes the pages that it names and nothing else, and has none of them as an image; or a commit of which nothing is said
/// but when.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// The transaction that wrote it; 0 where none did.
    pub xid: u32,
    /// The pages, by their numbers in the record.
    pub pages: Vec<NamedPage>,
    /// The commit's time, in microseconds since 2000, where it is one: then it changes [`Outline::status_page`] alone, and that of
    /// [`Slru::CommitTs`] where such are kept.
    pub committed: Option<i64>,
    rmid: u8,
    info: u8,
}

/// A page that a record names, and where.
#[derive(Clone, Copy, Debug)]
pub struct NamedPage {
    /// The page.
    pub key: PageKey,
    /// Redo makes it anew.
    pub will_init: bool,
    id: u8,
    /// Where the name begins, and its length.
    name_at: u32,
    name_bytes: u32,
}

/// What is kept of a record, in the order in which it is to be put together.
#[derive(Clone, Copy, Debug)]
pub struct KeptRecord<'a> {
    /// `xl_xid`, `xl_info`, `xl_rmid`, and the number of the reference whose page is not named.
    pub head: [u8; KEPT_HEAD_BYTES],
    /// What is before that name, and behind it.
    pub parts: [&'a [u8]; 2],
}

/// Bytes of [`Outline::kept_commit`]: fewer than any other record leaves.
pub const KEPT_COMMIT_BYTES: usize = 4;
/// Bytes of [`KeptRecord::head`].
pub const KEPT_HEAD_BYTES: usize = 7;
/// The number of a reference where all pages are named.
const ALL_NAMED: u8 = u8::MAX;

impl Outline {
    /// Takes a sound record's outline, in place of what it was before. False where the record is not such a one, or makes no sense: then
    /// [`crate::Record::parse`] says what it is, and the outline is of no use.
    #[inline]
    pub fn take(&mut self, version: Version, bytes: &[u8]) -> bool {
        match version {
            Version::V15 => self.read(bytes).is_some(),
        }
    }

    /// Where it says whether the transaction has committed.
    pub fn status_page(&self) -> Target {
        Target::Slru(Slru::Clog, slru::CLOG.page(self.xid))
    }

    /// What is to be kept of a commit for that page: the transaction, u32 little-endian. [`crate::redo_kept`] reads it.
    pub fn kept_commit(&self) -> [u8; KEPT_COMMIT_BYTES] {
        self.xid.to_le_bytes()
    }

    /// What is to be kept of the record for one of its pages; `bytes` are the record's.
    #[inline]
    pub fn kept_for<'a>(&self, page: &NamedPage, bytes: &'a [u8]) -> KeptRecord<'a> {
        let NamedPage { id, name_at, name_bytes, .. } = *page;
        let (before, rest) = bytes.split_at(name_at as usize);
        let before = &before[RECORD_HEADER_BYTES..];
        let head = kept_head(self.xid, self.info, self.rmid, id);
        KeptRecord { head, parts: [before, &rest[name_bytes as usize..]] }
    }

    fn read(&mut self, bytes: &[u8]) -> Option<()> {
        let mut fields = Fields::new(bytes);
        let header = RecordHeader::read(&mut fields)?;
        let is_commit = transaction::is_plain_commit(header.rmid, header.info);
        if !is_commit && !redo::is_supported(header.rmid) {
            return None;
        }
        (self.xid, self.rmid, self.info) = (header.xid, header.rmid, header.info);
        self.pages.clear();
        self.committed = None;
        let (mut announced, mut main) = (0, 0);
        // The headers end where only the bytes that they announce are left.
        while fields.rest().len() > announced {
            let id = fields.u8()?;
            match id {
                0..=BLOCK_ID_MAX => {
                    announced += self.read_page(id, bytes, &mut fields)?;
                    continue;
                }
                MAIN_DATA_SHORT => main = usize::from(fields.u8()?),
                MAIN_DATA_LONG => main = fields.u32()? as usize,
                _ => return None,
            }
            announced += main;
            break;
        }
        let is_whole =
            fields.rest().len() == announced && header.total_bytes as usize == bytes.len();
        let main = is_whole.then(|| &bytes[bytes.len() - main..])?;
        if is_commit {
            self.committed = Fields::new(main).i64();
            return (self.pages.is_empty() && self.committed.is_some()).then_some(());
        }
        changes_named_pages(header.rmid, header.info, main).then_some(())
    }

    /// `XLogRecordBlockHeader` and what follows it; how many bytes of data it announces.
    #[inline]
    fn read_page(&mut self, id: u8, bytes: &[u8], fields: &mut Fields) -> Option<usize> {
        let [flags, low, high] = *fields.chunk()?;
        let data = usize::from(u16::from_le_bytes([low, high]));
        let last = self.pages.last();
        let rises = last.is_none_or(|last| last.id < id);
        if !rises || (flags & HAS_DATA != 0) != (data > 0) || flags & HAS_IMAGE != 0 {
            return None;
        }
        let fork = Fork::from_number(flags & FORK_MASK)?;
        let name_at = (bytes.len() - fields.rest().len()) as u32;
        let (relation, name_bytes) = match flags & SAME_RELATION != 0 {
            true => (last?.key.fork.relation, BLOCK_BYTES),
            false => {
                let relation = fields.chunk::<{ RELATION_BYTES as usize }>()?;
                (rmgr::relation(&mut Fields::new(relation))?, RELATION_BYTES + BLOCK_BYTES)
            }
        };
        let key = relation.fork(fork).block(fields.u32()?);
        let will_init = flags & WILL_INIT != 0;
        self.pages.push(NamedPage { key, will_init, id, name_at, name_bytes });
        Some(data)
    }
}

/// What is to be kept of a sound record for redo: all but its length, the start of the record before, and its checksum, which redo does
/// not need and which would be a good part of a small record. [`crate::Record::parse_kept`] reads it.
///
/// # Panics
/// Where there are fewer bytes than a record's header has.
pub fn kept_record(bytes: &[u8]) -> KeptRecord<'_> {
    let (header, rest) = bytes.split_at(RECORD_HEADER_BYTES);
    let xid = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    KeptRecord { head: kept_head(xid, header[16], header[17], ALL_NAMED), parts: [&[], rest] }
}

impl KeptRecord<'_> {
    /// All of it.
    pub fn concat(&self) -> Vec<u8> {
        [&self.head, self.parts[0], self.parts[1]].concat()
    }
}

fn kept_head(xid: u32, info: u8, rmid: u8, unnamed: u8) -> [u8; KEPT_HEAD_BYTES] {
    let [a, b, c, d] = xid.to_le_bytes();
    [a, b, c, d, info, rmid, unnamed]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lsn, Page, Record, RedoError, redo, redo_kept, rmid};

    /// A Transaction record of transaction 32768, without pages, as its header and main data have it.
    fn transaction(info: u8, main: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_HEADER_BYTES];
        bytes.extend_from_slice(&[MAIN_DATA_SHORT, main.len() as u8]);
        bytes.extend_from_slice(main);
        let total = bytes.len() as u32;
        bytes[..4].copy_from_slice(&total.to_le_bytes());
        bytes[4..8].copy_from_slice(&32768_u32.to_le_bytes());
        (bytes[16], bytes[17]) = (info, rmid::TRANSACTION);
        bytes
    }

    #[test]
    fn a_commit_is_outlined_where_it_says_its_time_alone() {
        let (commit, abort, has_info) = (0x00, 0x20, 0x80);
        let time = 7_i64.to_le_bytes();
        let mut outline = Outline::default();
        assert!(outline.take(Version::V15, &transaction(commit, &time)));
        assert_eq!((outline.xid, outline.committed), (32768, Some(7)));
        assert_eq!(outline.status_page(), Target::Slru(Slru::Clog, 1));
        for (info, main) in [(commit | has_info, &time[..]), (abort, &time), (commit, &time[..7])] {
            assert!(!outline.take(Version::V15, &transaction(info, main)), "{info} {main:?}");
        }
    }

    #[test]
    fn a_commit_that_is_kept_as_its_transaction_sets_the_same_status() {
        let bytes = transaction(0x00, &7_i64.to_le_bytes());
        let record = Record::parse(Version::V15, &bytes).unwrap();
        let mut outline = Outline::default();
        assert!(outline.take(Version::V15, &bytes));
        let (target, kept) = (outline.status_page(), outline.kept_commit());
        let [mut whole, mut ours, mut others] = [(); 3].map(|()| Page::zeroed());
        redo(Version::V15, &record, Lsn(8), target, &mut whole).unwrap();
        redo_kept(Version::V15, &kept, Lsn(8), target, &mut ours).unwrap();
        assert!(ours == whole && !ours.is_zero());
        let other = Target::Slru(Slru::Clog, 2);
        let wrong = redo_kept(Version::V15, &kept, Lsn(8), other, &mut others);
        assert!(matches!(wrong, Err(RedoError::NotTouched { .. })), "{wrong:?}");
        assert!(others.is_zero());
    }
}
