//! One timeline of this safekeeper: its acceptor, where its WAL is, and the order of effects.
//!
//! Invariants:
//! * An answer leaves only when every entry that was submitted before it is on disk.
//! * `extents` holds what is on disk, contiguous from `local_start` (or earlier) on.
//! * The order of submission to the journal is the order of decisions: both happen under one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use protocol::quorum::{AcceptorMessage, Configuration, Member, Refusal, TimelineStatus};
use protocol::{TenantTimeline, Term, TimelineOrigin};
use tokio::sync::{mpsc, watch};
use wal_format::{Lsn, Version};

use crate::Error;
use crate::acceptor::{Acceptor, AcceptorState, ConnectionId, Effect, Event, Standing};
use crate::journal::{
    Entry, Extent, Journal, Placed, RecoveredTimeline, TimelineState, WalEntry, cut_end, cut_start,
};

/// How far a timeline is; watched by readers and by those who wait for room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The highest term known.
    pub term: Term,
    /// WAL up to here is on disk and on a quorum: readers may have it.
    pub readable: Lsn,
    /// How far this log is known to be on a quorum.
    pub commit_lsn: Lsn,
    /// The last submission that is on disk.
    pub durable: u64,
    /// WAL on its way to the disk.
    pub in_flight_bytes: u64,
    /// WAL in the journal.
    pub local_bytes: u64,
}

/// What offload and trimming decide by.
#[derive(Clone, Copy, Debug)]
pub struct LogStatus {
    /// WAL before this is not in the journal any more.
    pub local_start: Lsn,
    /// WAL before this is in the object store.
    pub offloaded_lsn: Lsn,
    /// WAL before this is in layers.
    pub remote_consistent_lsn: Lsn,
    /// Up to here it may be offloaded.
    pub readable: Lsn,
    /// WAL in the journal.
    pub local_bytes: u64,
    /// When `readable` last rose.
    pub risen_at: Instant,
    /// The oldest segment with its WAL.
    pub wal_segment: Option<u64>,
    /// The segment with its newest state.
    pub state_segment: Option<u64>,
    /// About what its state takes in the journal.
    pub state_bytes: u64,
    /// Whether its commit LSN is newer than the journal knows.
    pub is_commit_unsaved: bool,
}

/// One timeline.
pub struct Timeline {
    /// Which.
    pub id: TenantTimeline,
    journal: Arc<Journal>,
    me: Member,
    inner: Mutex<Inner>,
    progress: watch::Sender<Progress>,
}

struct Inner {
    acceptor: Acceptor,
    extents: VecDeque<Extent>,
    local_start: Lsn,
    offloaded_lsn: Lsn,
    remote_consistent_lsn: Lsn,
    state_segment: Option<u64>,
    saved_commit_lsn: Lsn,
    /// When its configuration was last looked for in the object store.
    looked_for_at: Instant,
    is_deleted: bool,
    /// The end of the last complete record that is on disk.
    durable_flush_lsn: Lsn,
    risen_at: Instant,
    submitted: u64,
    durable: u64,
    in_flight_bytes: u64,
    connections: HashMap<ConnectionId, mpsc::UnboundedSender<AcceptorMessage>>,
    /// Answers, and the submission that each waits for.
    waiting: VecDeque<(u64, ConnectionId, AcceptorMessage)>,
}

/// What an entry changes here once it is on disk.
enum Persisted {
    State { start: Lsn, end: Lsn, flush_lsn: Lsn, commit_lsn: Lsn },
    Wal { begin: Lsn, bytes: usize, flush_lsn: Lsn, commit_lsn: Lsn },
    Forgotten,
}

impl Timeline {
    /// The timeline of this state, with the WAL that the journal has of it.
    pub fn new(
        id: TenantTimeline,
        journal: Arc<Journal>,
        me: Member,
        recovered: RecoveredTimeline,
        state_segment: Option<u64>,
    ) -> Result<Arc<Timeline>, Error> {
        let RecoveredTimeline { state, extents, .. } = recovered;
        let acceptor = new_acceptor(me, state.acceptor)?;
        let flush_lsn = acceptor.state().flush_lsn;
        let inner = Inner {
            saved_commit_lsn: acceptor.state().commit_lsn,
            acceptor,
            extents,
            local_start: state.local_start,
            offloaded_lsn: state.offloaded_lsn,
            remote_consistent_lsn: state.remote_consistent_lsn,
            state_segment,
            looked_for_at: Instant::now(),
            is_deleted: false,
            durable_flush_lsn: flush_lsn,
            risen_at: Instant::now(),
            submitted: 0,
            durable: 0,
            in_flight_bytes: 0,
            connections: HashMap::new(),
            waiting: VecDeque::new(),
        };
        let progress = watch::Sender::new(inner.progress());
        Ok(Arc::new(Timeline { id, journal, me, inner: Mutex::new(inner), progress }))
    }

    /// A timeline of which this disk never acknowledged anything.
    pub fn empty(
        id: TenantTimeline,
        journal: Arc<Journal>,
        me: Member,
        origin: TimelineOrigin,
        configuration: Configuration,
    ) -> Result<Arc<Timeline>, Error> {
        let begin = origin.point.lsn;
        let state = TimelineState {
            acceptor: AcceptorState::new(origin, configuration),
            local_start: begin,
            offloaded_lsn: begin,
            remote_consistent_lsn: begin,
        };
        let recovered = RecoveredTimeline { state, state_segment: 0, extents: VecDeque::new() };
        Timeline::new(id, journal, me, recovered, None)
    }

    /// Lets a connection of a proposer receive answers.
    pub fn connect(
        &self,
        connection: ConnectionId,
        answers: mpsc::UnboundedSender<AcceptorMessage>,
    ) {
        self.inner.lock().connections.insert(connection, answers);
    }

    /// Forgets a connection.
    pub fn disconnect(self: &Arc<Self>, connection: ConnectionId) {
        self.inner.lock().connections.remove(&connection);
        self.step(Event::Disconnected(connection));
    }

    /// Lets the acceptor decide, and carries out what it says in order.
    pub fn step(self: &Arc<Self>, event: Event) {
        let mut inner = self.inner.lock();
        if inner.is_deleted {
            // Its connections were dropped when it was; the proposer notices.
            return;
        }
        for effect in inner.acceptor.step(event) {
            match effect {
                Effect::PersistState(acceptor) => self.submit_state(&mut inner, *acceptor),
                Effect::PersistWal { begin, flush_lsn, commit_lsn, wal } => {
                    let entry = WalEntry { begin, flush_lsn, commit_lsn, wal };
                    self.submit_wal(&mut inner, entry);
                }
                Effect::Reply { to, message } => inner.reply(to, message),
            }
        }
        self.publish(&mut inner);
    }

    /// Follows the timeline's progress.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The configuration known, and whether this disk takes part in it.
    pub fn membership(&self) -> (Configuration, bool) {
        let inner = self.inner.lock();
        (inner.acceptor.state().configuration.clone(), inner.acceptor.is_member())
    }

    /// The generation of the configuration known.
    pub fn generation(&self) -> u32 {
        self.inner.lock().acceptor.state().configuration.generation
    }

    /// Where the timeline begins.
    pub fn origin(&self) -> TimelineOrigin {
        self.inner.lock().acceptor.state().origin
    }

    /// What a proposer is greeted with.
    pub fn greeting(&self) -> AcceptorMessage {
        let inner = self.inner.lock();
        let state = inner.acceptor.state();
        AcceptorMessage::Greeting {
            node: self.me.node,
            identity: self.me.identity,
            term: state.term,
            configuration: Some(state.configuration.clone()),
        }
    }

    /// What this safekeeper knows of the timeline; all of it is on disk when this returns.
    pub async fn status(&self) -> Result<TimelineStatus, Error> {
        let (status, submitted) = {
            let inner = self.inner.lock();
            (inner.status(self.me), inner.submitted)
        };
        self.durable(submitted).await?;
        Ok(status)
    }

    /// Takes over what the pageserver no longer needs.
    pub fn consumed(&self, remote_consistent_lsn: Lsn) {
        let mut inner = self.inner.lock();
        let known = remote_consistent_lsn.min(inner.durable_flush_lsn);
        inner.remote_consistent_lsn = inner.remote_consistent_lsn.max(known);
    }

    /// Notes that WAL before this is in the object store.
    pub fn offloaded(&self, offloaded_lsn: Lsn) {
        let mut inner = self.inner.lock();
        inner.offloaded_lsn = inner.offloaded_lsn.max(offloaded_lsn);
    }

    /// Drops WAL before `start` from the journal; it is in the object store.
    pub fn trim(self: &Arc<Self>, start: Lsn) {
        let mut inner = self.inner.lock();
        let start = start.min(inner.offloaded_lsn).min(inner.durable_flush_lsn);
        if start > inner.local_start && inner.is_settled_in() {
            inner.local_start = start;
            self.save(&mut inner);
        }
    }

    /// Writes the state again: to keep a newer commit LSN, or to free an old segment of the journal.
    pub fn save_state(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        if inner.is_settled_in() {
            self.save(&mut inner);
        }
    }

    /// Whether it is time to look whether the timeline was deleted: at most once in this time.
    pub fn is_look_due(&self, pause: Duration) -> bool {
        let mut inner = self.inner.lock();
        let is_due = inner.looked_for_at.elapsed() >= pause;
        if is_due {
            inner.looked_for_at = Instant::now();
        }
        is_due
    }

    /// Forgets the timeline for ever: it was deleted. Its connections end.
    pub fn forget(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        if !inner.is_deleted {
            self.submit(&mut inner, Entry::Forget(self.id), Persisted::Forgotten);
            inner.is_deleted = true;
            inner.connections.clear();
        }
    }

    /// Replaces the state; where WAL follows, it comes by [`Timeline::copy`].
    pub fn install(self: &Arc<Self>, state: TimelineState) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        inner.acceptor = new_acceptor(self.me, state.acceptor)?;
        inner.local_start = state.local_start;
        inner.offloaded_lsn = state.offloaded_lsn;
        inner.remote_consistent_lsn = state.remote_consistent_lsn;
        self.save(&mut inner);
        Ok(())
    }

    /// Takes WAL of another member's log, while this disk recovers.
    pub fn copy(self: &Arc<Self>, begin: Lsn, wal: Bytes) {
        let mut inner = self.inner.lock();
        let flush_lsn = begin + wal.len() as u64;
        let commit_lsn = inner.acceptor.state().commit_lsn;
        self.submit_wal(&mut inner, WalEntry { begin, flush_lsn, commit_lsn, wal });
    }

    /// Waits until all that was submitted so far is on disk.
    pub async fn settled(&self) -> Result<(), Error> {
        let submitted = self.inner.lock().submitted;
        self.durable(submitted).await
    }

    /// What offload and trimming decide by.
    pub fn log(&self) -> LogStatus {
        let inner = self.inner.lock();
        let state = inner.acceptor.state();
        LogStatus {
            local_start: inner.local_start,
            offloaded_lsn: inner.offloaded_lsn,
            remote_consistent_lsn: inner.remote_consistent_lsn,
            readable: inner.progress().readable,
            local_bytes: inner.progress().local_bytes,
            risen_at: inner.risen_at,
            wal_segment: inner.extents.front().map(Extent::segment),
            state_segment: inner.state_segment,
            state_bytes: 256 + 16 * state.history.entries().len() as u64,
            is_commit_unsaved: state.commit_lsn > inner.saved_commit_lsn,
        }
    }

    /// Whether the log up to `until` was written by this term, and is on disk.
    pub fn holds(&self, term: Term, until: Lsn) -> bool {
        let inner = self.inner.lock();
        let history = inner.acceptor.state().log_history();
        let entries = history.entries();
        let Some(index) = entries.iter().position(|entry| entry.term == term) else {
            // A log that no proposer ever wrote to is nobody's, and empty.
            return term == Term(0) && until == inner.acceptor.state().origin.point.lsn;
        };
        let flush_lsn = inner.acceptor.state().flush_lsn.min(inner.durable_flush_lsn);
        let end = entries.get(index + 1).map_or(flush_lsn, |next| next.start);
        entries[index].start <= until && until <= end.min(flush_lsn)
    }

    /// WAL from `from` on out of the journal, at most `bytes_max` and not beyond `until`; `None` where the journal
    /// does not have it any more.
    pub async fn read_local(
        &self,
        from: Lsn,
        until: Lsn,
        bytes_max: u64,
    ) -> Result<Option<Bytes>, Error> {
        let until = until.min(from + bytes_max);
        let extents = self.extents(from, until);
        if extents.is_empty() {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || read_extents(&extents, from, until));
        read.await.map_err(|_| Error::ShuttingDown)?.map(Some)
    }

    fn extents(&self, from: Lsn, until: Lsn) -> Vec<Extent> {
        let inner = self.inner.lock();
        if inner.extents.front().is_none_or(|first| first.begin > from) {
            return Vec::new();
        }
        let first = inner.extents.partition_point(|extent| extent.end <= from);
        let wanted = inner.extents.range(first..).take_while(|extent| extent.begin < until);
        wanted.cloned().collect()
    }

    async fn durable(&self, submission: u64) -> Result<(), Error> {
        let mut progress = self.progress.subscribe();
        let closed = progress.wait_for(|progress| progress.durable >= submission).await.is_err();
        if closed { Err(Error::ShuttingDown) } else { Ok(()) }
    }

    fn save(self: &Arc<Self>, inner: &mut Inner) {
        let acceptor = inner.acceptor.state().clone();
        self.submit_state(inner, acceptor);
    }

    fn submit_state(self: &Arc<Self>, inner: &mut Inner, acceptor: AcceptorState) {
        let persisted = Persisted::State {
            start: inner.local_start,
            end: acceptor.end_lsn,
            flush_lsn: acceptor.flush_lsn,
            commit_lsn: acceptor.commit_lsn,
        };
        let state = TimelineState {
            acceptor,
            local_start: inner.local_start,
            offloaded_lsn: inner.offloaded_lsn,
            remote_consistent_lsn: inner.remote_consistent_lsn,
        };
        self.submit(inner, Entry::State(self.id, Box::new(state)), persisted);
    }

    fn submit_wal(self: &Arc<Self>, inner: &mut Inner, entry: WalEntry) {
        let persisted = Persisted::Wal {
            begin: entry.begin,
            bytes: entry.wal.len(),
            flush_lsn: entry.flush_lsn,
            commit_lsn: entry.commit_lsn,
        };
        inner.in_flight_bytes += entry.wal.len() as u64;
        self.submit(inner, Entry::Wal(self.id, entry), persisted);
    }

    fn submit(self: &Arc<Self>, inner: &mut Inner, entry: Entry, persisted: Persisted) {
        inner.submitted += 1;
        let timeline = Arc::clone(self);
        let done = Box::new(move |placed| timeline.persisted(persisted, placed));
        self.journal.submit(entry, done);
    }

    /// Called by the journal's thread.
    fn persisted(&self, persisted: Persisted, placed: Placed) {
        let mut inner = self.inner.lock();
        inner.durable += 1;
        match persisted {
            Persisted::State { start, end, flush_lsn, commit_lsn } => {
                cut_start(&mut inner.extents, start);
                cut_end(&mut inner.extents, end);
                inner.state_segment = Some(placed.segment.number);
                inner.durable_flush_lsn = flush_lsn;
                inner.saved_commit_lsn = commit_lsn;
            }
            Persisted::Wal { begin, bytes, flush_lsn, commit_lsn } => {
                inner.extents.push_back(Extent::new(placed.segment, placed.offset, begin, bytes));
                inner.in_flight_bytes -= bytes as u64;
                inner.durable_flush_lsn = flush_lsn;
                inner.saved_commit_lsn = commit_lsn;
            }
            Persisted::Forgotten => inner.extents.clear(),
        }
        inner.release();
        self.publish(&mut inner);
    }

    fn publish(&self, inner: &mut Inner) {
        let progress = inner.progress();
        if progress.readable > self.progress.borrow().readable {
            inner.risen_at = Instant::now();
        }
        self.progress.send_if_modified(|known| {
            let is_new = *known != progress;
            *known = progress;
            is_new
        });
    }
}

impl Inner {
    /// Whether the acceptor's state says where the log ends. While WAL is copied from another member it does not,
    /// and writing it would cut off what was copied.
    fn is_settled_in(&self) -> bool {
        self.acceptor.state().standing == Standing::Member && !self.is_deleted
    }

    fn reply(&mut self, to: ConnectionId, message: AcceptorMessage) {
        self.waiting.push_back((self.submitted, to, message));
        self.release();
    }

    /// Lets those answers go whose entries are on disk.
    fn release(&mut self) {
        while let Some((_, to, message)) =
            self.waiting.pop_front_if(|(needed, ..)| *needed <= self.durable)
        {
            if let Some(answers) = self.connections.get(&to) {
                // A connection that is gone needs no answer.
                let _ = answers.send(message);
            }
        }
    }

    fn progress(&self) -> Progress {
        let state = self.acceptor.state();
        Progress {
            term: state.term,
            readable: state.commit_lsn.min(self.durable_flush_lsn),
            commit_lsn: state.commit_lsn,
            durable: self.durable,
            in_flight_bytes: self.in_flight_bytes,
            local_bytes: state.end_lsn.since(self.local_start),
        }
    }

    fn status(&self, me: Member) -> TimelineStatus {
        let state = self.acceptor.state();
        TimelineStatus {
            node: me.node,
            identity: me.identity,
            configuration: Some(state.configuration.clone()),
            origin: Some(state.origin),
            term: state.term,
            history: state.log_history(),
            flush_lsn: state.flush_lsn,
            commit_lsn: state.commit_lsn,
            offloaded_lsn: self.offloaded_lsn,
            remote_consistent_lsn: self.remote_consistent_lsn,
            local_start_lsn: self.local_start,
            proposer_connected: self.acceptor.has_proposer(),
        }
    }
}

fn new_acceptor(me: Member, state: AcceptorState) -> Result<Acceptor, Error> {
    let major = state.origin.major;
    let version = Version::from_major(major).ok_or_else(|| {
        Refusal::Invalid(format!("Postgres major {major} is not one that is supported"))
    })?;
    let segment_bytes = state.origin.segment_bytes;
    if !wal_format::is_segment_size(segment_bytes) {
        let reason = format!("a WAL segment cannot have {segment_bytes} bytes");
        return Err(Refusal::Invalid(reason).into());
    }
    Ok(Acceptor::new(me, version, state))
}

fn read_extents(extents: &[Extent], from: Lsn, until: Lsn) -> Result<Bytes, Error> {
    let part = |extent: &Extent| -> Result<Bytes, Error> {
        let bytes = extent.read()?;
        let end = bytes.len().min(until.since(extent.begin) as usize);
        Ok(bytes.slice(from.since(extent.begin) as usize..end))
    };
    if let [extent] = extents {
        return part(extent);
    }
    let mut wal = BytesMut::with_capacity(until.since(from) as usize);
    for extent in extents {
        wal.extend_from_slice(&part(extent)?);
    }
    Ok(wal.freeze())
}
