//! Proposers and acceptors as they are, in a world that cuts their connections, crashes acceptors
//! between two writes to their disk, and starts a second proposer while the first still writes.
//!
//! Checked after each step: what a proposer calls committed never differs from what any other ever
//! called committed; who is elected has all of it.

use std::collections::VecDeque;

use bytes::Bytes;
use protocol::quorum::Member;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use safekeeper::acceptor::{
    Acceptor, AcceptorState, ConnectionId, Effect as AcceptorEffect, Event as AcceptorEvent,
};
use wal_format::{Version, WalReader};

use super::*;
use crate::test_wal::{TestWal, origin_at};

const BEGIN: Lsn = Lsn(0x0200_1FA0);
const PEERS: usize = 3;
const SEEDS: u64 = 400;
const STEPS: usize = 1500;

/// An acceptor and its disk.
struct Keeper {
    me: Member,
    acceptor: Acceptor,
    state: AcceptorState,
    wal: Vec<u8>,
}

/// A proposer and what its shell knows.
struct Writer {
    proposer: Proposer,
    nonce: u128,
    /// What was written in its term.
    wal: Option<TestWal>,
    next: [Option<Lsn>; PEERS],
}

enum ToKeeper {
    Hello,
    Message(ProposerMessage, Bytes),
}

struct Connection {
    id: ConnectionId,
    to_keeper: VecDeque<ToKeeper>,
    to_writer: VecDeque<AcceptorMessage>,
}

struct World {
    random: StdRng,
    keepers: Vec<Keeper>,
    writers: Vec<Writer>,
    connections: Vec<Vec<Option<Connection>>>,
    /// The bytes from `BEGIN` on that were ever called committed.
    committed: Vec<u8>,
    next_id: u64,
    elections: usize,
    faults: bool,
}

fn members() -> Configuration {
    let member =
        |node| Member { node: NodeId(node), identity: Identity::from_bits(u128::from(node)) };
    Configuration { generation: 1, members: (0..PEERS as u32).map(member).collect() }
}

impl Keeper {
    fn new(me: Member) -> Keeper {
        let state = AcceptorState::new(origin_at(BEGIN), members());
        let acceptor = Acceptor::new(me, Version::V15, state.clone());
        Keeper { me, acceptor, state, wal: Vec::new() }
    }

    /// Starts again from the disk.
    fn crash(&mut self) {
        self.acceptor = Acceptor::new(self.me, Version::V15, self.state.clone());
        self.state = self.acceptor.state().clone();
        self.wal.truncate(self.state.flush_lsn.since(BEGIN) as usize);
    }

    fn persist(&mut self, effect: &AcceptorEffect) {
        match effect {
            AcceptorEffect::PersistState(state) => {
                self.state = AcceptorState::clone(state);
                self.wal.truncate(state.end_lsn.since(BEGIN) as usize);
            }
            AcceptorEffect::PersistWal { begin, flush_lsn, commit_lsn, wal } => {
                assert_eq!(begin.since(BEGIN) as usize, self.wal.len(), "WAL has no gaps");
                self.wal.extend_from_slice(wal);
                self.state.flush_lsn = *flush_lsn;
                self.state.commit_lsn = *commit_lsn;
                self.state.end_lsn = *begin + wal.len() as u64;
            }
            AcceptorEffect::Reply { .. } => {}
        }
    }

    /// What a reader with `ReadLimit::Flush` is served, where this log is the one asked for.
    fn log(&self, term: Term, until: Lsn) -> Option<&[u8]> {
        let history = self.state.log_history();
        let entries = history.entries();
        let index = entries.iter().position(|entry| entry.term == term && entry.start <= until)?;
        let reached = entries.get(index + 1).map_or(self.state.flush_lsn, |next| next.start);
        (reached >= until).then(|| &self.wal[..until.since(BEGIN) as usize])
    }
}

impl World {
    fn new(seed: u64) -> World {
        World {
            random: StdRng::seed_from_u64(seed),
            keepers: members().members.into_iter().map(Keeper::new).collect(),
            writers: Vec::new(),
            connections: Vec::new(),
            committed: Vec::new(),
            next_id: 0,
            elections: 0,
            faults: true,
        }
    }

    fn start_writer(&mut self) -> usize {
        let above = Term(self.random.random_range(0..3));
        self.writers.push(Writer {
            proposer: Proposer::new(BEGIN, PEERS, above),
            nonce: self.random.random(),
            wal: None,
            next: [None; PEERS],
        });
        self.connections.push((0..PEERS).map(|_| None).collect());
        self.writers.len() - 1
    }

    /// The two that came last are alive; the others are gone without a word.
    fn live(&self) -> std::ops::Range<usize> {
        self.writers.len().saturating_sub(2)..self.writers.len()
    }

    fn connect(&mut self, writer: usize, peer: usize) {
        if self.connections[writer][peer].is_none() {
            self.next_id += 1;
            self.connections[writer][peer] = Some(Connection {
                id: ConnectionId(self.next_id),
                to_keeper: VecDeque::from([ToKeeper::Hello]),
                to_writer: VecDeque::new(),
            });
        }
    }

    fn cut(&mut self, writer: usize, peer: usize) {
        if let Some(connection) = self.connections[writer][peer].take() {
            self.keepers[peer].acceptor.step(AcceptorEvent::Disconnected(connection.id));
            self.writers[writer].next[peer] = None;
            self.step(writer, Event::Disconnected(Peer(peer)));
        }
    }

    fn crash(&mut self, peer: usize) {
        self.keepers[peer].crash();
        for writer in 0..self.writers.len() {
            self.cut(writer, peer);
        }
    }

    fn step(&mut self, writer: usize, event: Event) {
        let effects = self.writers[writer].proposer.step(event);
        for effect in effects {
            match effect {
                Effect::Send(peer, message) => self.send(writer, peer.0, message, Bytes::new()),
                Effect::Stream(peer, from) => self.writers[writer].next[peer.0] = Some(from),
                Effect::Reconnect(peer, _) => self.cut(writer, peer.0),
                Effect::Established { term, position } => self.established(writer, term, position),
                Effect::Over(Over::Corrupt(why)) => panic!("{why}"),
                Effect::Over(_) => {}
            }
        }
        self.check_commit(writer);
    }

    fn send(&mut self, writer: usize, peer: usize, message: ProposerMessage, wal: Bytes) {
        if let Some(connection) = &mut self.connections[writer][peer] {
            connection.to_keeper.push_back(ToKeeper::Message(message, wal));
        }
    }

    fn established(&mut self, writer: usize, term: Term, position: Lsn) {
        self.elections += 1;
        assert!(position.since(BEGIN) as usize >= self.committed.len(), "a commit was lost");
        let Some(log) = self.keepers.iter().find_map(|keeper| keeper.log(term, position)) else {
            // A newer proposer has won meanwhile, from another log; this one can commit no more.
            return;
        };
        let origin = origin_at(BEGIN);
        let prev = origin.point.last_record;
        let mut reader = WalReader::new(Version::V15, origin.segment_bytes, BEGIN, Some(prev));
        reader.feed(BEGIN, log).expect("it is fed from its start");
        while reader.next_record().expect("the log is valid").is_some() {}
        assert_eq!(reader.record_end(), position, "a term begins at a record's end");
        let last_record = reader.last_record().expect("there is one before the origin");
        self.writers[writer].wal = Some(TestWal::new(position, last_record, term.0 as i64));
    }

    /// What this writer calls committed is what all others do.
    fn check_commit(&mut self, writer: usize) {
        let writer = &self.writers[writer];
        let commit = writer.proposer.commit_lsn();
        let Some(wal) = writer.wal.as_ref().filter(|wal| commit >= wal.begin) else { return };
        let term = writer.proposer.term();
        let holders: Vec<&[u8]> =
            self.keepers.iter().filter_map(|keeper| keeper.log(term, commit)).collect();
        assert!(holders.len() > PEERS / 2, "a quorum that had it has cut it");
        let log = holders[0];
        let own = &wal.bytes[..commit.since(wal.begin) as usize];
        assert!(log.ends_with(own), "another history than the proposer's own is committed");
        let shared = log.len().min(self.committed.len());
        assert!(log[..shared] == self.committed[..shared], "two histories are committed");
        if log.len() > shared {
            self.committed.extend_from_slice(&log[shared..]);
        }
    }

    fn deliver_to_keeper(&mut self, writer: usize, peer: usize) {
        let Some(connection) = &mut self.connections[writer][peer] else { return };
        let Some(message) = connection.to_keeper.pop_front() else { return };
        let id = connection.id;
        let (keeper, proposer) = (&mut self.keepers[peer], self.writers[writer].nonce);
        let event = match message {
            ToKeeper::Hello => {
                connection.to_writer.push_back(AcceptorMessage::Greeting {
                    node: keeper.me.node,
                    identity: keeper.me.identity,
                    term: keeper.state.term,
                    configuration: Some(keeper.state.configuration.clone()),
                });
                return;
            }
            // The proposer decides nothing by it.
            ToKeeper::Message(ProposerMessage::Renew { .. }, _) => return,
            ToKeeper::Message(ProposerMessage::Vote { generation, term }, _) => {
                AcceptorEvent::Vote { connection: id, proposer, generation, term }
            }
            ToKeeper::Message(ProposerMessage::Elected { generation, term, start, history }, _) => {
                AcceptorEvent::Elected {
                    connection: id,
                    proposer,
                    generation,
                    term,
                    start,
                    history,
                }
            }
            ToKeeper::Message(
                ProposerMessage::Append { generation, term, begin, commit_lsn },
                wal,
            ) => AcceptorEvent::Append { connection: id, generation, term, begin, commit_lsn, wal },
        };
        let effects = keeper.acceptor.step(event);
        for effect in effects {
            if self.faults && self.random.random_ratio(1, 200) {
                return self.crash(peer);
            }
            self.keepers[peer].persist(&effect);
            if let AcceptorEffect::Reply { to, message } = effect {
                self.reply(peer, to, message);
            }
        }
    }

    fn reply(&mut self, peer: usize, to: ConnectionId, message: AcceptorMessage) {
        let mut connections = self.connections.iter_mut().filter_map(|peers| peers[peer].as_mut());
        if let Some(connection) = connections.find(|connection| connection.id == to) {
            if matches!(message, AcceptorMessage::Refused(_)) {
                connection.to_keeper.clear();
            }
            connection.to_writer.push_back(message);
        }
    }

    fn deliver_to_writer(&mut self, writer: usize, peer: usize) {
        let Some(connection) = &mut self.connections[writer][peer] else { return };
        let Some(message) = connection.to_writer.pop_front() else { return };
        let refused = matches!(message, AcceptorMessage::Refused(_));
        self.step(writer, Event::Message(Peer(peer), message));
        if refused {
            self.cut(writer, peer);
        }
    }

    fn write(&mut self, writer: usize) {
        if let Some(wal) = &mut self.writers[writer].wal {
            let end = wal.record();
            self.step(writer, Event::Written(end));
        }
    }

    /// Sends a part of what is due, or a heartbeat.
    fn append(&mut self, writer: usize, peer: usize) {
        let Writer { proposer, wal, next, .. } = &self.writers[writer];
        let (Some(begin), Some(position)) = (next[peer], proposer.position()) else { return };
        let due = if begin < position {
            let holder = proposer.holder(position, Peer(peer));
            let log = holder.and_then(|it| self.keepers[it.0].log(proposer.term(), position));
            log.map_or(&[][..], |log| &log[begin.since(BEGIN) as usize..])
        } else {
            wal.as_ref().map_or(&[][..], |wal| wal.from(begin))
        };
        let sent = due.len().min(self.random.random_range(0..600));
        let wal = Bytes::copy_from_slice(&due[..sent]);
        let message = ProposerMessage::Append {
            generation: proposer.generation(),
            term: proposer.term(),
            begin,
            commit_lsn: proposer.commit_lsn(),
        };
        self.writers[writer].next[peer] = Some(begin + sent as u64);
        self.send(writer, peer, message, wal);
    }

    fn anything(&mut self) {
        let live: Vec<usize> = self.live().collect();
        let Some(&writer) = live.choose(&mut self.random) else { return };
        let peer = self.random.random_range(0..PEERS);
        match self.random.random_range(0..1000) {
            0..3 if self.faults => drop(self.start_writer()),
            3..6 if self.faults => self.crash(peer),
            6..20 if self.faults => self.cut(writer, peer),
            20..40 => self.step(writer, Event::PatienceEnded),
            40..120 => self.connect(writer, peer),
            120..200 => self.write(writer),
            200..400 => self.append(writer, peer),
            400..700 => self.deliver_to_writer(writer, peer),
            _ => self.deliver_to_keeper(writer, peer),
        }
    }

    /// Without faults a new proposer wins, and all acceptors come to hold its log.
    fn settle(&mut self) {
        self.faults = false;
        for _ in 0..50 {
            let last = self.start_writer();
            for _ in 0..20_000 {
                self.anything();
                let writer = &self.writers[last].proposer;
                let end = writer.log_end();
                let complete = |keeper: &Keeper| keeper.log(writer.term(), end).is_some();
                if writer.position().is_some_and(|position| end > position)
                    && self.keepers.iter().all(complete)
                    && writer.commit_lsn() == end
                {
                    return;
                }
            }
        }
        panic!("nothing is committed although nothing fails");
    }
}

#[test]
fn no_committed_byte_is_lost_and_no_two_are_committed_at_one_position() {
    let (mut elections, mut committed) = (0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.start_writer();
        for _ in 0..STEPS {
            world.anything();
        }
        world.settle();
        elections += world.elections;
        committed += world.committed.len();
    }
    // The world is not so bad that nothing happens in it.
    assert!(elections > 2 * SEEDS as usize, "{elections} elections");
    assert!(committed > 1000 * SEEDS as usize, "{committed} bytes committed");
}
