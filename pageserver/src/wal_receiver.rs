//! Receives committed WAL from a safekeeper and ingests it: one task for each timeline in use.
//!
//! A receiver goes from safekeeper to safekeeper until one serves it, and on to the next when that
//! one falls silent, breaks off, sends what does not follow, or does not know of WAL that somebody
//! waits for: where no compute lives, nobody tells it any more what was committed. It asks from where ingest is, so
//! nothing is lost or applied twice. A record that cannot be replayed stops it for good, with its
//! name and position. Damaged WAL stops it until a safekeeper is found that has it whole.

mod consumed;
mod session;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use access::Bearer;
use futures::FutureExt;
use parking_lot::Mutex;
use protocol::TenantTimeline;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, info, info_span};
use wal_format::Lsn;

use self::session::{Needs, Session, SessionEnd};
use crate::{error::Error, ingest::IngestError, timeline::Timeline};

/// The first pause after no safekeeper could serve; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two rounds of asking all safekeepers.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause after damaged WAL, before all safekeepers are asked for it once more.
const DAMAGED_PAUSE: Duration = Duration::from_secs(10);
/// What a receiver is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceiverStatus {
    /// It looks for a safekeeper that has the timeline.
    Waiting {
        /// Why the last one did not serve it.
        reason: String,
    },
    /// WAL arrives.
    Streaming {
        /// From there.
        safekeeper: SocketAddr,
        /// How far a quorum has flushed, by its last word.
        commit_lsn: Lsn,
    },
    /// Ingest cannot go on by itself; an operator must act.
    Stopped(IngestError),
    /// It has ended: the timeline was deleted, is idle, or the pageserver stops.
    Ended,
}

/// Where WAL comes from.
#[derive(Clone)]
pub(crate) struct Safekeepers {
    /// All of them.
    pub addresses: Vec<SocketAddr>,
    /// What they are shown.
    pub bearer: Bearer,
}

/// The receivers of all timelines in use.
#[derive(Clone)]
pub(crate) struct Receivers {
    shared: Arc<Shared>,
}

struct Shared {
    safekeepers: Safekeepers,
    idle_after: Duration,
    running: Mutex<HashMap<TenantTimeline, Arc<Receiver>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Receivers {
    /// None yet. One that nobody uses ends when there has been nothing to receive for so long.
    pub fn new(safekeepers: Safekeepers, idle_after: Duration) -> Receivers {
        let shared = Shared {
            safekeepers,
            idle_after,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Receivers { shared: Arc::new(shared) }
    }

    /// The timeline's receiver, started where none runs. It stays at least while the use does.
    pub fn receive(&self, timeline: &Arc<Timeline>) -> Use {
        if timeline.is_read_only() {
            // Nothing is ever received, and nothing is listed that would keep the template loaded.
            let status = ReceiverStatus::Ended;
            return Use { receiver: Arc::new(Receiver::new(timeline, status)) };
        }
        let mut running = self.shared.running.lock();
        let receiver = running.entry(timeline.id()).or_insert_with(|| self.start(timeline));
        // Another load of the same timeline is another history in memory.
        if !Arc::ptr_eq(&receiver.timeline, timeline) {
            *receiver = self.start(timeline);
        }
        receiver.retry.notify_one();
        receiver.uses.fetch_add(1, Ordering::Relaxed);
        Use { receiver: Arc::clone(receiver) }
    }

    /// What the timeline's receiver does, where one runs.
    pub fn status(&self, timeline: TenantTimeline) -> Option<ReceiverStatus> {
        let running = self.shared.running.lock();
        running.get(&timeline).map(|receiver| receiver.status.borrow().clone())
    }

    /// Ends all receivers, each between two records.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn start(&self, timeline: &Arc<Timeline>) -> Arc<Receiver> {
        let status = ReceiverStatus::Waiting { reason: "starting".to_owned() };
        let receiver = Arc::new(Receiver::new(timeline, status));
        let id = timeline.id();
        let span = info_span!("wal_receiver", tenant = %id.tenant, timeline = %id.timeline);
        let task = run(Arc::clone(&receiver), Arc::downgrade(&self.shared), self.shared.terms());
        self.shared.tasks.spawn(task.instrument(span));
        receiver
    }
}

/// What a receiver's task takes from its surroundings.
struct Terms {
    safekeepers: Safekeepers,
    idle_after: Duration,
    stop: CancellationToken,
}

impl Shared {
    fn terms(&self) -> Terms {
        Terms {
            safekeepers: self.safekeepers.clone(),
            idle_after: self.idle_after,
            stop: self.stop.clone(),
        }
    }

    /// Takes the receiver out of the list, unless someone has begun to use it.
    fn retire(&self, receiver: &Arc<Receiver>) -> bool {
        let mut running = self.running.lock();
        if receiver.is_used() {
            return false;
        }
        self.remove(&mut running, receiver);
        true
    }

    fn remove(
        &self,
        running: &mut HashMap<TenantTimeline, Arc<Receiver>>,
        receiver: &Arc<Receiver>,
    ) {
        let id = receiver.timeline.id();
        if running.get(&id).is_some_and(|current| Arc::ptr_eq(current, receiver)) {
            running.remove(&id);
        }
    }
}

/// One timeline's receiver.
pub(crate) struct Receiver {
    timeline: Arc<Timeline>,
    status: watch::Sender<ReceiverStatus>,
    retry: Notify,
    uses: AtomicUsize,
    /// The LSNs that are waited for now.
    waits: Mutex<Vec<Lsn>>,
    last_use: Mutex<Instant>,
}

impl Receiver {
    fn new(timeline: &Arc<Timeline>, status: ReceiverStatus) -> Receiver {
        Receiver {
            timeline: Arc::clone(timeline),
            status: watch::Sender::new(status),
            retry: Notify::new(),
            uses: AtomicUsize::new(0),
            waits: Mutex::default(),
            last_use: Mutex::new(Instant::now()),
        }
    }

    fn is_idle(&self, idle_after: Duration) -> bool {
        !self.is_used() && self.last_use.lock().elapsed() >= idle_after
    }

    fn is_used(&self) -> bool {
        self.uses.load(Ordering::Relaxed) > 0
    }

    /// The highest LSN that somebody waits for.
    fn wanted(&self) -> Option<Lsn> {
        self.waits.lock().iter().max().copied()
    }
}

/// Somebody waits for this LSN, until it is dropped.
struct Wait<'a> {
    receiver: &'a Receiver,
    lsn: Lsn,
}

impl<'a> Wait<'a> {
    fn new(receiver: &'a Receiver, lsn: Lsn) -> Wait<'a> {
        receiver.waits.lock().push(lsn);
        Wait { receiver, lsn }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waits = self.receiver.waits.lock();
        if let Some(place) = waits.iter().position(|lsn| *lsn == self.lsn) {
            waits.swap_remove(place);
        }
    }
}

/// Keeps a timeline's receiver running.
pub(crate) struct Use {
    receiver: Arc<Receiver>,
}

impl Use {
    /// The timeline.
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.receiver.timeline
    }

    /// Waits until ingest has reached `lsn`. Where ingest has stopped before it, the error says so
    /// at once.
    pub async fn wait_for(&self, lsn: Lsn, timeout: Duration) -> Result<(), Error> {
        let timeline = &self.receiver.timeline;
        let _wait = Wait::new(&self.receiver, lsn);
        let mut status = self.receiver.status.subscribe();
        let stopped = async {
            loop {
                if let ReceiverStatus::Stopped(reason) = &*status.borrow_and_update() {
                    return reason.to_string();
                }
                if status.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            biased;
            reached = timeline.wait_for(lsn, timeout) => reached,
            reason = stopped => match timeline.wait_for(lsn, Duration::ZERO).await {
                Err(Error::NotYet { .. }) => Err(Error::IngestStopped(reason)),
                reached => reached,
            },
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        *self.receiver.last_use.lock() = Instant::now();
        self.receiver.uses.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A receiver's task.
async fn run(receiver: Arc<Receiver>, shared: Weak<Shared>, terms: Terms) {
    let timeline = Arc::clone(&receiver.timeline);
    tokio::select! {
        () = terms.stop.cancelled() => {}
        () = timeline.stopped().cancelled() => {}
        () = or_stop(&receiver, receive_and_tell(&receiver, &shared, &terms)) => {}
    }
    // A stopped one stays in the list: its status says why, and it is not started again.
    receiver.status.send_if_modified(|status| {
        let ended = !matches!(status, ReceiverStatus::Stopped(_));
        if ended {
            *status = ReceiverStatus::Ended;
        }
        ended
    });
    if *receiver.status.borrow() == ReceiverStatus::Ended
        && let Some(shared) = shared.upgrade()
    {
        shared.remove(&mut shared.running.lock(), &receiver);
    }
}

/// Does a receiver's work. Where that panics, ingest has stopped, and what is in memory stays there: it may
/// have a part of a record.
async fn or_stop(receiver: &Receiver, work: impl Future<Output = ()>) {
    let Err(panic) = AssertUnwindSafe(work).catch_unwind().await else { return };
    let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
    let reason = said.or_else(|| panic.downcast_ref::<String>().cloned());
    let (timeline, reason) = (&receiver.timeline, reason.unwrap_or_else(|| "no reason".to_owned()));
    let reason = IngestError::Panicked { at: timeline.last_record_lsn(), reason };
    timeline.give_up(Error::IngestStopped(reason.to_string()));
    stop(receiver, reason);
}

async fn receive_and_tell(receiver: &Arc<Receiver>, shared: &Weak<Shared>, terms: &Terms) {
    tokio::select! {
        () = receive(receiver, shared, terms) => {}
        () = consumed::tell(&receiver.timeline, &terms.safekeepers) => {}
    }
}

async fn receive(receiver: &Arc<Receiver>, shared: &Weak<Shared>, terms: &Terms) {
    let mut session =
        Session::new(Arc::clone(&receiver.timeline), terms.safekeepers.bearer.clone());
    let mut pause = PAUSE_MIN;
    loop {
        let mut damaged = None;
        let mut unknown = 0;
        for &safekeeper in &terms.safekeepers.addresses {
            let before = receiver.timeline.last_record_lsn();
            let needs = Needs {
                is_idle: || receiver.is_idle(terms.idle_after),
                wanted: || receiver.wanted(),
            };
            let end = session.stream(safekeeper, &receiver.status, needs).await;
            if receiver.timeline.last_record_lsn() > before {
                (pause, damaged) = (PAUSE_MIN, None);
            }
            match end {
                SessionEnd::Lost(reason) => {
                    receiver.status.send_replace(ReceiverStatus::Waiting { reason });
                }
                SessionEnd::Damaged(reason) => {
                    error!(%safekeeper, %reason, "a safekeeper's WAL is damaged");
                    damaged = Some(reason);
                }
                SessionEnd::Stopped(reason) => return stop(receiver, reason),
                SessionEnd::Idle => break,
                SessionEnd::Unknown => {
                    unknown += 1;
                    let reason = format!("{safekeeper} knows nothing of the timeline yet");
                    receiver.status.send_replace(ReceiverStatus::Waiting { reason });
                }
            }
        }
        // No compute has ever written: who begins to uses the timeline, and is waited for then.
        let is_new = unknown == terms.safekeepers.addresses.len() && !receiver.is_used();
        if let Some(reason) = damaged {
            // No other safekeeper had it whole. One that was away may have.
            receiver.status.send_replace(ReceiverStatus::Stopped(reason));
            pause = DAMAGED_PAUSE;
        } else if (is_new || receiver.is_idle(terms.idle_after))
            && leave(receiver, shared, terms).await
        {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            () = receiver.retry.notified() => pause = PAUSE_MIN,
        }
    }
}

/// Where an idle receiver ends, all that it ingested is in the object store first, and the
/// safekeepers have been told so.
async fn leave(receiver: &Arc<Receiver>, shared: &Weak<Shared>, terms: &Terms) -> bool {
    if receiver.timeline.flush().await.is_err() {
        return false;
    }
    consumed::tell_once(&receiver.timeline, &terms.safekeepers).await;
    let retired = shared.upgrade().is_none_or(|shared| shared.retire(receiver));
    if retired {
        info!("no one uses the timeline: its receiver ends");
    }
    retired
}

fn stop(receiver: &Receiver, reason: IngestError) {
    error!(%reason, "ingest of the timeline has stopped");
    receiver.status.send_replace(ReceiverStatus::Stopped(reason));
}
