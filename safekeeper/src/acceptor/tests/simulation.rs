//! Three acceptors, proposers that come and go, crashes, and disks that are lost and replaced, in any order. After
//! each action: what was committed once is on a quorum of disks, byte by byte, and nobody commits anything else.

use proptest::prelude::*;

use super::*;

const NODES: usize = 3;
const LEADERS: usize = 4;
/// The connection of those who want no answer.
const NOBODY: ConnectionId = ConnectionId(0);

/// A node with its disk, and the bytes that are on it.
struct Node {
    me: Member,
    /// None between the loss of a disk and the end of its successor's recovery.
    acceptor: Option<Acceptor>,
    log: Vec<u8>,
}

/// A proposer that was elected.
struct Leader {
    id: u128,
    term: Term,
    generation: u32,
    history: TermHistory,
    log: Vec<u8>,
    writer: WalWriter,
    /// Where its term begins.
    start: Lsn,
    links: [Option<Link>; NODES],
    is_over: bool,
}

#[derive(Clone, Copy)]
struct Link {
    connection: ConnectionId,
    disk: Identity,
    sent: Lsn,
    acknowledged: Lsn,
}

struct World {
    nodes: Vec<Node>,
    leaders: Vec<Leader>,
    configuration: Configuration,
    /// Nodes that took the newest configuration over.
    configured: [bool; NODES],
    committed: Vec<u8>,
    next_id: u64,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Elect { voters: [bool; NODES] },
    Join { leader: usize, node: usize },
    Write { leader: usize, bytes: usize },
    Send { leader: usize, node: usize, bytes: usize },
    Crash { node: usize },
    LoseDisk { node: usize },
    Admit,
    Configure { node: usize },
    Recover,
}

fn action() -> impl Strategy<Value = Action> {
    let both = (0..LEADERS, 0..NODES);
    prop_oneof![
        2 => any::<[bool; NODES]>().prop_map(|voters| Action::Elect { voters }),
        4 => both.clone().prop_map(|(leader, node)| Action::Join { leader, node }),
        4 => (0..LEADERS, 1..9000usize)
            .prop_map(|(leader, bytes)| Action::Write { leader, bytes }),
        8 => (both, 1..12_000usize)
            .prop_map(|((leader, node), bytes)| Action::Send { leader, node, bytes }),
        1 => (0..NODES).prop_map(|node| Action::Crash { node }),
        1 => (0..NODES).prop_map(|node| Action::LoseDisk { node }),
        2 => Just(Action::Admit),
        3 => (0..NODES).prop_map(|node| Action::Configure { node }),
        2 => Just(Action::Recover),
    ]
}

impl World {
    fn new() -> World {
        let members: Vec<_> = (0..NODES as u32).map(|node| member(node, node.into())).collect();
        let configuration = configuration(1, members.clone());
        let nodes = members.into_iter().map(|me| {
            let state = AcceptorState::new(origin(), configuration.clone());
            let acceptor = Some(Acceptor::new(me, Version::V15, state));
            Node { me, acceptor, log: Vec::new() }
        });
        World {
            nodes: nodes.collect(),
            leaders: Vec::new(),
            configuration,
            configured: [true; NODES],
            committed: Vec::new(),
            next_id: 100,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Elect { voters } => self.elect(voters),
            Action::Join { leader, node } => self.join(leader, node),
            Action::Write { leader, bytes } => {
                if let Some(leader) = self.leader(leader) {
                    let content = vec![leader.term.0 as u8; bytes];
                    let record = leader.writer.record(&content);
                    leader.log.extend_from_slice(&record);
                }
            }
            Action::Send { leader, node, bytes } => self.send(leader, node, bytes),
            Action::Crash { node } => self.crash(node),
            Action::LoseDisk { node } => self.lose_disk(node),
            Action::Admit => self.admit(),
            Action::Configure { node } => {
                self.step(node, Event::Configure(self.configuration.clone()), NOBODY);
                self.configured[node] = true;
            }
            Action::Recover => self.recover(),
        }
        self.check();
    }

    fn leader(&mut self, index: usize) -> Option<&mut Leader> {
        self.leaders.get_mut(index).filter(|leader| !leader.is_over)
    }

    /// Carries an event to a node, and its effects out; the last answer on this connection.
    fn step(&mut self, node: usize, event: Event, to: ConnectionId) -> Option<AcceptorMessage> {
        let node = &mut self.nodes[node];
        let mut answer = None;
        for effect in node.acceptor.as_mut()?.step(event) {
            match effect {
                Effect::PersistState(state) => {
                    node.log.truncate(state.end_lsn.since(BEGIN) as usize);
                }
                Effect::PersistWal { begin, wal, .. } => {
                    assert_eq!(begin, BEGIN + node.log.len() as u64);
                    node.log.extend_from_slice(&wal);
                }
                Effect::Reply { to: other, message } if other == to => answer = Some(message),
                Effect::Reply { .. } => {}
            }
        }
        answer
    }

    fn elect(&mut self, voters: [bool; NODES]) {
        let (id, connection) = (u128::from(self.fresh()), ConnectionId(self.fresh()));
        let generation = self.configuration.generation;
        let terms = self.nodes.iter().zip(voters).filter(|(_, votes)| *votes);
        let terms = terms.filter_map(|(node, _)| Some(node.acceptor.as_ref()?.state().term));
        let term = terms.max().unwrap_or(Term(0)).next();
        let mut votes = Vec::new();
        for node in (0..NODES).filter(|&node| voters[node]) {
            // A member that counts by an older configuration reads the newest one first.
            self.step(node, Event::Configure(self.configuration.clone()), NOBODY);
            let vote = Event::Vote { connection, proposer: id, generation, term };
            if let Some(AcceptorMessage::Vote { granted: true, flush_lsn, history, .. }) =
                self.step(node, vote, connection)
            {
                votes.push((history.last_term(), flush_lsn, node, history));
            }
        }
        if votes.len() < self.configuration.quorum() {
            return;
        }
        let best = votes.into_iter().max_by_key(|(last, flush, ..)| (*last, *flush));
        let (_, start, node, mut history) = best.expect("a quorum is not empty");
        history.push(TermStart { term, start }).expect("the term is above all that voted");
        let log = self.nodes[node].log[..start.since(BEGIN) as usize].to_vec();
        let writer = WalWriter::new(start, last_record(&log));
        let links = [None; NODES];
        let leader =
            Leader { id, term, generation, history, log, writer, start, links, is_over: false };
        if self.leaders.len() == LEADERS {
            self.leaders.remove(0);
        }
        self.leaders.push(leader);
    }

    fn join(&mut self, index: usize, node: usize) {
        let connection = ConnectionId(self.fresh());
        let newest = self.configuration.clone();
        let Some(leader) = self.leader(index) else { return };
        // It learns of the newest configuration when it connects, and forgets disks that are no members any more.
        leader.generation = newest.generation;
        for (link, member) in leader.links.iter_mut().zip(&newest.members) {
            *link = link.filter(|link| link.disk == member.identity);
        }
        let (id, term, generation) = (leader.id, leader.term, leader.generation);
        let history = leader.history.clone();
        self.step(node, Event::Configure(newest), NOBODY);
        let vote = Event::Vote { connection, proposer: id, generation, term };
        let Some(AcceptorMessage::Vote { term: known, flush_lsn, history: theirs, .. }) =
            self.step(node, vote, connection)
        else {
            return;
        };
        if known > term {
            self.leaders[index].is_over = true;
            return;
        }
        let start = theirs.common_end(flush_lsn, &history, Lsn::MAX, BEGIN);
        let told = Event::Elected { connection, proposer: id, generation, term, start, history };
        match self.step(node, told, connection) {
            Some(AcceptorMessage::Flushed { flush_lsn, .. }) => {
                assert_eq!(flush_lsn, start);
                let disk = self.nodes[node].me.identity;
                let link = Link { connection, disk, sent: start, acknowledged: start };
                self.leaders[index].links[node] = Some(link);
                self.count(index);
            }
            other => panic!("an elected proposer with the right start was answered {other:?}"),
        }
    }

    fn send(&mut self, index: usize, node: usize, bytes: usize) {
        let commit_lsn = self.committed_by(index);
        let Some(leader) = self.leader(index) else { return };
        let Some(link) = leader.links[node] else { return };
        let from = link.sent.since(BEGIN) as usize;
        let wal = &leader.log[from..leader.log.len().min(from + bytes)];
        let end = link.sent + wal.len() as u64;
        let event = Event::Append {
            connection: link.connection,
            generation: leader.generation,
            term: leader.term,
            begin: link.sent,
            commit_lsn,
            wal: Bytes::copy_from_slice(wal),
        };
        match self.step(node, event, link.connection) {
            Some(AcceptorMessage::Flushed { flush_lsn, .. }) => {
                let link = Link { sent: end, acknowledged: flush_lsn, ..link };
                self.leaders[index].links[node] = Some(link);
                self.count(index);
            }
            Some(AcceptorMessage::Refused(Refusal::Fenced { .. })) => {
                self.leaders[index].is_over = true;
            }
            // The connection is over; what it acknowledged stays acknowledged.
            _ => self.leaders[index].links[node] = Some(Link { connection: NOBODY, ..link }),
        }
    }

    fn committed_by(&self, index: usize) -> Lsn {
        let Some(leader) = self.leaders.get(index) else { return Lsn::INVALID };
        let acknowledged = leader.links.iter().flatten().map(|link| link.acknowledged);
        let mut acknowledged: Vec<Lsn> = acknowledged.collect();
        acknowledged.sort_unstable_by(|one, other| other.cmp(one));
        let by_quorum = acknowledged.get(self.configuration.quorum() - 1);
        by_quorum.copied().filter(|&lsn| lsn >= leader.start).unwrap_or(Lsn::INVALID)
    }

    /// Commits what a quorum has acknowledged to the leader, and holds it against what was committed before.
    fn count(&mut self, index: usize) {
        let commit_lsn = self.committed_by(index);
        let newly = &self.leaders[index].log[..commit_lsn.since(BEGIN) as usize];
        let both = newly.len().min(self.committed.len());
        assert!(newly[..both] == self.committed[..both], "two proposers committed different WAL");
        if newly.len() > self.committed.len() {
            self.committed = newly.to_vec();
        }
    }

    fn crash(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(acceptor) = node.acceptor.take() {
            let state = acceptor.state().clone();
            node.log.truncate(state.flush_lsn.since(BEGIN) as usize);
            node.acceptor = Some(Acceptor::new(node.me, Version::V15, state));
        }
    }

    /// One disk at a time is lost: two at once are more than a quorum of three can bear.
    fn lose_disk(&mut self, lost: usize) {
        if self.lost().is_some() {
            return;
        }
        let identity = Identity::from_bits(u128::from(self.fresh()));
        let node = &mut self.nodes[lost];
        *node = Node { me: Member { identity, ..node.me }, acceptor: None, log: Vec::new() };
    }

    fn lost(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.acceptor.is_none())
    }

    fn admit(&mut self) {
        let Some(lost) = self.lost() else { return };
        let me = self.nodes[lost].me;
        if !self.configuration.admits(me.node, me.identity) {
            self.configuration.generation += 1;
            self.configuration.members[lost] = me;
            self.configured = [false; NODES];
        }
    }

    fn recover(&mut self) {
        let Some(lost) = self.lost() else { return };
        let me = self.nodes[lost].me;
        let others: Vec<usize> = (0..NODES).filter(|&node| node != lost).collect();
        let is_admitted = self.configuration.admits(me.node, me.identity);
        if !is_admitted || !others.iter().all(|&node| self.configured[node]) {
            return;
        }
        let state = |node: usize| self.nodes[node].acceptor.as_ref().map(Acceptor::state);
        let states: Vec<_> =
            others.iter().filter_map(|&node| state(node).map(|state| (node, state))).collect();
        let term = states.iter().map(|(_, state)| state.term).max().expect("there are others");
        let worth = |state: &AcceptorState| (state.log_history().last_term(), state.flush_lsn);
        let best = states.iter().max_by_key(|(_, state)| worth(state));
        let &(donor, best) = best.expect("there are others");
        let state = AcceptorState {
            configuration: self.configuration.clone(),
            term,
            voted_for: None,
            history: best.log_history(),
            end_lsn: best.flush_lsn,
            ..best.clone()
        };
        let log = self.nodes[donor].log[..best.flush_lsn.since(BEGIN) as usize].to_vec();
        let acceptor = Some(Acceptor::new(me, Version::V15, state));
        self.nodes[lost] = Node { me, acceptor, log };
    }

    fn check(&self) {
        let holds = |node: &&Node| {
            node.acceptor.as_ref().is_some_and(|acceptor| {
                let flushed = acceptor.state().flush_lsn.since(BEGIN) as usize;
                assert!(flushed <= node.log.len(), "what is flushed is on disk");
                node.log[..flushed].starts_with(&self.committed)
            })
        };
        let holders = self.nodes.iter().filter(holds).count();
        let lost = usize::from(self.lost().is_some());
        assert!(holders + lost >= 2, "what is committed is on {holders} disks, {lost} are lost");
        assert!(holders >= 1, "what is committed is nowhere");
    }
}

/// The start of the last record of a log, by reading it.
fn last_record(log: &[u8]) -> Lsn {
    let origin = origin();
    let (begin, last) = (origin.point.lsn, origin.point.last_record);
    let mut reader = WalReader::new(Version::V15, origin.segment_bytes, begin, Some(last));
    reader.feed(begin, log).expect("the log is contiguous");
    while reader.next_record().expect("the log is whole").is_some() {}
    assert_eq!(reader.record_end(), begin + log.len() as u64);
    reader.last_record().expect("the origin has one")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_committed_stays_committed(actions in prop::collection::vec(action(), 1..150)) {
        let mut world = World::new();
        for action in actions {
            world.act(action);
        }
    }
}
