//! A disk that replaces another one: it is admitted by a new configuration, and copies what its predecessor may
//! have acknowledged before it takes part.
//!
//! The steps, and why they are in this order, stand in `docs/formats/quorum-protocol.md`, "A disk that was lost".

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::quorum::{Configuration, Member, ReadLimit, Refusal, TimelineStatus};
use protocol::{TenantTimeline, Term, TimelineOrigin};

use crate::acceptor::{AcceptorState, Standing};
use crate::journal::TimelineState;
use crate::keeper::Keeper;
use crate::peer::Peer;
use crate::timeline::Timeline;
use crate::{Error, membership};

/// After a loss, timelines that could not be recovered are tried again after this long.
const AGAIN: Duration = Duration::from_secs(2);

/// How a recovery ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// This disk takes part now.
    Admitted,
    /// It took part already, or needs nothing to do so.
    NothingToDo,
    /// The node is not one of the timeline's.
    NotOurs,
}

/// Recovers all timelines of the node's lost disk, until none is left.
pub async fn recover_all(keeper: Arc<Keeper>) {
    loop {
        let unfinished = match membership::timelines(&*keeper.store).await {
            Ok(timelines) => recover_each(&keeper, timelines).await,
            Err(error) => {
                tracing::warn!(%error, "the timelines of the lost disk cannot be listed yet");
                1
            }
        };
        if unfinished == 0 || keeper.is_replaced.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn recover_each(keeper: &Arc<Keeper>, timelines: Vec<TenantTimeline>) -> usize {
    let mut unfinished = 0;
    for id in timelines {
        if keeper.timeline(id).is_some_and(|timeline| timeline.membership().1) {
            continue;
        }
        if let Err(error) = recover(keeper, id, None).await {
            tracing::warn!(timeline = %id, %error, "not recovered yet");
            unfinished += 1;
        }
    }
    unfinished
}

/// Recovers one timeline.
pub async fn recover(
    keeper: &Arc<Keeper>,
    id: TenantTimeline,
    origin: Option<TimelineOrigin>,
) -> Result<Outcome, Error> {
    if !membership::register(&*keeper.store, keeper.me).await? {
        keeper.is_replaced.store(true, Ordering::Relaxed);
        tracing::error!(identity = %keeper.me.identity, "this disk was replaced by another one of the same node");
        return Ok(Outcome::NotOurs);
    }
    let _guard = keeper.first_contact(id).await;
    if keeper.timeline(id).is_some_and(|timeline| timeline.membership().1) {
        return Ok(Outcome::NothingToDo);
    }
    let Some(configuration) = membership::newest(&*keeper.store, id).await? else {
        return Ok(Outcome::NothingToDo);
    };
    let others = match others(keeper, &configuration) {
        Some(others) => others?,
        None => return Ok(Outcome::NotOurs),
    };
    let is_admitted = configuration.admits(keeper.me.node, keeper.me.identity);
    let is_known = keeper.timeline(id).is_some();
    if is_admitted && !is_known && configuration.generation == 1 {
        return Ok(Outcome::NothingToDo);
    }
    let configuration =
        if is_admitted { configuration } else { admit(keeper, id, &others, configuration).await? };
    // From here on nothing becomes acknowledged any more with the help of what the lost disk once said.
    let statuses = configure(id, &others, &configuration).await?;
    let timeline = copy(keeper, id, origin, configuration, &others, &statuses).await?;
    tracing::info!(timeline = %id, "recovered and admitted");
    Ok(if timeline { Outcome::Admitted } else { Outcome::NothingToDo })
}

/// The other members, and where they listen; `None` where this node is not one of the timeline's.
fn others(
    keeper: &Keeper,
    configuration: &Configuration,
) -> Option<Result<Vec<(Member, Peer)>, Error>> {
    let me = keeper.me.node;
    configuration.members.iter().find(|member| member.node == me)?;
    let others = configuration.members.iter().filter(|member| member.node != me);
    Some(
        others
            .map(|member| {
                let peer = keeper.peers.iter().find(|peer| peer.node == member.node);
                let reason = "it is a member, and its address is not known".to_owned();
                let peer = peer.ok_or(Error::Peer { node: member.node, reason })?;
                Ok((*member, peer.clone()))
            })
            .collect(),
    )
}

/// Writes the configuration that has this disk in its predecessor's place. All others must be there: a quorum needs
/// them until this disk has recovered.
async fn admit(
    keeper: &Keeper,
    id: TenantTimeline,
    others: &[(Member, Peer)],
    configuration: Configuration,
) -> Result<Configuration, Error> {
    for (member, peer) in others {
        check_disk(member, &peer.status(id).await?)?;
    }
    let members = configuration
        .members
        .iter()
        .map(|member| if member.node == keeper.me.node { keeper.me } else { *member });
    let next =
        Configuration { generation: configuration.generation + 1, members: members.collect() };
    if !membership::propose(&*keeper.store, id, &next).await? {
        let reason = format!("another configuration of generation {} was first", next.generation);
        return Err(Refusal::StoreUnavailable(reason).into());
    }
    tracing::info!(timeline = %id, generation = next.generation, "wrote the configuration that admits this disk");
    Ok(next)
}

/// Has all others take the configuration over; what each of them knows after that.
async fn configure(
    id: TenantTimeline,
    others: &[(Member, Peer)],
    configuration: &Configuration,
) -> Result<Vec<TimelineStatus>, Error> {
    let mut statuses = Vec::with_capacity(others.len());
    for (member, peer) in others {
        let status = peer.configure(id, configuration.clone()).await?;
        check_disk(member, &status)?;
        statuses.push(status);
    }
    Ok(statuses)
}

fn check_disk(member: &Member, status: &TimelineStatus) -> Result<(), Error> {
    if status.identity == member.identity {
        return Ok(());
    }
    Err(Error::Peer {
        node: member.node,
        reason: format!("it has disk {}, the member has disk {}", status.identity, member.identity),
    })
}

/// Copies the best log of all others, and takes part; false where nobody has anything and no origin is known.
async fn copy(
    keeper: &Arc<Keeper>,
    id: TenantTimeline,
    origin: Option<TimelineOrigin>,
    configuration: Configuration,
    others: &[(Member, Peer)],
    statuses: &[TimelineStatus],
) -> Result<bool, Error> {
    let known = statuses.iter().zip(others).filter(|(status, _)| status.origin.is_some());
    let best = known.max_by_key(|(status, _)| (status.history.last_term(), status.flush_lsn));
    let origin = best.and_then(|(status, _)| status.origin).or(origin);
    let Some(origin) = origin else {
        return Ok(false);
    };
    let begin = origin.point.lsn;
    let (history, flush_lsn, offloaded_lsn) = best.map_or_else(
        || (Default::default(), begin, begin),
        |(status, _)| (status.history.clone(), status.flush_lsn, status.offloaded_lsn),
    );
    if flush_lsn < begin {
        let reason =
            format!("a log that ends at {flush_lsn}, before the timeline's origin {begin}");
        return Err(Refusal::Invalid(reason).into());
    }
    let local_start = offloaded_lsn.clamp(begin, flush_lsn);
    let commit_lsn = statuses.iter().map(|status| status.commit_lsn).max().unwrap_or(begin);
    let term = statuses.iter().map(|status| status.term).max().unwrap_or(Term(0));
    let state = |standing, flush_lsn| TimelineState {
        acceptor: AcceptorState {
            origin,
            configuration: configuration.clone(),
            standing,
            term,
            // Whom the predecessor voted for in this term is not known: nobody gets that vote a second time.
            voted_for: None,
            history: history.clone(),
            flush_lsn,
            commit_lsn: commit_lsn.clamp(begin, flush_lsn),
            end_lsn: flush_lsn,
        },
        local_start,
        offloaded_lsn: local_start,
        remote_consistent_lsn: begin,
    };
    let timeline = recovering_timeline(keeper, id, state(Standing::Recovering, local_start))?;
    if let Some((_, (_, donor))) = best.filter(|_| flush_lsn > local_start) {
        let limit = ReadLimit::Flush { last_log_term: history.last_term(), until: flush_lsn };
        copy_wal(&timeline, donor, local_start, limit, flush_lsn).await?;
    }
    timeline.install(state(Standing::Member, flush_lsn))?;
    timeline.settled().await?;
    Ok(true)
}

fn recovering_timeline(
    keeper: &Arc<Keeper>,
    id: TenantTimeline,
    state: TimelineState,
) -> Result<Arc<Timeline>, Error> {
    let timeline = match keeper.timeline(id) {
        Some(timeline) => timeline,
        None => {
            let acceptor = &state.acceptor;
            let (journal, configuration) = (Arc::clone(&keeper.journal), &acceptor.configuration);
            let empty =
                Timeline::empty(id, journal, keeper.me, acceptor.origin, configuration.clone())?;
            // Before it can be found by a proposer: it must not be taken for one that may answer.
            empty.install(state)?;
            keeper.insert(Arc::clone(&empty));
            return Ok(empty);
        }
    };
    timeline.install(state)?;
    Ok(timeline)
}

async fn copy_wal(
    timeline: &Arc<Timeline>,
    donor: &Peer,
    from: wal_format::Lsn,
    limit: ReadLimit,
    until: wal_format::Lsn,
) -> Result<(), Error> {
    let mut wal = donor.read(timeline.id, from, limit).await?;
    let mut end = from;
    while let Some((begin, bytes)) = wal.next().await? {
        if begin != end || bytes.len() as u64 > until.since(begin) {
            let reason = format!("WAL from {begin}, where WAL from {end} to {until} was asked for");
            return Err(Error::Peer { node: donor.node, reason });
        }
        end += bytes.len() as u64;
        if !bytes.is_empty() {
            timeline.copy(begin, bytes);
            timeline.settled().await?;
        }
    }
    if end != until {
        let reason = format!("its WAL ended at {end}, before {until}");
        return Err(Error::Peer { node: donor.node, reason });
    }
    Ok(())
}
