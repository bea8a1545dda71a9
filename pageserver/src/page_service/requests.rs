//! What a connection's requests read.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use futures::poll;
use prometheus::HistogramTimer;
use protocol::{
    Term,
    page_service::{
        BACKUP_CHUNK_BYTES_MAX, PageError, REQUEST_PAGES_MAX, ReadAt, Request, Response,
        ResponseFrame,
    },
    token::Token,
};
use tokio::{sync::mpsc, time::Instant};
use wal_format::{Lsn, PageKey, RelationFork, Target};

use super::{
    answers::Answer,
    connection::Answers,
    scans::{Scan, Scans},
    visitor::Visitor,
};
use crate::{
    base_backup::{self, BackupFile, BaseBackup},
    metering::Given,
    metrics::METRICS,
    tenants::Tenants,
    timeline::{Lease, Timeline},
    wal_receiver::Use,
};

/// How long a request waits for ingest.
const INGEST_WAIT: Duration = Duration::from_secs(10);
/// Files of a base backup that are read ahead of what was sent.
const BACKUP_FILES_AHEAD: usize = 4;

/// A connection's view of its timeline.
pub(super) struct Reader {
    tenants: Arc<Tenants>,
    receiving: Use,
    /// What is read is not given up meanwhile.
    lease: Lease,
    visitor: Visitor,
    term: Option<Term>,
    scans: Scans,
}

/// Begins to time a request.
fn timer(request: &Request) -> HistogramTimer {
    match request {
        Request::Range { .. } => METRICS.time_request("range"),
        Request::Batch { .. } => METRICS.time_request("batch"),
        Request::Relations { .. } => METRICS.time_request("relations"),
        Request::BaseBackup { .. } => METRICS.base_backup_seconds.start_timer(),
        Request::Renew { .. } => METRICS.time_request("renew"),
    }
}

/// An answer, and the pieces of its payload.
type Served = Result<(Response, Vec<Bytes>), PageError>;

impl Reader {
    pub fn new(
        tenants: Arc<Tenants>,
        receiving: Use,
        visitor: Visitor,
        term: Option<Term>,
    ) -> Reader {
        let lease = receiving.timeline().lease(term);
        Reader { tenants, receiving, lease, visitor, term, scans: Scans::default() }
    }

    /// Answers one request, which is not for a base backup.
    pub async fn answer(&self, id: u64, request: Request) -> Answer {
        let (timer, pages) = (timer(&request), request.pages().unwrap_or(0));
        let served = match (self.visitor.check(), request) {
            (Err(nothing), _) => Err(nothing),
            (Ok(()), Request::Range { at, fork, first, count }) => {
                self.range(at, fork, first, count).await
            }
            (Ok(()), Request::Batch { at, pages }) => self.batch(at, &pages).await,
            (Ok(()), Request::Relations { at }) => self.relations(at).await,
            (Ok(()), Request::BaseBackup { .. } | Request::Renew { .. }) => {
                Err(PageError::Invalid("this request is answered elsewhere".to_owned()))
            }
        };
        let answer = self.unless_fenced(id, self.unless_lost(served).await);
        timer.observe_duration();
        if matches!(answer.frame.response, Response::Pages { .. }) {
            METRICS.pages_read.inc_by(pages as u64);
            let bytes_sent = answer.payload.iter().map(Bytes::len).sum::<usize>() as u64;
            self.timeline().note_given(Given { pages_read: pages as u64, bytes_sent });
        }
        answer
    }

    /// Lets the compute go on that shows a newer token.
    pub fn renew(&self, id: u64, token: &Token) -> Answer {
        let response = match self.visitor.renew(token) {
            Ok(()) => Response::Renewed,
            Err(error) => Response::Failed(error),
        };
        Answer::head(id, response)
    }

    /// A compute that was fenced while its answer was made gets none.
    fn unless_fenced(&self, id: u64, served: Served) -> Answer {
        let served = served.and_then(|answer| self.check_term().map(|()| answer));
        let (response, payload) =
            served.unwrap_or_else(|error| (Response::Failed(error), Vec::new()));
        Answer { frame: ResponseFrame { id, response }, payload }
    }

    /// What is missing may have been removed by another pageserver that has taken the tenant: then
    /// it is not damage, and the compute finds the way there.
    async fn unless_lost(&self, served: Served) -> Served {
        let Err(PageError::Corrupt(_)) = &served else { return served };
        self.tenants.look(self.timeline().id().tenant).await?;
        match self.timeline().stopped().is_cancelled() {
            true => Err(PageError::ShuttingDown),
            false => served,
        }
    }

    /// The compute has ended the connection, and is owed nothing.
    pub fn note_goodbye(&self) {
        self.lease.say_goodbye();
    }

    /// Waits until the timeline is stopped.
    pub async fn stopped(&self) {
        self.timeline().stopped().cancelled().await;
    }

    fn timeline(&self) -> &Arc<Timeline> {
        self.receiving.timeline()
    }

    /// Takes note of the compute's term, which fences all older ones from now on, also after a
    /// restart.
    pub async fn keep_term(&self) -> Result<(), PageError> {
        self.check_term()?;
        if let Some(term) = self.term {
            self.timeline().keep_term(term).await?;
        }
        self.check_term()
    }

    fn check_term(&self) -> Result<(), PageError> {
        let known = self.timeline().term();
        match self.term {
            Some(asked) if asked < known => Err(PageError::Fenced { asked, known }),
            _ => Ok(()),
        }
    }

    /// The version that is served: any between the two LSNs is right, and the newest that ingest
    /// has is one of them.
    async fn version(&self, at: ReadAt) -> Result<Lsn, PageError> {
        self.check_term()?;
        if at.request_lsn < at.not_modified_since {
            return Err(PageError::Invalid(format!(
                "the request LSN {} is before {}, since when nothing was modified",
                at.request_lsn, at.not_modified_since
            )));
        }
        self.receiving.wait_for(at.not_modified_since, INGEST_WAIT).await?;
        let lsn = at.request_lsn.min(self.timeline().last_record_lsn());
        self.lease.renew(lsn, Instant::now());
        Ok(lsn)
    }

    async fn range(&self, at: ReadAt, fork: RelationFork, first: u32, count: u32) -> Served {
        check_count(count as usize)?;
        check_last(first.checked_add(count - 1))?;
        let lsn = self.version(at).await?;
        let targets: Vec<Target> =
            (first..first + count).map(|block| Target::Page(fork.block(block))).collect();
        let scan = self.scans.note(fork, first, count);
        let mut reading = pin!(self.timeline().pages_in_parts(&targets, lsn));
        let pages = match poll!(reading.as_mut()) {
            Poll::Ready(pages) => {
                if let Some(scan) = scan.filter(Scan::is_cold) {
                    self.read_ahead(fork, scan, lsn);
                }
                pages?
            }
            Poll::Pending => {
                if let Some(scan) = scan {
                    self.read_ahead(fork, scan, lsn);
                }
                reading.await?
            }
        };
        Ok((Response::Pages { lsn }, pages))
    }

    /// Begins to read what a scan will ask for next.
    fn read_ahead(&self, fork: RelationFork, scan: Scan, lsn: Lsn) {
        scan.set_cold(true);
        let blocks = scan.next.clone();
        let found = move |has_read| scan.set_cold(has_read);
        self.timeline().read_ahead(fork, blocks, lsn, found);
    }

    async fn batch(&self, at: ReadAt, pages: &[PageKey]) -> Served {
        check_count(pages.len())?;
        check_last(pages.iter().map(|page| page.block).max())?;
        let lsn = self.version(at).await?;
        let targets: Vec<Target> = pages.iter().map(|page| Target::Page(*page)).collect();
        let pages = self.timeline().pages_in_parts(&targets, lsn).await?;
        Ok((Response::Pages { lsn }, pages))
    }

    async fn relations(&self, at: ReadAt) -> Served {
        let lsn = self.version(at).await?;
        let forks = base_backup::forks(self.timeline(), lsn).await?;
        Ok((Response::Relations { lsn, forks }, Vec::new()))
    }

    /// Sends a base backup: its head, its files, its end.
    pub async fn base_backup(&self, id: u64, lsn: Lsn, answers: &Answers) {
        let timer = timer(&Request::BaseBackup { lsn });
        let served = self.send_backup(id, lsn, answers).await;
        let served = served.map(|()| (Response::BackupEnd, Vec::new()));
        timer.observe_duration();
        // Where no one takes the answer, the connection is gone.
        let served = self.unless_lost(served).await;
        let _ = answers.send((self.unless_fenced(id, served), true)).await;
    }

    async fn send_backup(&self, id: u64, lsn: Lsn, answers: &Answers) -> Result<(), PageError> {
        self.visitor.check()?;
        self.check_term()?;
        self.receiving.wait_for(lsn, INGEST_WAIT).await?;
        self.lease.renew(lsn, Instant::now());
        let backup = BaseBackup::at(self.timeline(), lsn).await?;
        let head = Answer::head(id, Response::BackupHead(backup.head.clone()));
        if answers.send((head, false)).await.is_err() {
            return Ok(());
        }
        let (files, received) = mpsc::channel(BACKUP_FILES_AHEAD);
        let read = async {
            let files = files;
            backup.send_files(self.timeline(), &files).await
        };
        let (read, ()) = tokio::join!(read, self.send_files(id, received, answers));
        Ok(read?)
    }

    async fn send_files(&self, id: u64, mut files: mpsc::Receiver<BackupFile>, answers: &Answers) {
        while let Some(BackupFile { path, mut contents }) = files.recv().await {
            loop {
                let chunk = contents.split_to(contents.len().min(BACKUP_CHUNK_BYTES_MAX));
                let given = Given { pages_read: 0, bytes_sent: chunk.len() as u64 };
                let response = Response::BackupFile { path: path.clone() };
                let frame = ResponseFrame { id, response };
                if answers.send((Answer { frame, payload: vec![chunk] }, false)).await.is_err() {
                    return;
                }
                self.timeline().note_given(given);
                if contents.is_empty() {
                    break;
                }
            }
        }
    }
}

fn check_count(pages: usize) -> Result<(), PageError> {
    if pages == 0 || pages > REQUEST_PAGES_MAX as usize {
        return Err(PageError::Invalid(format!(
            "{pages} pages were asked for; from 1 to {REQUEST_PAGES_MAX} can be"
        )));
    }
    Ok(())
}

/// The highest number is `InvalidBlockNumber`, which no page has.
fn check_last(block: Option<u32>) -> Result<(), PageError> {
    match block {
        Some(block) if block != u32::MAX => Ok(()),
        _ => Err(PageError::Invalid("a block beyond the last possible one was asked for".into())),
    }
}
