//! The pages that a start reads, asked for all at once with the base backup.
//!
//! A start reads some hundred times, one read after the other, and nearly the same pages each time. So
//! a compute takes note of what its start reads, and the next one asks for that before anybody wants it.
//!
//! Invariants:
//! - A page that came early is given once: the kernel keeps it, and what Postgres writes is the
//!   overlay's, which does not ask for it again.
//! - It is as of the LSN that the compute starts from, as every page that the compute has not written.
//! - What does not come, or comes too late, is asked for as if nobody had asked for it early.

mod list;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use protocol::page_service::{ForkSize, ReadAt};
use tokio::{sync::watch, time::timeout};
use wal_format::{Lsn, PAGE_BYTES, PageKey, RelationFork};

pub use self::list::StartList;
use crate::{
    ShimError,
    overlay::PageSource,
    page_client::{PageClient, RemotePages},
};

/// Pages of one request: the first are there while the last are still read.
const BATCH_PAGES: usize = 64;
/// How long an early page is waited for before it is asked for once more.
const EARLY_TIME_MAX: Duration = Duration::from_secs(2);
/// A start is over so long after Postgres accepts connections: the first of them have read what
/// they need of the catalog.
const START_TIME: Duration = Duration::from_secs(2);
/// The list's name, in a kept folder and beside it.
const LIST: &str = "start-pages";

/// Where lists are kept: a timeline's own, and one for those that have none yet, which begin much
/// alike.
pub struct ListFiles {
    own: PathBuf,
    beside: Option<PathBuf>,
}

impl ListFiles {
    /// Those of a kept folder.
    pub fn of(keep: &Path) -> ListFiles {
        ListFiles { own: keep.join(LIST), beside: keep.parent().map(|folder| folder.join(LIST)) }
    }

    /// The best list that there is; an empty one where there is none.
    pub fn read(&self) -> StartList {
        let beside = || StartList::read(self.beside.as_deref()?);
        StartList::read(&self.own).or_else(beside).unwrap_or_default()
    }

    fn write(&self, list: &StartList) -> std::io::Result<()> {
        let first = !self.own.exists();
        list.write(&self.own)?;
        match &self.beside {
            Some(beside) if first => list.write(beside),
            _ => Ok(()),
        }
    }
}

/// The pageserver's pages, some of them asked for early.
pub struct EarlyPages {
    remote: RemotePages,
    /// The start is over: nothing is looked for here any more. Set by who has the state.
    is_over: AtomicBool,
    state: Mutex<State>,
    /// Changes when pages have come, or will not come any more.
    arrivals: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// The pages that nobody has wanted yet; nothing where a page is on its way.
    early: HashMap<PageKey, Option<Bytes>>,
    /// What was read so far.
    read: StartList,
}

/// What of a range came early.
enum Found {
    All(Bytes),
    /// Some of it is on its way.
    Coming,
    /// Not all of it.
    Nothing,
}

impl EarlyPages {
    /// Nothing is asked for yet.
    pub fn new(remote: RemotePages) -> EarlyPages {
        EarlyPages {
            remote,
            is_over: AtomicBool::new(false),
            state: Mutex::default(),
            arrivals: watch::Sender::new(()),
        }
    }

    /// Asks for a list's pages, those that are still there.
    pub fn ask(self: &Arc<EarlyPages>, list: &StartList, forks: &[ForkSize]) {
        let listed: HashSet<RelationFork> = list.pages().iter().map(|page| page.fork).collect();
        let sizes: HashMap<RelationFork, u32> = forks
            .iter()
            .filter(|size| listed.contains(&size.fork))
            .map(|size| (size.fork, size.blocks))
            .collect();
        let is_there =
            |page: &&PageKey| sizes.get(&page.fork).is_some_and(|blocks| page.block < *blocks);
        let pages: Vec<PageKey> = list.pages().iter().filter(is_there).copied().collect();
        self.state.lock().early.extend(pages.iter().map(|page| (*page, None)));
        for batch in pages.chunks(BATCH_PAGES) {
            let (early, batch) = (self.clone(), batch.to_vec());
            tokio::spawn(async move {
                let RemotePages { client, base, .. } = &early.remote;
                let answer = timeout(EARLY_TIME_MAX, fetch(client, *base, &batch)).await;
                match answer {
                    Ok(Ok(bytes)) => early.take(&batch, Some(&bytes)),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "pages of the start did not come early");
                        early.take(&batch, None);
                    }
                    Err(_) => early.take(&batch, None),
                }
            });
        }
    }

    /// Takes the start for over: what came early and nobody wanted is thrown away. What was read.
    pub fn end(&self) -> StartList {
        let mut state = self.state.lock();
        self.is_over.store(true, Ordering::Relaxed);
        state.early = HashMap::new();
        std::mem::take(&mut state.read)
    }

    /// Ends the start when it is over, and keeps its list for the next one.
    pub async fn keep(self: Arc<EarlyPages>, files: ListFiles) {
        tokio::time::sleep(START_TIME).await;
        if let Err(error) = files.write(&self.end()) {
            tracing::warn!(%error, "the list of the start's pages is not kept");
        }
    }

    /// Takes what came of a batch; nothing where it will not come.
    fn take(&self, batch: &[PageKey], came: Option<&Bytes>) {
        let mut state = self.state.lock();
        if !self.is_over.load(Ordering::Relaxed) {
            for (index, page) in batch.iter().enumerate() {
                match came {
                    Some(bytes) => {
                        let at = index * PAGE_BYTES;
                        state.early.insert(*page, Some(bytes.slice(at..at + PAGE_BYTES)));
                    }
                    None => drop(state.early.remove(page)),
                }
            }
        }
        drop(state);
        self.arrivals.send_replace(());
    }

    /// A range that came early, waited for where it is on its way.
    async fn early(&self, fork: RelationFork, first: u32, count: u32) -> Option<Bytes> {
        if self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let pages: Vec<PageKey> = (first..first + count).map(|block| fork.block(block)).collect();
        let mut arrivals = self.arrivals.subscribe();
        loop {
            match self.state.lock().find(&pages) {
                Found::All(bytes) => return Some(bytes),
                Found::Nothing => return None,
                Found::Coming => {}
            }
            arrivals.changed().await.ok()?;
        }
    }
}

impl State {
    fn find(&mut self, pages: &[PageKey]) -> Found {
        pages.iter().for_each(|page| self.read.add(*page));
        if !pages.iter().all(|page| self.early.contains_key(page)) {
            return Found::Nothing;
        }
        if pages.iter().any(|page| self.early[page].is_none()) {
            return Found::Coming;
        }
        let mut came = pages.iter().filter_map(|page| self.early.remove(page).flatten());
        Found::All(match pages.len() {
            1 => came.next().unwrap_or_default(),
            count => {
                let mut all = BytesMut::with_capacity(count * PAGE_BYTES);
                came.for_each(|page| all.extend_from_slice(&page));
                all.freeze()
            }
        })
    }
}

async fn fetch(client: &PageClient, base: Lsn, batch: &[PageKey]) -> Result<Bytes, ShimError> {
    let at = ReadAt { request_lsn: base, not_modified_since: base };
    client.batch(at, batch.to_vec()).await
}

#[async_trait]
impl PageSource for EarlyPages {
    async fn pages(&self, fork: RelationFork, first: u32, count: u32) -> Result<Bytes, ShimError> {
        match self.early(fork, first, count).await {
            Some(pages) => Ok(pages),
            None => self.remote.pages(fork, first, count).await,
        }
    }
}

#[cfg(test)]
mod tests;
