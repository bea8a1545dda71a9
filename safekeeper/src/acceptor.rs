//! The acceptor: what one safekeeper promises about one timeline. Pure: events in, effects out; the shell
//! carries the effects out in order, each complete before the next, so "persist, then reply" can be read off the
//! data.
//!
//! The rules stand in `docs/formats/quorum-protocol.md`. Invariants, checked after each step:
//! * `commit_lsn <= flush_lsn <= end_lsn`; `flush_lsn` is a record's end.
//! * `term` never falls; no term of `history` is above it.
//! * `commit_lsn` never falls, and the log is never cut below it.
//! * Only the connection that sent the newest `Elected` may append.

use bytes::Bytes;
use protocol::quorum::{AcceptorMessage, Configuration, Member, Refusal, TermHistory};
use protocol::{Term, TimelineOrigin};
use wal_format::{Lsn, Version, WalReader};

#[cfg(test)]
mod tests;

/// The highest term that a proposer may stand for: there is always a next one.
const TERM_MAX: Term = Term(1 << 62);

/// Tells one connection of a proposer from any other, since the process began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Whether this disk may take part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It has all that it ever acknowledged, and all that its predecessor did.
    Member,
    /// It replaces another disk and has not yet copied what that one may have acknowledged.
    Recovering,
}

/// What of an acceptor must survive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcceptorState {
    /// Where the timeline begins.
    pub origin: TimelineOrigin,
    /// The newest configuration known.
    pub configuration: Configuration,
    /// Whether this disk may take part.
    pub standing: Standing,
    /// The highest term known.
    pub term: Term,
    /// The proposer that has this acceptor's vote in `term`.
    pub voted_for: Option<u128>,
    /// The history told by the last proposer that was elected. It may reach beyond `flush_lsn`.
    pub history: TermHistory,
    /// The end of the last complete record.
    pub flush_lsn: Lsn,
    /// How far this log is known to be on a quorum.
    pub commit_lsn: Lsn,
    /// The end of the log, with the bytes of an unfinished record.
    pub end_lsn: Lsn,
}

impl AcceptorState {
    /// An acceptor that never acknowledged anything.
    pub fn new(origin: TimelineOrigin, configuration: Configuration) -> AcceptorState {
        AcceptorState {
            origin,
            configuration,
            standing: Standing::Member,
            term: Term(0),
            voted_for: None,
            history: TermHistory::default(),
            flush_lsn: origin.point.lsn,
            commit_lsn: origin.point.lsn,
            end_lsn: origin.point.lsn,
        }
    }

    /// The history of the log: what was told of beyond `flush_lsn` does not count yet. If it did, a log that
    /// lags would be taken for a complete one of its proposer's term.
    pub fn log_history(&self) -> TermHistory {
        self.history.truncated(self.flush_lsn)
    }
}

/// What happens to an acceptor.
#[derive(Clone, Debug)]
pub enum Event {
    /// A candidate asks for a vote.
    Vote {
        /// On this connection.
        connection: ConnectionId,
        /// The candidate.
        proposer: u128,
        /// The configuration's generation that it counts by.
        generation: u32,
        /// The term it stands for.
        term: Term,
    },
    /// A proposer was elected.
    Elected {
        /// On this connection.
        connection: ConnectionId,
        /// The proposer.
        proposer: u128,
        /// The configuration's generation that it counts by.
        generation: u32,
        /// The term won.
        term: Term,
        /// Where its appends will begin.
        start: Lsn,
        /// All terms of its log.
        history: TermHistory,
    },
    /// WAL of the elected proposer, or its heartbeat.
    Append {
        /// On this connection.
        connection: ConnectionId,
        /// The configuration's generation that it counts by.
        generation: u32,
        /// Its term.
        term: Term,
        /// The position of the first byte.
        begin: Lsn,
        /// How far a quorum has flushed.
        commit_lsn: Lsn,
        /// The bytes; empty for a heartbeat.
        wal: Bytes,
    },
    /// A newer configuration, from the object store or from a member that was admitted.
    Configure(Configuration),
    /// A connection ended.
    Disconnected(ConnectionId),
}

/// What must be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Make the state durable. The log ends at its `end_lsn`.
    PersistState(Box<AcceptorState>),
    /// Make WAL durable, and with it where the log then stands.
    PersistWal {
        /// The position of the first byte.
        begin: Lsn,
        /// The end of the last complete record then.
        flush_lsn: Lsn,
        /// How far a quorum has flushed.
        commit_lsn: Lsn,
        /// The bytes.
        wal: Bytes,
    },
    /// Answer. A refusal ends the connection.
    Reply {
        /// The connection.
        to: ConnectionId,
        /// The answer.
        message: AcceptorMessage,
    },
}

/// The connection that appends.
#[derive(Clone, Copy, Debug)]
struct Appender {
    connection: ConnectionId,
    term: Term,
}

/// One timeline's acceptor.
pub struct Acceptor {
    me: Member,
    version: Version,
    state: AcceptorState,
    /// Stands at `end_lsn`, with the unfinished record's bytes; made anew by each `Elected`.
    reader: WalReader,
    appender: Option<Appender>,
}

impl Acceptor {
    /// The acceptor of this state. The bytes of an unfinished record are forgotten: nobody can append behind
    /// them, since every proposer begins at a record's end.
    pub fn new(me: Member, version: Version, mut state: AcceptorState) -> Acceptor {
        state.end_lsn = state.flush_lsn;
        let reader = reader(version, &state, state.flush_lsn);
        Acceptor { me, version, state, reader, appender: None }
    }

    /// What must survive, as it is now.
    pub fn state(&self) -> &AcceptorState {
        &self.state
    }

    /// Whether this disk takes part: it is a member, and has recovered.
    pub fn is_member(&self) -> bool {
        self.state.standing == Standing::Member
            && self.state.configuration.admits(self.me.node, self.me.identity)
    }

    /// Whether a proposer of the current term is connected.
    pub fn has_proposer(&self) -> bool {
        self.appender.is_some_and(|appender| appender.term == self.state.term)
    }

    /// Takes one event and says what must be done.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        let before = (self.state.term, self.state.commit_lsn);
        let effects = match event {
            Event::Vote { connection, proposer, generation, term } => self
                .vote(connection, proposer, generation, term)
                .unwrap_or_else(|refusal| refuse(connection, refusal)),
            Event::Elected { connection, proposer, generation, term, start, history } => self
                .elected(connection, proposer, generation, (term, start), history)
                .unwrap_or_else(|refusal| refuse(connection, refusal)),
            Event::Append { connection, generation, term, begin, commit_lsn, wal } => self
                .append(connection, generation, term, (begin, commit_lsn), wal)
                .unwrap_or_else(|refusal| self.refuse_appender(connection, refusal)),
            Event::Configure(configuration) => self.configure(configuration),
            Event::Disconnected(connection) => {
                self.appender = self.appender.filter(|appender| appender.connection != connection);
                Vec::new()
            }
        };
        self.check(before);
        effects
    }

    fn vote(
        &mut self,
        connection: ConnectionId,
        proposer: u128,
        generation: u32,
        term: Term,
    ) -> Result<Vec<Effect>, Refusal> {
        self.check_sender(generation)?;
        check_candidate(term)?;
        let mut effects = Vec::new();
        if term > self.state.term {
            self.state.term = term;
            self.state.voted_for = Some(proposer);
            effects.push(self.persist_state());
            effects.extend(self.fence(term));
        }
        let granted = term == self.state.term && self.state.voted_for == Some(proposer);
        let message = AcceptorMessage::Vote {
            term: self.state.term,
            granted,
            flush_lsn: self.state.flush_lsn,
            commit_lsn: self.state.commit_lsn,
            history: self.state.log_history(),
        };
        effects.push(Effect::Reply { to: connection, message });
        Ok(effects)
    }

    fn elected(
        &mut self,
        connection: ConnectionId,
        proposer: u128,
        generation: u32,
        (term, start): (Term, Lsn),
        history: TermHistory,
    ) -> Result<Vec<Effect>, Refusal> {
        self.check_sender(generation)?;
        self.check_term(term)?;
        check_candidate(term)?;
        let state = &self.state;
        let origin = state.origin.point.lsn;
        if history.last_term() != term {
            return Err(Refusal::Invalid(format!("the history does not end with term {term}")));
        }
        if history.entries().first().is_some_and(|first| first.start != origin) {
            return Err(Refusal::Invalid(format!("the history does not begin at {origin}")));
        }
        if state.history.last_term() == term && state.history != history {
            return Err(Refusal::Invalid(format!("term {term} was won with another history")));
        }
        let common = state.log_history().common_end(state.flush_lsn, &history, Lsn::MAX, origin);
        if start != common {
            return Err(Refusal::Invalid(format!("start {start}, but the logs part at {common}")));
        }
        if common < state.commit_lsn {
            let commit = state.commit_lsn;
            return Err(Refusal::Invalid(format!("a cut to {common}, below commit LSN {commit}")));
        }
        if term > state.term {
            self.state.voted_for = Some(proposer);
        }
        self.state.term = term;
        self.state.history = history;
        self.state.flush_lsn = start;
        self.state.end_lsn = start;
        self.reader = reader(self.version, &self.state, start);
        let mut effects = vec![self.persist_state()];
        effects.extend(match self.appender.filter(|old| old.connection != connection) {
            Some(old) if old.term == term => {
                let reason = "superseded by a newer connection of the same proposer".to_owned();
                refuse(old.connection, Refusal::Invalid(reason))
            }
            _ => self.fence(term),
        });
        self.appender = Some(Appender { connection, term });
        effects.push(self.flushed(connection));
        Ok(effects)
    }

    fn append(
        &mut self,
        connection: ConnectionId,
        generation: u32,
        term: Term,
        (begin, commit_lsn): (Lsn, Lsn),
        wal: Bytes,
    ) -> Result<Vec<Effect>, Refusal> {
        self.check_sender(generation)?;
        self.check_term(term)?;
        if !self.appender.is_some_and(|it| it.connection == connection && it.term == term) {
            return Err(Refusal::Invalid("an append on a connection that was not elected".into()));
        }
        let mut effects = Vec::with_capacity(2);
        let mut flush_lsn = self.state.flush_lsn;
        if !wal.is_empty() {
            if begin != self.state.end_lsn {
                let end = self.state.end_lsn;
                return Err(Refusal::Invalid(format!(
                    "WAL from {begin}, but the log ends at {end}"
                )));
            }
            flush_lsn = self
                .read_records(begin, &wal)
                .map_err(|damage| Refusal::Invalid(format!("WAL that is not valid: {damage}")))?;
        }
        self.state.flush_lsn = flush_lsn;
        self.state.end_lsn += wal.len() as u64;
        self.state.commit_lsn = self.state.commit_lsn.max(commit_lsn.min(flush_lsn));
        if !wal.is_empty() {
            let commit_lsn = self.state.commit_lsn;
            effects.push(Effect::PersistWal { begin, flush_lsn, commit_lsn, wal });
        }
        effects.push(self.flushed(connection));
        Ok(effects)
    }

    /// Where the last complete record ends with these bytes.
    fn read_records(&mut self, begin: Lsn, wal: &[u8]) -> Result<Lsn, wal_format::WalError> {
        self.reader.feed(begin, wal)?;
        while self.reader.next_record()?.is_some() {}
        Ok(self.reader.record_end())
    }

    fn configure(&mut self, configuration: Configuration) -> Vec<Effect> {
        // The object of a generation is written once: the same number is the same configuration.
        if configuration.generation <= self.state.configuration.generation {
            return Vec::new();
        }
        self.state.configuration = configuration;
        vec![self.persist_state()]
    }

    fn check_sender(&self, generation: u32) -> Result<(), Refusal> {
        let known = self.state.configuration.generation;
        if !self.is_member() {
            return Err(Refusal::NotMember { node: self.me.node, identity: self.me.identity });
        }
        if generation < known {
            return Err(Refusal::OldConfiguration { asked: generation, known });
        }
        if generation > known {
            return Err(Refusal::Invalid(format!(
                "configuration generation {generation} is not in the object store: it ends with {known}"
            )));
        }
        Ok(())
    }

    fn check_term(&self, asked: Term) -> Result<(), Refusal> {
        let known = self.state.term;
        if asked < known { Err(Refusal::Fenced { asked, known }) } else { Ok(()) }
    }

    /// An append that was refused ends its connection; what the reader took of it is forgotten with it.
    fn refuse_appender(&mut self, connection: ConnectionId, refusal: Refusal) -> Vec<Effect> {
        self.appender = self.appender.filter(|appender| appender.connection != connection);
        refuse(connection, refusal)
    }

    /// Tells the appender of an older term that it is fenced.
    fn fence(&mut self, known: Term) -> Vec<Effect> {
        match self.appender.take_if(|appender| appender.term < known) {
            Some(old) => refuse(old.connection, Refusal::Fenced { asked: old.term, known }),
            None => Vec::new(),
        }
    }

    fn persist_state(&self) -> Effect {
        Effect::PersistState(Box::new(self.state.clone()))
    }

    fn flushed(&self, to: ConnectionId) -> Effect {
        let (term, flush_lsn) = (self.state.term, self.state.flush_lsn);
        Effect::Reply { to, message: AcceptorMessage::Flushed { term, flush_lsn } }
    }

    fn check(&self, (term, commit_lsn): (Term, Lsn)) {
        let state = &self.state;
        assert!(state.commit_lsn <= state.flush_lsn && state.flush_lsn <= state.end_lsn);
        assert!(state.history.last_term() <= state.term);
        assert!(state.term >= term && state.commit_lsn >= commit_lsn);
    }
}

fn check_candidate(term: Term) -> Result<(), Refusal> {
    if term == Term(0) || term > TERM_MAX {
        return Err(Refusal::Invalid(format!("no proposer can stand for term {term}")));
    }
    Ok(())
}

fn reader(version: Version, state: &AcceptorState, start: Lsn) -> WalReader {
    let origin = state.origin;
    let last_record = (start == origin.point.lsn).then_some(origin.point.last_record);
    WalReader::new(version, origin.segment_bytes, start, last_record)
        .with_system_id(origin.system_id)
}

fn refuse(to: ConnectionId, refusal: Refusal) -> Vec<Effect> {
    vec![Effect::Reply { to, message: AcceptorMessage::Refused(refusal) }]
}
