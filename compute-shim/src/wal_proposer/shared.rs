//! What the tasks of a proposer and the `pg_wal` mount share.
//!
//! Locks: `core` is held for decisions and for putting commands on channels, never during I/O;
//! `written` during one write to a local file. `core` may be taken inside `written`, not the
//! other way round.

use std::{fs::File, os::unix::fs::FileExt, sync::OnceLock};

use parking_lot::Mutex;
use protocol::quorum::ProposerMessage;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wal_format::{Lsn, Version};

use super::{Elected, Fenced, WalConfig};
use crate::{
    commit_waiters::{CommitWaiters, Reply},
    proposer::{Effect, Event, Over, Peer, Proposer},
    wal_source::WalFolder,
    written_wal::{WriteRefused, WrittenWal},
};

/// What a connection's task is told.
pub(crate) enum Command {
    /// Send this.
    Send(ProposerMessage),
    /// Stream the WAL from here on.
    Stream(Lsn),
    /// Close, and connect anew; the reason.
    Reconnect(String),
}

/// How far a proposer is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Not elected yet.
    Electing,
    /// Elected, and a quorum has the whole log.
    Leading(Elected),
    /// At the end.
    Over(End),
}

/// How it came to the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// By what the safekeepers said.
    Quorum(Over),
    /// By what Postgres wrote.
    Broken(String),
    /// By request.
    ShutDown,
}

struct Core {
    proposer: Proposer,
    links: Vec<Option<mpsc::UnboundedSender<Command>>>,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: WalConfig,
    pub(crate) version: Version,
    core: Mutex<Core>,
    /// What Postgres has written; none before the start.
    written: Mutex<Option<WrittenWal>>,
    /// The local segments; none before the start.
    pub(crate) folder: OnceLock<WalFolder>,
    pub(crate) waiters: CommitWaiters,
    /// The end of the log: what may be sent.
    pub(crate) log_end: watch::Sender<Lsn>,
    pub(crate) commit_lsn: watch::Sender<Lsn>,
    /// The commit LSN that each safekeeper was last told, on any connection.
    pub(crate) told: watch::Sender<Vec<Lsn>>,
    pub(crate) state: watch::Sender<State>,
    /// Ends the tasks.
    pub(crate) over: CancellationToken,
}

impl Shared {
    pub(crate) fn new(config: WalConfig, version: Version, proposer: Proposer) -> Shared {
        let origin = config.origin.point.lsn;
        let links = config.safekeepers.iter().map(|_| None).collect();
        let told = vec![Lsn(0); config.safekeepers.len()];
        Shared {
            config,
            version,
            core: Mutex::new(Core { proposer, links }),
            written: Mutex::new(None),
            folder: OnceLock::new(),
            waiters: CommitWaiters::default(),
            log_end: watch::Sender::new(origin),
            commit_lsn: watch::Sender::new(origin),
            told: watch::Sender::new(told),
            state: watch::Sender::new(State::Electing),
            over: CancellationToken::new(),
        }
    }

    /// Asks something of the proposer.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Proposer) -> T) -> T {
        question(&self.core.lock().proposer)
    }

    /// Where the peer's commands go from now on.
    pub(crate) fn link(&self, peer: Peer) -> mpsc::UnboundedReceiver<Command> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(link) = self.core.lock().links.get_mut(peer.0) {
            *link = Some(sender);
        }
        receiver
    }

    /// Lets the proposer decide, and carries out what it says.
    pub(crate) fn step(&self, event: Event) {
        let mut core = self.core.lock();
        let effects = core.proposer.step(event);
        let (log_end, commit_lsn) = (core.proposer.log_end(), core.proposer.commit_lsn());
        self.log_end.send_if_modified(|end| raise(end, log_end));
        self.commit_lsn.send_if_modified(|commit| raise(commit, commit_lsn));
        let mut ended = None;
        for effect in effects {
            match effect {
                Effect::Send(peer, message) => core.command(peer, Command::Send(message)),
                Effect::Stream(peer, from) => core.command(peer, Command::Stream(from)),
                Effect::Reconnect(peer, why) => core.command(peer, Command::Reconnect(why)),
                Effect::Established { term, position } => {
                    self.state.send_replace(State::Leading(Elected { term, position }));
                }
                Effect::Over(over) => ended = Some(End::Quorum(over)),
            }
        }
        drop(core);
        if let Some(end) = ended {
            self.end(end);
        }
        self.waiters.advance(commit_lsn);
    }

    /// Ends everything; the first reason stays.
    pub(crate) fn end(&self, end: End) {
        self.waiters.fail();
        self.state.send_if_modified(|state| {
            let first = !matches!(state, State::Over(_));
            if first {
                *state = State::Over(end);
            }
            first
        });
        self.over.cancel();
    }

    /// Begins to take writes, at the end of the WAL that Postgres will find.
    pub(crate) fn begin_writing(&self, written: WrittenWal) {
        *self.written.lock() = Some(written);
    }

    /// Writes to a segment: to its file, and to what is sent. An error ends the proposer.
    pub(crate) fn write(
        &self,
        file: &File,
        segment_start: Lsn,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), WriteFailed> {
        let mut written = self.written.lock();
        if self.waiters.failed() {
            return Err(WriteFailed::Over);
        }
        let written = written.as_mut().ok_or(WriteFailed::Over)?;
        let begin = segment_start + offset;
        let outcome = self.write_checked(written, file, begin, offset, bytes);
        match outcome {
            Ok(complete_end) => {
                self.step(Event::Written(complete_end));
                Ok(())
            }
            Err(WriteFailed::Refused(why)) => {
                self.end(End::Broken(why.to_string()));
                Err(WriteFailed::Refused(why))
            }
            Err(other) => Err(other),
        }
    }

    /// Calls `reply` when a quorum has every record that is complete now.
    pub(crate) fn wait_until_committed(&self, reply: Reply) {
        let complete_end = *self.log_end.borrow();
        self.waiters.wait(complete_end, reply);
    }

    fn write_checked(
        &self,
        written: &mut WrittenWal,
        file: &File,
        begin: Lsn,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Lsn, WriteFailed> {
        let sent = written.complete_end().since(begin) as usize;
        let sent = bytes.get(..sent).unwrap_or(bytes);
        let mut old = vec![0; sent.len()];
        file.read_exact_at(&mut old, offset).map_err(WriteFailed::Io)?;
        written.check_rewrite(begin, &old, sent).map_err(WriteFailed::Refused)?;
        file.write_all_at(bytes, offset).map_err(WriteFailed::Io)?;
        written.write(begin, bytes).map_err(WriteFailed::Refused)
    }

    /// Why an elected proposer can write no more, once that is so.
    pub(crate) fn fenced(&self) -> Option<Fenced> {
        match &*self.state.borrow() {
            State::Over(End::Quorum(Over::Fenced { known } | Over::Lost { known })) => {
                let ours = self.ask(Proposer::term);
                Some(Fenced::Newer { ours, known: *known })
            }
            State::Over(End::Quorum(Over::Corrupt(why)) | End::Broken(why)) => {
                Some(Fenced::Broken(why.clone()))
            }
            State::Electing | State::Leading(_) | State::Over(End::ShutDown) => None,
        }
    }
}

impl Core {
    fn command(&self, peer: Peer, command: Command) {
        // A link that is gone belongs to a connection that has ended, as its task will say.
        if let Some(Some(link)) = self.links.get(peer.0) {
            let _ = link.send(command);
        }
    }
}

/// Why a write to a segment failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteFailed {
    /// The proposer is at its end.
    #[error("nothing is written any more")]
    Over,
    /// It cannot be part of this timeline's WAL.
    #[error(transparent)]
    Refused(WriteRefused),
    /// The local file.
    #[error(transparent)]
    Io(std::io::Error),
}

fn raise(value: &mut Lsn, to: Lsn) -> bool {
    let rises = to > *value;
    *value = (*value).max(to);
    rises
}
