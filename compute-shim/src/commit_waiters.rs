//! Replies to fsync that wait for the quorum.
//!
//! Invariant: a reply is given as done only when `commit_lsn` has reached what it waits for, and
//! as failed once the proposer is at its end, whichever comes first.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use wal_format::Lsn;

/// The answer to a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// A quorum has it.
    Committed,
    /// It will never be known whether a quorum has it.
    Failed,
}

/// What is called with the answer.
pub(crate) type Reply = Box<dyn FnOnce(Outcome) + Send>;

#[derive(Default)]
struct Waiting {
    commit_lsn: Lsn,
    failed: bool,
    replies: BTreeMap<Lsn, Vec<Reply>>,
}

/// The replies that wait, by the position that they wait for. A std-like mutex: it is held for map
/// operations only, and never while a reply is given.
#[derive(Default)]
pub(crate) struct CommitWaiters {
    waiting: Mutex<Waiting>,
}

impl CommitWaiters {
    /// Gives `reply` its answer: at once where it is known, else when it is.
    pub(crate) fn wait(&self, until: Lsn, reply: Reply) {
        let mut waiting = self.waiting.lock();
        let outcome = match (waiting.failed, waiting.commit_lsn >= until) {
            (true, _) => Outcome::Failed,
            (false, true) => Outcome::Committed,
            (false, false) => return waiting.replies.entry(until).or_default().push(reply),
        };
        drop(waiting);
        reply(outcome);
    }

    /// A quorum has everything up to `commit_lsn`.
    pub(crate) fn advance(&self, commit_lsn: Lsn) {
        let mut waiting = self.waiting.lock();
        if commit_lsn <= waiting.commit_lsn {
            return;
        }
        waiting.commit_lsn = commit_lsn;
        let later = waiting.replies.split_off(&Lsn(commit_lsn.0 + 1));
        let done = std::mem::replace(&mut waiting.replies, later);
        drop(waiting);
        done.into_values().flatten().for_each(|reply| reply(Outcome::Committed));
    }

    /// Nothing more will be committed by this proposer.
    pub(crate) fn fail(&self) {
        let mut waiting = self.waiting.lock();
        waiting.failed = true;
        let all = std::mem::take(&mut waiting.replies);
        drop(waiting);
        all.into_values().flatten().for_each(|reply| reply(Outcome::Failed));
    }

    /// Whether [`CommitWaiters::fail`] was called.
    pub(crate) fn failed(&self) -> bool {
        self.waiting.lock().failed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    fn waiter(waiters: &CommitWaiters, until: u64) -> mpsc::Receiver<Outcome> {
        let (sender, receiver) = mpsc::channel();
        let reply = move |outcome| sender.send(outcome).expect("the test waits for the answer");
        waiters.wait(Lsn(until), Box::new(reply));
        receiver
    }

    #[test]
    fn a_reply_waits_for_its_position_and_no_longer() {
        let waiters = Arc::new(CommitWaiters::default());
        let (early, late) = (waiter(&waiters, 100), waiter(&waiters, 101));
        waiters.advance(Lsn(99));
        assert!(early.try_recv().is_err());
        waiters.advance(Lsn(100));
        assert_eq!(early.try_recv(), Ok(Outcome::Committed));
        assert!(late.try_recv().is_err());
        assert_eq!(waiter(&waiters, 100).try_recv(), Ok(Outcome::Committed));
    }

    #[test]
    fn after_the_end_every_reply_fails_also_one_for_what_is_committed() {
        let waiters = CommitWaiters::default();
        let waiting = waiter(&waiters, 100);
        waiters.advance(Lsn(50));
        waiters.fail();
        waiters.advance(Lsn(100));
        assert_eq!(waiting.try_recv(), Ok(Outcome::Failed));
        assert_eq!(waiter(&waiters, 50).try_recv(), Ok(Outcome::Failed));
    }
}
