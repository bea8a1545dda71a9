//! The page service's client: one connection, many requests in flight.
//!
//! Every request is a read and may be asked again, so a lost connection loses nothing: what was in
//! flight is sent again on the next one, until the time of whoever waits is over. Where the tenant
//! has gone to another pageserver, that one is asked. Only a fence ends the client.

mod connection;
mod route;
mod shown;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use access::Bearer;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{
    TenantTimeline, Term,
    page_service::{PageError, ReadAt, Request, Response, Welcome},
};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout_at},
};
use wal_format::{Lsn, PAGE_BYTES, PageKey, RelationFork};

pub use self::route::Route;
use self::shown::{Shown, TOKEN_TIME_MAX, says_nothing_is_there};
use crate::{ShimError, overlay::PageSource};

/// How long a page is waited for, the pageserver's absence included. A backend that waits cannot be
/// interrupted, so this is bounded.
pub const FETCH_TIME_MAX: Duration = Duration::from_secs(30);
/// The pause before a request that was refused for now is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Answers of one request that may wait to be taken: a base backup streams many.
const ANSWERS_WAITING_MAX: usize = 8;

/// An answer and its payload.
type Answer = (Response, Bytes);

/// A request that was not answered completely.
struct Pending {
    request: Request,
    answers: mpsc::Sender<Answer>,
    /// Sent on the connection that is open now.
    sent: bool,
    /// Parts of the answer arrived already: it cannot be asked again as if nothing had happened.
    begun: bool,
}

/// What the client and its connection share.
struct Shared {
    route: Mutex<Route>,
    timeline: TenantTimeline,
    term: Option<Term>,
    bearer: Bearer,
    shown: Shown,
    /// Why no connection could be made, the last time that none could.
    unreachable: Mutex<Option<String>>,
    pending: Mutex<HashMap<u64, Pending>>,
    welcome: watch::Sender<Option<Result<Welcome, PageError>>>,
    fenced: watch::Sender<Option<PageError>>,
    /// Numbers of requests that a connection must send.
    unsent: mpsc::UnboundedSender<u64>,
}

/// A client of one timeline's page service. Clones share the connection, which ends with the last.
#[derive(Clone)]
pub struct PageClient {
    shared: Arc<Shared>,
    next_id: Arc<AtomicU64>,
    _connection: Arc<AbortOnDrop>,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PageClient {
    /// Connects, and waits for a pageserver's word on the timeline for at most `wait`.
    pub async fn connect(
        route: impl Into<Route>,
        (timeline, term): (TenantTimeline, Option<Term>),
        bearer: &Bearer,
        wait: Duration,
    ) -> Result<(PageClient, Welcome), ShimError> {
        let (unsent, to_send) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            route: Mutex::new(route.into()),
            timeline,
            term,
            bearer: bearer.clone(),
            shown: Shown::default(),
            unreachable: Mutex::default(),
            pending: Mutex::default(),
            welcome: watch::Sender::new(None),
            fenced: watch::Sender::new(None),
            unsent,
        });
        let connection = tokio::spawn(connection::keep(shared.clone(), to_send));
        let client = PageClient {
            shared: shared.clone(),
            next_id: Arc::new(AtomicU64::new(1)),
            _connection: Arc::new(AbortOnDrop(connection.abort_handle())),
        };
        let mut welcome = shared.welcome.subscribe();
        let answer = tokio::time::timeout(wait, welcome.wait_for(Option::is_some)).await;
        match answer.ok().and_then(Result::ok).and_then(|answer| answer.clone()) {
            Some(Ok(welcome)) => Ok((client, welcome)),
            Some(Err(PageError::Fenced { .. })) => Err(client.fenced().await),
            Some(Err(refused)) => Err(ShimError::Page(refused)),
            None => Err(ShimError::Unavailable(format!(
                "the pageserver at {} did not answer for {wait:?}{}",
                shared.address(),
                shared.unreachable.lock().as_ref().map(|it| format!(": {it}")).unwrap_or_default()
            ))),
        }
    }

    /// A range of pages of one fork; zeros beyond its end.
    pub async fn pages(
        &self,
        at: ReadAt,
        fork: RelationFork,
        first: u32,
        count: u32,
    ) -> Result<Bytes, ShimError> {
        self.ask_for_pages(Request::Range { at, fork, first, count }, count as usize).await
    }

    /// Any pages, in this order: at most [`REQUEST_PAGES_MAX`](protocol::page_service::REQUEST_PAGES_MAX).
    pub async fn batch(&self, at: ReadAt, pages: Vec<PageKey>) -> Result<Bytes, ShimError> {
        let count = pages.len();
        self.ask_for_pages(Request::Batch { at, pages }, count).await
    }

    async fn ask_for_pages(&self, request: Request, count: usize) -> Result<Bytes, ShimError> {
        let (response, payload) = self.ask(request, FETCH_TIME_MAX).await?;
        match response {
            Response::Pages { .. } if payload.len() == count * PAGE_BYTES => Ok(payload),
            other => Err(ShimError::Corrupt(format!(
                "{count} pages were asked for, the answer has {} bytes: {other:?}",
                payload.len()
            ))),
        }
    }

    /// Starts a base backup; its parts are taken from the stream.
    pub fn base_backup(&self, lsn: Lsn) -> AnswerStream {
        self.send(Request::BaseBackup { lsn })
    }

    /// Resolves when the pageserver has seen a newer compute's term.
    pub async fn fenced(&self) -> ShimError {
        let mut fenced = self.shared.fenced.subscribe();
        match fenced.wait_for(Option::is_some).await {
            Ok(why) => {
                ShimError::Fenced(why.as_ref().map(PageError::to_string).unwrap_or_default())
            }
            Err(_) => ShimError::Stopped,
        }
    }

    /// One request, one answer; asked again while the pageserver is away or not ready, and while there
    /// is no token that it takes.
    async fn ask(&self, request: Request, wait: Duration) -> Result<Answer, ShimError> {
        let Shared { shown, timeline, bearer, .. } = &*self.shared;
        let began = Instant::now();
        let mut deadline = began + wait;
        let mut last_refusal = None;
        loop {
            // Before it is sent: a newer one may overtake the answer.
            let was_over = shown.is_over();
            let mut stream = self.send(request.clone());
            let answer = match timeout_at(deadline, stream.next()).await {
                Ok(answer) => answer,
                Err(_) => {
                    let why = last_refusal.map_or_else(
                        || "no answer".to_owned(),
                        |refusal: PageError| refusal.to_string(),
                    );
                    let address = self.shared.address();
                    return Err(ShimError::Unavailable(format!(
                        "the pageserver at {address} for {:?}: {why}",
                        began.elapsed()
                    )));
                }
            };
            match answer {
                Ok((Response::Failed(refusal), _)) if is_passing(&refusal) => {
                    last_refusal = Some(refusal);
                }
                Ok((Response::Failed(refusal), _))
                    if says_nothing_is_there(&refusal) && (was_over || shown.is_over()) =>
                {
                    last_refusal = Some(refusal);
                    deadline = deadline.max(began + TOKEN_TIME_MAX);
                    shown.newer(*timeline, bearer).await;
                }
                Ok((Response::Failed(refusal), _)) => return Err(self.refused(refusal)),
                Ok(answer) => {
                    shown.note_answer(*timeline);
                    return Ok(answer);
                }
                Err(ShimError::Unavailable(_)) => {}
                Err(error) => return Err(error),
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Hands a request to the connection.
    fn send(&self, request: Request) -> AnswerStream {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answers, receiver) = mpsc::channel(ANSWERS_WAITING_MAX);
        self.shared
            .pending
            .lock()
            .insert(id, Pending { request, answers, sent: false, begun: false });
        // The connection's task lives as long as this client does.
        let _ = self.shared.unsent.send(id);
        AnswerStream { id, shared: self.shared.clone(), answers: receiver }
    }

    fn refused(&self, refusal: PageError) -> ShimError {
        if let PageError::Fenced { .. } = &refusal {
            self.shared.fence(refusal.clone());
            return ShimError::Fenced(refusal.to_string());
        }
        ShimError::Page(refusal)
    }
}

/// The answers of one request, in order.
pub struct AnswerStream {
    id: u64,
    shared: Arc<Shared>,
    answers: mpsc::Receiver<Answer>,
}

impl AnswerStream {
    /// The next answer; [`ShimError::Unavailable`] where the connection was lost midway.
    pub async fn next(&mut self) -> Result<Answer, ShimError> {
        self.answers.recv().await.ok_or_else(|| {
            ShimError::Unavailable("the connection to the pageserver was lost".to_owned())
        })
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        self.shared.pending.lock().remove(&self.id);
    }
}

impl Shared {
    /// The pageserver that is asked now.
    fn address(&self) -> SocketAddr {
        self.route.lock().address()
    }

    fn fence(&self, why: PageError) {
        self.fenced.send_if_modified(|fenced| {
            let first = fenced.is_none();
            if first {
                tracing::warn!(timeline = %self.timeline, reason = %why, "fenced by the pageserver");
                *fenced = Some(why);
            }
            first
        });
    }
}

/// Whether asking again later may help.
fn is_passing(refusal: &PageError) -> bool {
    matches!(
        refusal,
        PageError::Unavailable(_)
            | PageError::NotYet { .. }
            | PageError::ShuttingDown
            | PageError::Moved { .. }
    )
}

/// The pages of a timeline as they were when its compute started, or later: a page that this
/// compute has not written has not changed since.
pub struct RemotePages {
    /// The connection.
    pub client: PageClient,
    /// Where the compute started: its base backup's LSN.
    pub base: Lsn,
    /// How far this compute's WAL is committed: nothing newer may be seen.
    pub commit: Box<dyn Fn() -> Lsn + Send + Sync>,
}

#[async_trait]
impl PageSource for RemotePages {
    async fn pages(&self, fork: RelationFork, first: u32, count: u32) -> Result<Bytes, ShimError> {
        let at =
            ReadAt { request_lsn: (self.commit)().max(self.base), not_modified_since: self.base };
        self.client.pages(at, fork, first, count).await
    }
}

#[cfg(test)]
mod tests;
