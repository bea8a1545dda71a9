//! Redo of the SLRUs (Postgres: clog.c, multixact.c, commit_ts.c): transactions' states, multixacts, commit times.

use std::ops::Range;

use super::{Fault, Outcome};
use crate::{
    PAGE_BYTES, Page, Record, SLRU_SEGMENT_PAGES, Slru,
    rmgr::{
        clog::Clog,
        commit_ts::CommitTs,
        multixact::{Create, MultiXact},
        transaction::{Finished, Transaction},
    },
    rmid,
};

/// `TRANSACTION_STATUS_COMMITTED`.
const COMMITTED: u8 = 1;
/// `TRANSACTION_STATUS_ABORTED`.
const ABORTED: u8 = 2;
/// Transactions in a byte of `pg_xact`.
const CLOG_PER_BYTE: u32 = 4;
/// `FirstMultiXactId`.
const FIRST_MULTIXACT: u32 = 1;
/// Bytes of a commit's time and origin (`SizeOfCommitTimestampEntry`).
const COMMIT_TS_BYTES: usize = 10;
/// Members in a group: four bytes of flags, then four transactions.
const MEMBERS_PER_GROUP: u32 = 4;
/// Bytes of a group.
const GROUP_BYTES: usize = 20;

/// How many entries an SLRU's page has, and which number `PagePrecedes` takes for a page.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    per_page: u32,
    /// Added to a page's first number before pages are compared.
    compared_at: u32,
}

/// `pg_xact`.
pub(crate) const CLOG: Area = Area { per_page: PAGE_BYTES as u32 * CLOG_PER_BYTE, compared_at: 4 };
/// `pg_commit_ts`.
pub(crate) const COMMIT_TS: Area =
    Area { per_page: (PAGE_BYTES / COMMIT_TS_BYTES) as u32, compared_at: 4 };
/// `pg_multixact/offsets`.
pub(crate) const MULTIXACT_OFFSETS: Area =
    Area { per_page: (PAGE_BYTES / 4) as u32, compared_at: 2 };
/// `pg_multixact/members`.
pub(crate) const MULTIXACT_MEMBERS: Area =
    Area { per_page: (PAGE_BYTES / GROUP_BYTES) as u32 * MEMBERS_PER_GROUP, compared_at: 0 };

impl Area {
    /// The page of this number.
    pub(crate) fn page(self, number: u32) -> u32 {
        number / self.per_page
    }

    /// Its place in the page.
    fn entry(self, number: u32) -> u32 {
        number % self.per_page
    }

    /// All pages that there can be.
    pub(crate) fn all(self) -> Range<u32> {
        0..self.pages()
    }

    fn pages(self) -> u32 {
        self.page(u32::MAX) + 1
    }

    /// The pages whose segments go when all before `cutoff` goes (slru.c, `SimpleLruTruncate`):
    /// whole segments that lie in the half circle before it.
    pub(crate) fn before(self, cutoff: u32) -> impl Iterator<Item = Range<u32>> {
        let compared = cutoff.wrapping_mul(self.per_page).wrapping_add(self.compared_at);
        // The farthest number that still precedes the last one of the cutoff's page.
        let farthest = compared.wrapping_add(self.per_page - 1).wrapping_sub(i32::MAX as u32);
        let page = farthest.wrapping_sub(self.compared_at).div_ceil(self.per_page);
        let start = page.div_ceil(SLRU_SEGMENT_PAGES) * SLRU_SEGMENT_PAGES;
        let end = cutoff - cutoff % SLRU_SEGMENT_PAGES;
        self.around(start, end, farthest > compared)
    }

    /// Pages `start` to before `end`; where they go round the end of the numbers, as two ranges.
    fn around(self, start: u32, end: u32, wraps: bool) -> impl Iterator<Item = Range<u32>> {
        let ranges = if wraps { [start..self.pages(), 0..end] } else { [start..end, 0..0] };
        ranges.into_iter().filter(|range| !range.is_empty())
    }
}

/// The segments of `pg_multixact/members` that go (multixact.c, `PerformMembersTruncation`).
pub(crate) fn members_between(start: u32, end: u32) -> impl Iterator<Item = Range<u32>> {
    let segment = |member| MULTIXACT_MEMBERS.page(member) / SLRU_SEGMENT_PAGES * SLRU_SEGMENT_PAGES;
    let (start, end) = (segment(start), segment(end));
    MULTIXACT_MEMBERS.around(start, end, end < start)
}

/// The multixact after this one.
pub(crate) fn next_multixact(id: u32) -> u32 {
    id.wrapping_add(1).max(FIRST_MULTIXACT)
}

/// The multixact before this one (`PreviousMultiXactId`).
pub(crate) fn previous_multixact(id: u32) -> u32 {
    if id == FIRST_MULTIXACT { u32::MAX } else { id.wrapping_sub(1) }
}

/// Applies a record to a page of an SLRU.
pub(super) fn redo(record: &Record, area: Slru, number: u32, page: &mut Page) -> Outcome {
    match (record.rmid, area) {
        (rmid::CLOG, Slru::Clog) => match Clog::parse(record.info, record.main) {
            Some(Clog::ZeroPage(zeroed)) => zero(zeroed, number, page),
            _ => Err(Fault::Malformed),
        },
        (rmid::COMMIT_TS, Slru::CommitTs) => match CommitTs::parse(record.info, record.main) {
            Some(CommitTs::ZeroPage(zeroed)) => zero(zeroed, number, page),
            _ => Err(Fault::Malformed),
        },
        (rmid::TRANSACTION, Slru::Clog | Slru::CommitTs) => {
            match Transaction::parse(record.info, record.main) {
                Some(Transaction::Finished(finished)) => {
                    finish(record, &finished, area, number, page);
                    Ok(())
                }
                _ => Err(Fault::Malformed),
            }
        }
        (rmid::MULTIXACT, Slru::MultiXactOffsets | Slru::MultiXactMembers) => {
            let parsed = MultiXact::parse(record.info, record.main).ok_or(Fault::Malformed)?;
            match (parsed, area) {
                (MultiXact::ZeroOffsetsPage(zeroed), Slru::MultiXactOffsets)
                | (MultiXact::ZeroMembersPage(zeroed), Slru::MultiXactMembers) => {
                    zero(zeroed, number, page)
                }
                (MultiXact::Create(create), Slru::MultiXactOffsets) => {
                    set_offsets(&create, number, page);
                    Ok(())
                }
                (MultiXact::Create(create), _) => {
                    set_members(&create, number, page);
                    Ok(())
                }
                _ => Err(Fault::NotTouched),
            }
        }
        _ => Err(Fault::NotTouched),
    }
}

fn zero(zeroed: u32, number: u32, page: &mut Page) -> Outcome {
    if zeroed != number {
        return Err(Fault::NotTouched);
    }
    page.zero();
    Ok(())
}

/// Applies the commit of a transaction without subtransactions to its page of `pg_xact`.
pub(super) fn redo_commit(xid: u32, number: u32, page: &mut Page) -> Outcome {
    if CLOG.page(xid) != number {
        return Err(Fault::NotTouched);
    }
    set_status(page.bytes_mut(), xid, COMMITTED);
    Ok(())
}

/// clog.c, `TransactionIdSetStatusBit`, on the transaction's page.
fn set_status(bytes: &mut [u8; PAGE_BYTES], xid: u32, status: u8) {
    let entry = CLOG.entry(xid);
    let shift = entry % CLOG_PER_BYTE * 2;
    let byte = &mut bytes[(entry / CLOG_PER_BYTE) as usize];
    *byte = *byte & !(3 << shift) | status << shift;
}

/// clog.c, `TransactionIdSetTreeStatus`; commit_ts.c, `TransactionTreeSetCommitTsData`.
fn finish(record: &Record, finished: &Finished<'_>, area: Slru, number: u32, page: &mut Page) {
    let xid = finished.prepared_xid.unwrap_or(record.xid);
    let xids = std::iter::once(xid).chain(finished.subtransactions.iter());
    let bytes = page.bytes_mut();
    if area == Slru::Clog {
        let status = if finished.committed { COMMITTED } else { ABORTED };
        xids.filter(|xid| CLOG.page(*xid) == number).for_each(|xid| set_status(bytes, xid, status));
        return;
    }
    let time = finished.origin.map_or(finished.time, |(_, time)| time);
    let origin = record.origin.unwrap_or(0);
    for xid in xids.filter(|xid| COMMIT_TS.page(*xid) == number) {
        let at = COMMIT_TS.entry(xid) as usize * COMMIT_TS_BYTES;
        bytes[at..at + 8].copy_from_slice(&time.to_le_bytes());
        bytes[at + 8..at + 10].copy_from_slice(&origin.to_le_bytes());
    }
}

/// multixact.c, `RecordNewMultiXact`: where this multixact's members begin, and where the next one's will.
fn set_offsets(create: &Create<'_>, number: u32, page: &mut Page) {
    // Member 0 means "not set yet", so that none ever begins there.
    let end = create.first_member.wrapping_add(create.len()).max(1);
    for (id, first) in [(create.id, create.first_member), (next_multixact(create.id), end)] {
        if MULTIXACT_OFFSETS.page(id) == number {
            let at = MULTIXACT_OFFSETS.entry(id) as usize * 4;
            page.bytes_mut()[at..at + 4].copy_from_slice(&first.to_le_bytes());
        }
    }
}

/// Likewise: the members, each with a byte of flags in its group's first word.
fn set_members(create: &Create<'_>, number: u32, page: &mut Page) {
    for (index, (xid, status)) in (0..).zip(create.members()) {
        let member = create.first_member.wrapping_add(index);
        if MULTIXACT_MEMBERS.page(member) != number {
            continue;
        }
        let entry = MULTIXACT_MEMBERS.entry(member);
        let group = (entry / MEMBERS_PER_GROUP) as usize * GROUP_BYTES;
        let in_group = (entry % MEMBERS_PER_GROUP) as usize;
        let at = group + 4 + in_group * 4;
        let bytes = page.bytes_mut();
        bytes[at..at + 4].copy_from_slice(&xid.to_le_bytes());
        bytes[group + in_group] = status as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(area: Area, cutoff: u32) -> Vec<Range<u32>> {
        area.before(cutoff).collect()
    }

    /// clog.c, `CLOGPagePrecedes`, and slru.c, `SlruMayDeleteSegment`, as they are stated there.
    fn goes(area: Area, page: u32, cutoff: u32) -> bool {
        let number = |page: u32| page.wrapping_mul(area.per_page).wrapping_add(area.compared_at);
        let precedes = |a: u32, b: u32| (a.wrapping_sub(b) as i32) < 0;
        let page_precedes = |a: u32, b: u32| {
            precedes(number(a), number(b))
                && precedes(number(a), number(b).wrapping_add(area.per_page - 1))
        };
        let first = page - page % SLRU_SEGMENT_PAGES;
        page_precedes(first, cutoff) && page_precedes(first + SLRU_SEGMENT_PAGES - 1, cutoff)
    }

    #[test]
    fn truncation_removes_the_segments_that_postgres_removes() {
        for area in [CLOG, MULTIXACT_OFFSETS] {
            let half = area.pages() / 2;
            for cutoff in [0, 1, 31, 32, 33, 1000, half - 1, half, half + 33, area.pages() - 1] {
                let ranges = ranges(area, cutoff);
                for page in (0..area.pages()).step_by(SLRU_SEGMENT_PAGES as usize) {
                    let removed = ranges.iter().any(|range| range.contains(&page));
                    assert_eq!(removed, goes(area, page, cutoff), "page {page}, cutoff {cutoff}");
                }
            }
        }
    }

    #[test]
    fn truncation_of_commit_times_goes_round_the_end_of_the_transactions() {
        assert_eq!(ranges(COMMIT_TS, 64).last(), Some(&(0..64)));
        let high = ranges(COMMIT_TS, COMMIT_TS.pages() - 1);
        assert_eq!(high.len(), 1);
        assert!(high[0].start > 2_000_000);
    }

    #[test]
    fn members_are_removed_by_segments_and_round_their_end() {
        let segment = MULTIXACT_MEMBERS.per_page * SLRU_SEGMENT_PAGES;
        let pair = |range: Range<u32>| (range.start, range.end);
        let removed = |start, end| members_between(start, end).map(pair).collect::<Vec<_>>();
        assert_eq!(removed(5, segment + 5), [(0, 32)]);
        assert!(removed(5, 6).is_empty());
        let last = MULTIXACT_MEMBERS.pages() - 1;
        let last_start = last - last % SLRU_SEGMENT_PAGES;
        assert_eq!(removed(u32::MAX, 5), [(last_start, last + 1)]);
        assert_eq!(removed(u32::MAX, segment), [(last_start, last + 1), (0, 32)]);
    }
}
