//! The end of a timeline, with every acknowledged commit before it.
//!
//! Two bounds come out of what the members say. *Reached* is a position that a quorum has in the
//! newest term: it is committed. *Bound* is one that no acknowledged commit lies beyond, whatever
//! those say that did not answer. Once a reached position is at the bound, it is the answer, as soon
//! as a member knows that it is committed: who reads committed WAL would wait for it in vain
//! otherwise, where the compute died before it could tell.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use access::Bearer;
use futures::{StreamExt, stream::FuturesUnordered};
use protocol::{TenantTimeline, Term, TimelineOrigin, quorum::TimelineStatus};
use tokio::time::{Instant, sleep, timeout_at};
use wal_format::Lsn;

use crate::{
    ShimError,
    safekeeper_client::status,
    wal_proposer::{Stood, WalConfig, WalProposer},
};

/// Between two questions while a live proposer brings the members to one position.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// The end of a timeline's WAL that a quorum is known to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SettledHead {
    /// A record's end: no commit that was acknowledged before the question lies beyond it.
    pub lsn: Lsn,
    /// The term of the log that was asked.
    pub term: Term,
}

/// The LSN that includes every commit which was acknowledged before the question. A live proposer
/// is waited for; where none lives, an election commits what the quorum has. The safekeepers are
/// shown what the bearer has.
pub async fn settled_head(
    timeline: TenantTimeline,
    origin: TimelineOrigin,
    (safekeepers, bearer): (&[SocketAddr], &Bearer),
    timeout: Duration,
) -> Result<SettledHead, ShimError> {
    let deadline = Instant::now() + timeout;
    let settled = settle(timeline, origin, safekeepers, bearer);
    timeout_at(deadline, settled).await.unwrap_or_else(|_| {
        let seconds = timeout.as_secs_f32();
        Err(ShimError::Unavailable(format!(
            "the safekeepers did not settle the head of {timeline} within {seconds} s"
        )))
    })
}

async fn settle(
    timeline: TenantTimeline,
    origin: TimelineOrigin,
    safekeepers: &[SocketAddr],
    bearer: &Bearer,
) -> Result<SettledHead, ShimError> {
    let mut first: Option<Bounds> = None;
    loop {
        let mut asked: FuturesUnordered<_> =
            safekeepers.iter().map(|&address| status(address, timeline, bearer)).collect();
        let mut statuses = Vec::new();
        let mut bounds = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(status) => statuses.push(status),
                Err(error) => tracing::debug!(%timeline, %error, "no status"),
            }
            bounds = Bounds::of(&statuses, safekeepers.len(), origin.point.lsn);
            let settled = bounds.as_ref().and_then(|bounds| bounds.settled(first.as_ref()));
            if let Some(head) = settled.filter(|head| is_told(&statuses, *head)) {
                return Ok(head);
            }
        }
        if statuses.iter().any(|status| status.proposer_connected) {
            // What was acknowledged before the question stays below the bound that came first.
            if first.as_ref().map(|bounds| bounds.term) != bounds.as_ref().map(|b| b.term) {
                first = bounds;
            }
            sleep(POLL_PAUSE).await;
            continue;
        }
        let above = statuses.iter().map(|status| status.term).max().unwrap_or_default();
        let config = WalConfig {
            timeline,
            origin,
            safekeepers: safekeepers.to_vec(),
            bearer: bearer.clone(),
            wal_folder: PathBuf::new(),
        };
        if let Stood::Won(proposer, elected) = WalProposer::stand(config, above).await? {
            proposer.shutdown().await;
            return Ok(SettledHead { lsn: elected.position, term: elected.term });
        }
        // The winner is alive: it settles the head.
    }
}

/// Whether one of these members knows that the head is committed, or nobody ever wrote.
fn is_told(statuses: &[TimelineStatus], head: SettledHead) -> bool {
    head.term == Term(0) || statuses.iter().any(|status| status.commit_lsn >= head.lsn)
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Bounds {
    term: Term,
    reached: Option<Lsn>,
    bound: Lsn,
}

impl Bounds {
    /// What follows from the answers of these members, `asked` in all; nothing as long as too few
    /// have answered.
    fn of(statuses: &[TimelineStatus], asked: usize, origin: Lsn) -> Option<Bounds> {
        let newest = statuses.iter().filter_map(|status| status.configuration.as_ref());
        let newest = newest.max_by_key(|configuration| configuration.generation);
        let (members, quorum) = newest.map_or((asked, asked / 2 + 1), |configuration| {
            (configuration.members.len(), configuration.quorum())
        });
        let is_member = |status: &&TimelineStatus| {
            newest.is_none_or(|known| known.admits(status.node, status.identity))
        };
        let said: Vec<&TimelineStatus> = statuses.iter().filter(is_member).collect();
        let missing = members.saturating_sub(said.len());
        let term = said.iter().map(|status| status.term).max()?;
        if term == Term(0) {
            // A disk that never heard of the timeline says the same as one that is to be filled.
            return (missing == 0).then_some(Bounds { term, reached: Some(origin), bound: origin });
        }
        // An acknowledged commit is on a quorum; so many of those that answered must have it.
        let holders = quorum.checked_sub(missing).filter(|&holders| holders > 0)?;
        let in_term = |status: &&&TimelineStatus| {
            let log_term = status.history.truncated(status.flush_lsn).last_term();
            status.term == term && log_term == term
        };
        let mut flushed: Vec<Lsn> =
            said.iter().filter(in_term).map(|status| status.flush_lsn).collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        let reached = flushed.get(quorum - 1).copied();
        let bound = flushed.get(holders - 1).copied()?;
        Some(Bounds { term, reached, bound })
    }

    /// The head, where it is settled; `first` is what followed from the first answers.
    fn settled(&self, first: Option<&Bounds>) -> Option<SettledHead> {
        let bound = first.filter(|first| first.term == self.term).map_or(self.bound, |f| f.bound);
        let lsn = self.reached.filter(|reached| *reached >= bound.min(self.bound))?;
        Some(SettledHead { lsn, term: self.term })
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        Identity, NodeId,
        quorum::{Configuration, Member, TermHistory, TermStart},
    };

    use super::*;

    const ORIGIN: Lsn = Lsn(1000);

    fn configuration(disks: &[u128]) -> Configuration {
        let member =
            |&bits| Member { node: NodeId(bits as u32 % 10), identity: Identity::from_bits(bits) };
        Configuration { generation: 1, members: disks.iter().map(member).collect() }
    }

    fn status(disk: u128, term: u64, log_term: u64, flush: u64) -> TimelineStatus {
        let start = TermStart { term: Term(log_term), start: ORIGIN };
        let entries = if log_term == 0 { Vec::new() } else { vec![start] };
        TimelineStatus {
            node: NodeId(disk as u32 % 10),
            identity: Identity::from_bits(disk),
            configuration: (term > 0).then(|| configuration(&[1, 2, 3])),
            origin: None,
            term: Term(term),
            history: TermHistory::try_from(entries).expect("one entry is in order"),
            flush_lsn: Lsn(flush),
            commit_lsn: ORIGIN,
            offloaded_lsn: ORIGIN,
            remote_consistent_lsn: ORIGIN,
            local_start_lsn: ORIGIN,
            proposer_connected: false,
        }
    }

    fn head(statuses: &[TimelineStatus]) -> Option<u64> {
        Bounds::of(statuses, 3, ORIGIN)?.settled(None).map(|head| head.lsn.0)
    }

    #[test]
    fn two_of_three_settle_only_what_both_have() {
        assert_eq!(head(&[status(1, 4, 4, 1500)]), None);
        assert_eq!(head(&[status(1, 4, 4, 1500), status(2, 4, 4, 1500)]), Some(1500));
        assert_eq!(head(&[status(1, 4, 4, 1600), status(2, 4, 4, 1500)]), None);
    }

    #[test]
    fn three_settle_what_the_second_best_has() {
        let answers = [status(1, 4, 4, 1600), status(2, 4, 4, 1500), status(3, 4, 4, 1200)];
        assert_eq!(head(&answers), Some(1500));
    }

    #[test]
    fn a_head_that_no_member_was_told_of_is_not_told() {
        let mut answers = [status(1, 4, 4, 1500), status(2, 4, 4, 1500)];
        let head = SettledHead { lsn: Lsn(1500), term: Term(4) };
        assert!(!is_told(&answers, head));
        answers[1].commit_lsn = Lsn(1500);
        assert!(is_told(&answers, head));
    }

    #[test]
    fn a_log_of_an_older_term_does_not_count() {
        assert_eq!(head(&[status(1, 4, 4, 1500), status(2, 4, 3, 1500)]), None);
        assert_eq!(head(&[status(1, 5, 4, 1500), status(2, 5, 4, 1500)]), None);
    }

    #[test]
    fn a_disk_that_is_no_member_is_not_asked() {
        assert_eq!(head(&[status(1, 4, 4, 1500), status(12, 4, 4, 1500)]), None);
    }

    #[test]
    fn a_timeline_that_was_never_written_ends_at_its_origin_if_all_say_so() {
        let unknown = |disk| status(disk, 0, 0, 0);
        assert_eq!(head(&[unknown(1), unknown(2)]), None);
        assert_eq!(head(&[unknown(1), unknown(2), unknown(3)]), Some(ORIGIN.0));
    }

    #[test]
    fn what_was_acknowledged_before_the_question_is_not_chased_by_later_writes() {
        let first = Bounds::of(&[status(1, 4, 4, 1600), status(2, 4, 4, 1500)], 3, ORIGIN);
        let later = [status(1, 4, 4, 1900), status(2, 4, 4, 1700)];
        let later = Bounds::of(&later, 3, ORIGIN).expect("two have answered");
        assert_eq!(later.settled(first.as_ref()).map(|head| head.lsn), Some(Lsn(1700)));
    }
}
