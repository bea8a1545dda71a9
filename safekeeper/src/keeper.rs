//! The timelines of this safekeeper, and how one comes to be known here.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use access::Guard;
use object_store::ObjectStore;
use parking_lot::{Mutex, RwLock};
use protocol::quorum::{Configuration, Member, Refusal};
use protocol::{Identity, TenantTimeline, TimelineOrigin};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acceptor::{ConnectionId, Event};
use crate::journal::Journal;
use crate::peer::Peer;
use crate::timeline::{Progress, Timeline};
use crate::{Bounds, Error, membership, recovery};

/// First contacts with as many timelines go on side by side.
const FIRST_CONTACTS: usize = 64;

/// What all of a safekeeper's tasks share.
pub struct Keeper {
    /// This node and its disk.
    pub me: Member,
    /// The journal.
    pub journal: Arc<Journal>,
    /// The object store.
    pub store: Arc<dyn ObjectStore>,
    /// The other safekeepers.
    pub peers: Vec<Peer>,
    /// Whom it lets in.
    pub guard: Guard,
    /// Bounds and pauses.
    pub bounds: Bounds,
    /// Ends all tasks.
    pub shutdown: CancellationToken,
    /// All tasks.
    pub tasks: TaskTracker,
    /// Whether the register says that this disk was replaced by another of the same node.
    pub is_replaced: AtomicBool,
    timelines: RwLock<HashMap<TenantTimeline, Arc<Timeline>>>,
    /// One task at a time makes a timeline known.
    first_contacts: Vec<tokio::sync::Mutex<()>>,
    recovering: Mutex<HashSet<TenantTimeline>>,
    connections: AtomicU64,
}

impl Keeper {
    /// What all tasks share, with the timelines that the journal has.
    pub fn new(
        me: Member,
        journal: Arc<Journal>,
        store: Arc<dyn ObjectStore>,
        peers: Vec<Peer>,
        (guard, bounds): (Guard, Bounds),
        timelines: HashMap<TenantTimeline, Arc<Timeline>>,
    ) -> Arc<Keeper> {
        Arc::new(Keeper {
            me,
            journal,
            store,
            peers,
            guard,
            bounds,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            is_replaced: AtomicBool::new(false),
            timelines: RwLock::new(timelines),
            first_contacts: (0..FIRST_CONTACTS).map(|_| tokio::sync::Mutex::default()).collect(),
            recovering: Mutex::default(),
            connections: AtomicU64::new(0),
        })
    }

    /// What the work gives, unless the safekeeper is stopped first.
    pub async fn until_shutdown<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            done = work => Ok(done),
            () = self.shutdown.cancelled() => Err(Error::ShuttingDown),
        }
    }

    /// A number for a new connection.
    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// The timeline, where it is known here.
    pub fn timeline(&self, id: TenantTimeline) -> Option<Arc<Timeline>> {
        self.timelines.read().get(&id).map(Arc::clone)
    }

    /// All timelines that are known here.
    pub fn timelines(&self) -> Vec<Arc<Timeline>> {
        self.timelines.read().values().map(Arc::clone).collect()
    }

    /// Adds a timeline that recovery made.
    pub fn insert(&self, timeline: Arc<Timeline>) {
        self.timelines.write().insert(timeline.id, timeline);
    }

    /// Forgets a timeline that was deleted.
    pub fn forget(&self, timeline: &Arc<Timeline>) {
        timeline.forget();
        self.timelines.write().remove(&timeline.id);
        tracing::info!(timeline = %timeline.id, "the timeline was deleted");
    }

    /// Whether a timeline was deleted: its configurations are gone, and the store is the one that this disk is
    /// registered in. An empty store that was mounted in its place deletes nothing.
    pub async fn is_deleted(&self, id: TenantTimeline) -> Result<bool, Error> {
        if membership::newest(&*self.store, id).await?.is_some() {
            return Ok(false);
        }
        let registered = membership::registered(&*self.store, self.me.node).await?;
        Ok(registered == Some(self.me.identity))
    }

    /// Runs nothing else that makes this timeline known, or changes its configuration, while the guard lives.
    pub async fn first_contact(&self, id: TenantTimeline) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        self.first_contacts[hasher.finish() as usize % FIRST_CONTACTS].lock().await
    }

    /// The timeline for a proposer: made known on first contact, refused where this disk takes no part in it.
    pub async fn timeline_for_proposer(
        self: &Arc<Self>,
        id: TenantTimeline,
        origin: TimelineOrigin,
    ) -> Result<Arc<Timeline>, Error> {
        let known = match self.timeline(id) {
            Some(timeline) => Some(timeline),
            None => self.meet(id, origin).await?,
        };
        let not_member = Refusal::NotMember { node: self.me.node, identity: self.me.identity };
        let Some(timeline) = known else {
            self.start_recovery(id, Some(origin));
            return Err(not_member.into());
        };
        if timeline.origin() != origin {
            let reason =
                format!("the timeline begins at {:?}, not at {origin:?}", timeline.origin());
            return Err(Refusal::Invalid(reason).into());
        }
        if !timeline.membership().1 {
            self.start_recovery(id, Some(origin));
            return Err(not_member.into());
        }
        Ok(timeline)
    }

    /// First contact. `None`: this disk has to recover first.
    async fn meet(
        &self,
        id: TenantTimeline,
        origin: TimelineOrigin,
    ) -> Result<Option<Arc<Timeline>>, Error> {
        let _guard = self.first_contact(id).await;
        if let Some(timeline) = self.timeline(id) {
            return Ok(Some(timeline));
        }
        let configuration = match membership::newest(&*self.store, id).await? {
            Some(configuration) => configuration,
            None => self.first_configuration(id).await?,
        };
        if !self.is_first_member(id, &configuration).await? {
            return Ok(None);
        }
        let journal = Arc::clone(&self.journal);
        let timeline = Timeline::empty(id, journal, self.me, origin, configuration)?;
        self.insert(Arc::clone(&timeline));
        tracing::info!(timeline = %id, origin = %origin.point.lsn, "timeline is new here");
        Ok(Some(timeline))
    }

    /// Whether this disk is a member, and was one from the beginning: then a timeline that it does not know is one
    /// of which it never acknowledged anything.
    async fn is_first_member(
        &self,
        id: TenantTimeline,
        newest: &Configuration,
    ) -> Result<bool, Error> {
        if !newest.admits(self.me.node, self.me.identity) {
            return Ok(false);
        }
        if newest.generation == 1 {
            return Ok(true);
        }
        let first = membership::configuration(&*self.store, id, 1).await?;
        Ok(first.admits(self.me.node, self.me.identity))
    }

    /// Makes the timeline's first configuration of all safekeepers, or reads the one of who was quicker.
    async fn first_configuration(&self, id: TenantTimeline) -> Result<Configuration, Error> {
        let disks = self.peers.iter().map(|peer| self.disk_of(peer, id));
        let disks = futures::future::try_join_all(disks).await?;
        let mut members = vec![self.me];
        members.extend(disks);
        members.sort_unstable_by_key(|member| member.node);
        let configuration = Configuration { generation: 1, members };
        membership::propose(&*self.store, id, &configuration).await?;
        let newest = membership::newest(&*self.store, id).await?;
        newest.ok_or_else(|| {
            Refusal::StoreUnavailable(format!("the configuration of {id} is not there")).into()
        })
    }

    async fn disk_of(&self, peer: &Peer, id: TenantTimeline) -> Result<Member, Error> {
        let identity: Identity = match peer.status(id).await {
            Ok(status) => status.identity,
            Err(silence) => match membership::registered(&*self.store, peer.node).await? {
                Some(identity) => identity,
                None => return Err(Refusal::StoreUnavailable(silence.to_string()).into()),
            },
        };
        Ok(Member { node: peer.node, identity })
    }

    /// Reads the newest configuration again, because somebody counts by a newer one.
    pub async fn refresh_configuration(&self, timeline: &Arc<Timeline>) -> Result<(), Error> {
        let _guard = self.first_contact(timeline.id).await;
        if let Some(newest) = membership::newest(&*self.store, timeline.id).await? {
            timeline.step(Event::Configure(newest));
        }
        Ok(())
    }

    /// Why this timeline can take no more WAL now: its own bound, or the journal's.
    pub fn why_full(&self, progress: &Progress) -> Option<String> {
        let Bounds { timeline_bytes_max, journal_bytes_max, .. } = self.bounds;
        if progress.local_bytes >= timeline_bytes_max {
            let bytes = progress.local_bytes;
            return Some(format!(
                "the timeline has {bytes} bytes of WAL that are not in the object store; its bound is {timeline_bytes_max}"
            ));
        }
        let bytes = self.journal.disk_bytes();
        (bytes > journal_bytes_max)
            .then(|| format!("the journal has {bytes} bytes; its bound is {journal_bytes_max}"))
    }

    /// Begins to recover a timeline in which this disk takes no part yet, unless that goes on already.
    pub fn start_recovery(self: &Arc<Self>, id: TenantTimeline, origin: Option<TimelineOrigin>) {
        if self.is_replaced.load(Ordering::Relaxed) || !self.recovering.lock().insert(id) {
            return;
        }
        let keeper = Arc::clone(self);
        self.tasks.spawn(async move {
            let recovered = tokio::select! {
                recovered = recovery::recover(&keeper, id, origin) => recovered,
                () = keeper.shutdown.cancelled() => Err(Error::ShuttingDown),
            };
            keeper.recovering.lock().remove(&id);
            match recovered {
                Ok(outcome) => tracing::info!(timeline = %id, ?outcome, "recovery ended"),
                Err(error) => tracing::warn!(timeline = %id, %error, "not recovered yet"),
            }
        });
    }
}
