//! What a proposer decides, pure: whom to ask for a vote, whose log to take over, where the others'
//! logs are cut, what is committed, and when its term is over. The shell in
//! [`wal_proposer`](crate::wal_proposer) talks to the safekeepers and streams the WAL.
//!
//! Invariants:
//! - One vote is asked for per term and proposer, and the term is above all that were seen.
//! - Only members of the newest known configuration count, each by its node *and* its disk.
//! - A log is worth (the last term it reached, its flush LSN): an acceptor that was told of a term
//!   but has not yet received the log up to that term's start does not stand for that term.
//! - `commit_lsn` never falls, and is only set to a position that a quorum has flushed in this
//!   term's history, at or after this term's start.
//! - Once [`Effect::Over`] was given, nothing more is decided.

use protocol::{
    Identity, NodeId, Term,
    quorum::{AcceptorMessage, Configuration, ProposerMessage, Refusal, TermHistory, TermStart},
};
use wal_format::Lsn;

/// A safekeeper, by its place in the proposer's list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer(pub usize);

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A safekeeper said this.
    Message(Peer, AcceptorMessage),
    /// The connection ended, or could not be made.
    Disconnected(Peer),
    /// Safekeepers that have not answered by now are no longer waited for.
    PatienceEnded,
    /// The local WAL is complete up to here: the end of a record.
    Written(Lsn),
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this.
    Send(Peer, ProposerMessage),
    /// Send the WAL from here on, in appends that follow each other, as far as it is written and
    /// for as long as the connection lasts.
    Stream(Peer, Lsn),
    /// End the connection, and make a new one after a while.
    Reconnect(Peer, String),
    /// The election is won, and a quorum has the whole log up to `position` in the new term.
    Established {
        /// The term won.
        term: Term,
        /// Where it begins.
        position: Lsn,
    },
    /// This proposer is at its end.
    Over(Over),
}

/// How a proposer ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Over {
    /// Another proposer holds this term or a higher one; this one was not elected.
    Lost {
        /// The highest term seen.
        known: Term,
    },
    /// This one was elected, and a newer one came.
    Fenced {
        /// The newer term.
        known: Term,
    },
    /// What the safekeepers say cannot be: the sentence says why. Nothing may be built on it.
    Corrupt(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// Collecting greetings.
    Gathering,
    /// Asked for votes.
    Voting,
    /// Elected.
    Leading(Leading),
    /// At the end.
    Over,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Leading {
    /// Where the term begins: the end of the log that was taken over.
    position: Lsn,
    history: TermHistory,
    /// Whether a quorum has reached `position` in this term.
    established: bool,
}

/// What an acceptor's vote says, also one that it gave to another.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Vote {
    granted: bool,
    flush_lsn: Lsn,
    commit_lsn: Lsn,
    /// Only the terms that the log has reached.
    history: TermHistory,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct PeerState {
    /// Greeted, or failed to: not waited for any more.
    answered: bool,
    /// As it greeted, while connected.
    who: Option<(NodeId, Identity)>,
    /// Its answer to the question for a vote in the current term.
    vote: Option<Vote>,
    /// Told of the election on this connection.
    told: bool,
    /// What it has flushed in this term's history; none before it took the election over.
    flush_lsn: Option<Lsn>,
}

/// A proposer for one timeline and at most one won election.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposer {
    origin: Lsn,
    /// The highest term seen anywhere.
    term_seen: Term,
    term: Term,
    configuration: Option<Configuration>,
    peers: Vec<PeerState>,
    patient: bool,
    phase: Phase,
    /// The end of the log: what was taken over, and what was written since.
    log_end: Lsn,
    commit_lsn: Lsn,
}

impl Proposer {
    /// A proposer of a timeline that begins at `origin`, with this many safekeepers to talk to.
    /// Its term will be above `above`.
    pub fn new(origin: Lsn, peers: usize, above: Term) -> Proposer {
        Proposer {
            origin,
            term_seen: above,
            term: Term(0),
            configuration: None,
            peers: vec![PeerState::default(); peers],
            patient: true,
            phase: Phase::Gathering,
            log_end: origin,
            commit_lsn: origin,
        }
    }

    /// The term that this proposer stands or stood for; zero before it asked for votes.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Where the term won begins: the end of the log that was taken over.
    pub fn position(&self) -> Option<Lsn> {
        match &self.phase {
            Phase::Leading(leading) => Some(leading.position),
            _ => None,
        }
    }

    /// The end of the log: what was taken over, and what was written since.
    pub fn log_end(&self) -> Lsn {
        self.log_end
    }

    /// The generation of the configuration that is counted by; 0 while none is known.
    pub fn generation(&self) -> u32 {
        self.configuration.as_ref().map_or(0, |configuration| configuration.generation)
    }

    /// How many members make a quorum; 0 while no configuration is known.
    pub fn quorum(&self) -> usize {
        self.configuration.as_ref().map_or(0, Configuration::quorum)
    }

    /// How far a quorum has flushed.
    pub fn commit_lsn(&self) -> Lsn {
        self.commit_lsn
    }

    /// What each safekeeper has flushed in this term; none where it has not joined the term.
    pub fn flush_lsns(&self) -> Vec<Option<Lsn>> {
        self.peers.iter().map(|peer| peer.flush_lsn).collect()
    }

    /// A safekeeper, other than `except`, whose log in this term reaches `until`.
    pub fn holder(&self, until: Lsn, except: Peer) -> Option<Peer> {
        let holds = |state: &PeerState| state.flush_lsn.is_some_and(|flush| flush >= until);
        (0..self.peers.len())
            .map(Peer)
            .find(|&peer| peer != except && self.peers.get(peer.0).is_some_and(holds))
    }

    /// Takes an event in.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            _ if self.phase == Phase::Over => {}
            Event::Message(peer, message) => self.message(peer, message, &mut effects),
            Event::Disconnected(peer) => {
                self.forget(peer);
                self.start_voting(&mut effects);
            }
            Event::PatienceEnded => {
                self.patient = false;
                self.start_voting(&mut effects);
            }
            Event::Written(end) => self.log_end = self.log_end.max(end),
        }
        effects
    }

    fn message(&mut self, peer: Peer, message: AcceptorMessage, effects: &mut Vec<Effect>) {
        match message {
            AcceptorMessage::Greeting { node, identity, term, configuration } => {
                self.greeted(peer, node, identity, term, configuration, effects);
            }
            AcceptorMessage::Vote { term, granted, flush_lsn, commit_lsn, history } => {
                let history = history.truncated(flush_lsn);
                self.voted(peer, term, Vote { granted, flush_lsn, commit_lsn, history }, effects);
            }
            AcceptorMessage::Flushed { term, flush_lsn } => {
                self.flushed(peer, term, flush_lsn, effects);
            }
            AcceptorMessage::Refused(Refusal::Fenced { known, .. }) => self.end(known, effects),
            AcceptorMessage::Refused(refusal) => {
                self.reconnect(peer, refusal.to_string(), effects);
                self.start_voting(effects);
            }
        }
    }

    fn greeted(
        &mut self,
        peer: Peer,
        node: NodeId,
        identity: Identity,
        term: Term,
        configuration: Option<Configuration>,
        effects: &mut Vec<Effect>,
    ) {
        self.forget(peer);
        // The configuration first: it may make this peer a member, which is then asked below.
        if let Some(configuration) = configuration {
            self.adopt(configuration, effects);
        }
        if let Some(state) = self.peers.get_mut(peer.0) {
            state.who = Some((node, identity));
        }
        self.term_seen = self.term_seen.max(term);
        match &self.phase {
            Phase::Gathering => self.start_voting(effects),
            Phase::Voting if term > self.term => self.ask_for_votes(effects),
            Phase::Leading(_) if term > self.term => self.end(term, effects),
            Phase::Voting | Phase::Leading(_) => self.ask_for_vote(peer, effects),
            Phase::Over => {}
        }
    }

    /// Takes a newer configuration over. Votes that were counted by the older one count no more.
    fn adopt(&mut self, configuration: Configuration, effects: &mut Vec<Effect>) {
        if configuration.generation <= self.generation() {
            return;
        }
        self.configuration = Some(configuration);
        match self.phase {
            Phase::Voting => self.ask_for_votes(effects),
            Phase::Leading(_) => {
                for peer in (0..self.peers.len()).map(Peer) {
                    if self.peers.get(peer.0).is_some_and(|state| state.vote.is_none()) {
                        self.ask_for_vote(peer, effects);
                    }
                }
                self.count_flushed(effects);
            }
            Phase::Gathering | Phase::Over => {}
        }
    }

    /// Stands for election once a quorum is connected, and nobody else is worth waiting for: a term
    /// above those of *all* safekeepers is less likely to be refused by the one that comes late.
    fn start_voting(&mut self, effects: &mut Vec<Effect>) {
        let connected = self.count(|state| state.who.is_some());
        let waiting = self.patient && self.peers.iter().any(|state| !state.answered);
        if self.phase == Phase::Gathering && !waiting && self.is_quorum(connected) {
            self.ask_for_votes(effects);
        }
    }

    fn ask_for_votes(&mut self, effects: &mut Vec<Effect>) {
        let term = self.term_seen.next();
        self.term_seen = term;
        self.term = term;
        self.phase = Phase::Voting;
        for peer in (0..self.peers.len()).map(Peer) {
            if let Some(state) = self.peers.get_mut(peer.0) {
                state.vote = None;
            }
            self.ask_for_vote(peer, effects);
        }
    }

    fn ask_for_vote(&self, peer: Peer, effects: &mut Vec<Effect>) {
        if self.peers.get(peer.0).is_some_and(|state| self.is_member(state)) {
            let (generation, term) = (self.generation(), self.term);
            effects.push(Effect::Send(peer, ProposerMessage::Vote { generation, term }));
        }
    }

    fn voted(&mut self, peer: Peer, term: Term, vote: Vote, effects: &mut Vec<Effect>) {
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        self.term_seen = self.term_seen.max(term);
        if term > self.term {
            return self.end(term, effects);
        }
        // The answer to an earlier question: votes were asked for again in a higher term.
        if term < self.term {
            return;
        }
        state.vote = Some(vote);
        if matches!(self.phase, Phase::Leading(_)) {
            // Whether it gave its vote or not: this term has only one winner.
            return self.tell(peer, effects);
        }
        let said = |granted| {
            self.count(|state| state.vote.as_ref().is_some_and(|vote| vote.granted == granted))
        };
        let members = self.configuration.as_ref().map_or(0, |known| known.members.len());
        if self.is_quorum(said(true)) {
            self.win(effects);
        } else if !self.is_quorum(members - said(false)) {
            self.end(term, effects);
        }
    }

    /// Takes over the best log of the quorum that voted.
    fn win(&mut self, effects: &mut Vec<Effect>) {
        let members = self.peers.iter().filter(|state| self.is_member(state));
        let votes: Vec<&Vote> =
            members.filter_map(|state| state.vote.as_ref()).filter(|vote| vote.granted).collect();
        let worth = |vote: &&&Vote| (vote.history.last_term(), vote.flush_lsn);
        let Some(best) = votes.iter().max_by_key(worth) else { return };
        let position = best.flush_lsn;
        let known_commit = votes.iter().map(|vote| vote.commit_lsn).max().unwrap_or(self.origin);
        if position < known_commit || position < self.origin {
            return self.corrupt(
                format!(
                    "the best log of a quorum ends at {position}, but {} is committed",
                    known_commit.max(self.origin)
                ),
                effects,
            );
        }
        let mut history = best.history.clone();
        if let Err(error) = history.push(TermStart { term: self.term, start: position }) {
            return self.corrupt(format!("term {} at {position}: {error}", self.term), effects);
        }
        self.commit_lsn = self.commit_lsn.max(known_commit);
        self.log_end = position;
        self.phase = Phase::Leading(Leading { position, history, established: false });
        for peer in (0..self.peers.len()).map(Peer) {
            self.tell(peer, effects);
        }
    }

    /// Tells a member that voted of the election, cuts its log to what is common, and streams.
    fn tell(&mut self, peer: Peer, effects: &mut Vec<Effect>) {
        let generation = self.generation();
        let (Phase::Leading(leading), Some(state)) = (&self.phase, self.peers.get(peer.0)) else {
            return;
        };
        let Some(vote) = &state.vote else { return };
        if state.told || !self.is_member(state) {
            return;
        }
        // The acceptor comes to the same by the same rule, and would refuse another position.
        let start =
            vote.history.common_end(vote.flush_lsn, &leading.history, Lsn::MAX, self.origin);
        let (term, history) = (self.term, leading.history.clone());
        let elected = ProposerMessage::Elected { generation, term, start, history };
        effects.push(Effect::Send(peer, elected));
        effects.push(Effect::Stream(peer, start));
        if let Some(state) = self.peers.get_mut(peer.0) {
            state.told = true;
        }
    }

    /// The term that wrote the last byte of the log that was taken over: terms that wrote nothing are
    /// passed over. Zero where nobody has written.
    pub fn wrote_last(&self) -> Term {
        let Phase::Leading(leading) = &self.phase else { return Term(0) };
        let mut entries = leading.history.entries().iter().rev();
        let wrote = entries.find(|entry| entry.start < leading.position);
        wrote.map_or(Term(0), |entry| entry.term)
    }

    fn flushed(&mut self, peer: Peer, term: Term, flush_lsn: Lsn, effects: &mut Vec<Effect>) {
        let Phase::Leading(_) = &self.phase else {
            return self.reconnect(peer, "an answer to nothing".to_owned(), effects);
        };
        if term > self.term {
            return self.end(term, effects);
        }
        let Some(state) = self.peers.get_mut(peer.0) else { return };
        let falls = state.flush_lsn.is_some_and(|before| flush_lsn < before);
        if term < self.term || !state.told || falls || flush_lsn > self.log_end {
            let why = format!(
                "flushed {flush_lsn} in term {term}: before it was {:?}, the log ends at {}",
                state.flush_lsn, self.log_end
            );
            return self.reconnect(peer, why, effects);
        }
        state.flush_lsn = Some(flush_lsn);
        self.count_flushed(effects);
    }

    /// Commits what a quorum has flushed in this term.
    fn count_flushed(&mut self, effects: &mut Vec<Effect>) {
        let mut flushed: Vec<Lsn> = self
            .peers
            .iter()
            .filter(|state| self.is_member(state))
            .filter_map(|state| state.flush_lsn)
            .collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = self.quorum();
        let Some(&reached) = quorum.checked_sub(1).and_then(|index| flushed.get(index)) else {
            return;
        };
        let Phase::Leading(leading) = &mut self.phase else { return };
        // An older term's bytes are committed only together with this term's start: before it, a
        // log of a term in between could still be elected and overwrite them.
        if reached < leading.position {
            return;
        }
        if !leading.established {
            leading.established = true;
            let position = leading.position;
            effects.push(Effect::Established { term: self.term, position });
        }
        self.commit_lsn = self.commit_lsn.max(reached);
    }

    fn end(&mut self, known: Term, effects: &mut Vec<Effect>) {
        self.term_seen = self.term_seen.max(known);
        let over = match &self.phase {
            Phase::Leading(_) if known > self.term => Over::Fenced { known },
            Phase::Leading(_) => return,
            _ => Over::Lost { known: self.term_seen },
        };
        self.phase = Phase::Over;
        effects.push(Effect::Over(over));
    }

    fn corrupt(&mut self, why: String, effects: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        effects.push(Effect::Over(Over::Corrupt(why)));
    }

    fn reconnect(&mut self, peer: Peer, why: String, effects: &mut Vec<Effect>) {
        self.forget(peer);
        effects.push(Effect::Reconnect(peer, why));
    }

    /// Nothing is known of a safekeeper between two connections: it may have lost its disk.
    fn forget(&mut self, peer: Peer) {
        if let Some(state) = self.peers.get_mut(peer.0) {
            *state = PeerState { answered: true, ..PeerState::default() };
        }
    }

    fn is_member(&self, state: &PeerState) -> bool {
        let Some(configuration) = &self.configuration else { return false };
        state.who.is_some_and(|(node, identity)| configuration.admits(node, identity))
    }

    fn count(&self, is: impl Fn(&PeerState) -> bool) -> usize {
        let mut seen: Vec<_> = self
            .peers
            .iter()
            .filter(|state| self.is_member(state) && is(state))
            .filter_map(|state| state.who)
            .collect();
        // Two addresses of one safekeeper are one member.
        seen.sort_unstable();
        seen.dedup();
        seen.len()
    }

    fn is_quorum(&self, members: usize) -> bool {
        self.configuration.is_some() && members >= self.quorum()
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
