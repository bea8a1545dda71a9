//! Compares what a timeline serves at an LSN with what the stock standby has there.
//!
//! Nothing is taken for granted on either side: a fork, a block, a file or a folder that only one of them has is a difference. What may
//! differ is counted by its class; the classes and their reasons stand in docs/formats/redo.md.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use protocol::TenantTimeline;
use wal_format::{Fork, Lsn, PAGE_BYTES, Page, PageKey, Relation, RelationFork};

use crate::{
    counters,
    damage::Damage,
    files,
    kind::{HEAP, kind_of},
    page_client::{PageClient, at},
    report::{Report, Subject},
    served::{Served, connect},
    stock_state::{StockFork, StockState},
    wal::ClogTruncation,
};

/// Connections to the page service at once.
const READERS: usize = 3;
/// Pages of one request.
const RANGE_PAGES: u32 = 256;

/// The states that the standby stopped at, and where the timelines are served.
pub struct Oracle {
    pub page_service: SocketAddr,
    pub states: BTreeMap<Lsn, StockState>,
    /// The truncations of `pg_xact`, in their order.
    pub clog_truncations: Vec<ClogTruncation>,
}

/// A fork to be compared: what the standby has, and which served fork has to be the same.
struct Job {
    fork: RelationFork,
    stock: StockFork,
    served_as: RelationFork,
}

impl Oracle {
    /// Compares everything that the timeline serves at `lsn`, one of the states' LSNs. It may be asked again at any time: whatever
    /// happened to the timeline's layers since, the same bytes must be served.
    pub async fn compare(&self, lsn: Lsn, timeline: TenantTimeline) -> Result<Report> {
        self.compare_damaged(lsn, timeline, &Damage::default()).await
    }

    /// [`Oracle::compare`], but what is served is damaged before.
    pub async fn compare_damaged(
        &self,
        lsn: Lsn,
        timeline: TenantTimeline,
        damage: &Damage,
    ) -> Result<Report> {
        let state = self.states.get(&lsn).context("the standby did not stop there")?;
        let mut served = Served::ask(self.page_service, timeline, lsn).await?;
        damage.spoil(&mut served);
        let mut report = Report::default();
        let truncated = self.clog_truncations.iter().rev().find(|record| record.end <= lsn);
        let truncated = truncated.map(|record| record.oldest);
        counters::compare(lsn, &state.control, &served.control, truncated, &mut report);
        files::compare(lsn, state, &served, &mut report)?;
        let jobs = self.jobs(lsn, state, &served, &mut report)?;
        let checksums = served.control.has_page_checksums();
        let pages = Pages { lsn, checksums, damage: damage.clone() };
        let queue = Arc::new(Mutex::new(jobs));
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut client = connect(self.page_service, timeline).await?;
            let (queue, pages) = (Arc::clone(&queue), pages.clone());
            readers.push(tokio::spawn(async move {
                let mut report = Report::default();
                loop {
                    let Some(job) = queue.lock().pop() else { return Ok(report) };
                    pages.compare(&mut client, &job, &mut report).await?;
                }
            }));
        }
        for reader in readers {
            let found: Result<Report> = reader.await?;
            report.add(found?);
        }
        Ok(report)
    }

    /// The forks that both have; those that one lacks, or whose lengths differ, are differences.
    fn jobs(
        &self,
        lsn: Lsn,
        state: &StockState,
        served: &Served,
        report: &mut Report,
    ) -> Result<Vec<Job>> {
        let mut stock = state.forks()?;
        let sizes: BTreeMap<RelationFork, u32> =
            served.head.forks.iter().map(|size| (size.fork, size.blocks)).collect();
        let unlogged: HashSet<Relation> = sizes
            .keys()
            .chain(stock.keys())
            .filter(|fork| fork.fork == Fork::Init)
            .map(|fork| fork.relation)
            .collect();
        let all: BTreeSet<RelationFork> = sizes.keys().chain(stock.keys()).copied().collect();
        let mut jobs = Vec::new();
        for fork in all {
            let is_reset = unlogged.contains(&fork.relation) && fork.fork != Fork::Init;
            if fork.fork == Fork::FreeSpaceMap {
                report.count("free space map: not compared");
                continue;
            }
            // Both the end of recovery and the start of a compute make the main fork a copy of this one.
            let served_as = if is_reset { fork.relation.fork(Fork::Init) } else { fork };
            if is_reset {
                report.count("unlogged: compared with its init fork");
            }
            match (stock.remove(&fork), sizes.get(&served_as)) {
                (Some(files), Some(&blocks)) => {
                    if files.blocks != blocks {
                        let detail = format!("{blocks} blocks served, {} in stock", files.blocks);
                        report.differ(lsn, Subject::Length(fork), detail);
                    }
                    let stock = files;
                    jobs.push(Job { fork, stock, served_as });
                }
                (Some(files), None) => {
                    let detail = format!("not served; stock has {} blocks", files.blocks);
                    report.differ(lsn, Subject::Length(fork), detail);
                }
                (None, _) if is_reset => {}
                (None, size) => {
                    let detail = format!("{size:?} blocks served; stock has no such fork");
                    report.differ(lsn, Subject::Length(fork), detail);
                }
            }
        }
        Ok(jobs)
    }
}

/// How pages are compared.
#[derive(Clone)]
struct Pages {
    lsn: Lsn,
    checksums: bool,
    damage: Damage,
}

impl Pages {
    async fn compare(&self, client: &mut PageClient, job: &Job, report: &mut Report) -> Result<()> {
        let stock = job.stock.read()?;
        let mut first = 0;
        while first < job.stock.blocks {
            let count = RANGE_PAGES.min(job.stock.blocks - first);
            let served = client.range(at(self.lsn), job.served_as, first, count).await??;
            for index in 0..count {
                let block = first + index;
                let page = |bytes: &[u8], block: u32| {
                    let from = block as usize * PAGE_BYTES;
                    bytes.get(from..from + PAGE_BYTES).and_then(Page::from_slice)
                };
                let stock = page(&stock, block).context("a whole page of stock's file")?;
                let mut served = page(&served, index).context("a whole page served")?;
                let key = job.fork.block(block);
                self.damage.spoil_page(key, &mut served);
                self.compare_page(key, stock, served, report);
            }
            first += count;
        }
        Ok(())
    }

    fn compare_page(&self, key: PageKey, stock: Box<Page>, served: Box<Page>, report: &mut Report) {
        report.blocks += 1;
        let kind = kind_of(key.fork.fork, &stock);
        let has_items = stock.bounds().is_ok_and(|bounds| bounds.upper < bounds.special);
        if has_items && key.fork.fork == Fork::Main {
            report.examples.entry(kind).or_insert(key);
        }
        if self.checksums && !served.is_new() && !served.verify_checksum(key.block) {
            return report.differ(self.lsn, Subject::Page(key), "the checksum is wrong");
        }
        match difference(kind, &stock, &served) {
            Difference::None => report.count(format!("identical: {kind}")),
            Difference::Lsn => report.count(format!("only pd_lsn is later: {kind}")),
            Difference::Content(detail) => {
                report.differ(self.lsn, Subject::Page(key), format!("{kind} page: {detail}"));
            }
        }
    }
}

/// How two pages differ.
enum Difference {
    None,
    /// It is later here.
    Lsn,
    Content(String),
}

/// Both sides are redo: they need none of the masks that hide what a primary does without WAL.
fn difference(kind: &str, stock: &Page, served: &Page) -> Difference {
    let without = |page: &Page, bytes: std::ops::Range<usize>| {
        let mut page = page.clone();
        page.bytes_mut()[bytes].fill(0);
        page
    };
    // The checksum was verified, and covers the LSN.
    let (stock, served) = (without(stock, 8..10), without(served, 8..10));
    if stock == served {
        return Difference::None;
    }
    // Heap2/VISIBLE moves it here always, and in Postgres not without checksums: never back.
    let is_later = kind == HEAP && served.lsn() > stock.lsn();
    if is_later && without(&stock, 0..8) == without(&served, 0..8) {
        return Difference::Lsn;
    }
    let differ: Vec<usize> =
        (0..PAGE_BYTES).filter(|at| stock.bytes()[*at] != served.bytes()[*at]).collect();
    let (first, last) = (differ[0], differ[differ.len() - 1]);
    let window =
        |page: &Page| format!("{:02x?}", &page.bytes()[first..(first + 16).min(PAGE_BYTES)]);
    Difference::Content(format!(
        "{} bytes in {first}..={last}: stock {} served {}; pd_lsn {} in stock, {} served",
        differ.len(),
        window(&stock),
        window(&served),
        stock.lsn(),
        served.lsn(),
    ))
}
