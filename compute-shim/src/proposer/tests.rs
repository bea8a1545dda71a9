use protocol::quorum::Member;

use super::*;

const ORIGIN: Lsn = Lsn(1000);

fn identity(bits: u128) -> Identity {
    Identity::from_bits(bits)
}

fn configuration(generation: u32, identities: &[u128]) -> Configuration {
    let member = |(node, &bits)| Member { node: NodeId(node), identity: identity(bits) };
    Configuration { generation, members: (0..).zip(identities).map(member).collect() }
}

fn history(entries: &[(u64, u64)]) -> TermHistory {
    let start = |&(term, start)| TermStart { term: Term(term), start: Lsn(start) };
    let entries: Vec<_> = entries.iter().map(start).collect();
    TermHistory::try_from(entries).expect("the test's history is in order")
}

fn greeting(peer: usize, term: u64) -> Event {
    greeting_of(peer, peer as u128, term, configuration(1, &[0, 1, 2]))
}

fn greeting_of(peer: usize, disk: u128, term: u64, configuration: Configuration) -> Event {
    let greeting = AcceptorMessage::Greeting {
        node: NodeId(peer as u32),
        identity: identity(disk),
        term: Term(term),
        configuration: Some(configuration),
    };
    Event::Message(Peer(peer), greeting)
}

fn vote(peer: usize, term: u64, flush: u64, commit: u64, terms: &[(u64, u64)]) -> Event {
    let vote = AcceptorMessage::Vote {
        term: Term(term),
        granted: true,
        flush_lsn: Lsn(flush),
        commit_lsn: Lsn(commit),
        history: history(terms),
    };
    Event::Message(Peer(peer), vote)
}

fn refusal(peer: usize, term: u64) -> Event {
    let vote = AcceptorMessage::Vote {
        term: Term(term),
        granted: false,
        flush_lsn: ORIGIN,
        commit_lsn: ORIGIN,
        history: TermHistory::default(),
    };
    Event::Message(Peer(peer), vote)
}

fn flushed(peer: usize, term: u64, flush: u64) -> Event {
    let flushed = AcceptorMessage::Flushed { term: Term(term), flush_lsn: Lsn(flush) };
    Event::Message(Peer(peer), flushed)
}

fn new() -> Proposer {
    Proposer::new(ORIGIN, 3, Term(0))
}

fn run(proposer: &mut Proposer, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
    events.into_iter().flat_map(|event| proposer.step(event)).collect()
}

fn starts(effects: &[Effect]) -> Vec<(usize, u64)> {
    let start = |effect: &Effect| match effect {
        Effect::Send(peer, ProposerMessage::Elected { start, .. }) => Some((peer.0, start.0)),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

/// Elected in term 6 with a log that ends at 1500.
fn leader() -> Proposer {
    let mut proposer = new();
    let terms = [(5, 1000)];
    run(&mut proposer, (0..3).map(|peer| greeting(peer, 5)));
    run(&mut proposer, [vote(0, 6, 1500, 1400, &terms), vote(1, 6, 1500, 1400, &terms)]);
    proposer
}

#[test]
fn the_term_asked_for_is_above_all_that_greeted() {
    let mut proposer = new();
    assert_eq!(run(&mut proposer, [greeting(0, 3), greeting(1, 9)]), []);
    let effects = run(&mut proposer, [greeting(2, 7)]);
    let asked = ProposerMessage::Vote { generation: 1, term: Term(10) };
    let sends: Vec<_> = (0..3).map(|peer| Effect::Send(Peer(peer), asked.clone())).collect();
    assert_eq!(effects, sends);
}

#[test]
fn a_quorum_suffices_when_the_third_failed_or_patience_ended() {
    for gone in [Event::Disconnected(Peer(1)), Event::PatienceEnded] {
        let mut proposer = new();
        assert_eq!(run(&mut proposer, [greeting(0, 3), greeting(2, 3)]), []);
        assert_eq!(run(&mut proposer, [gone]).len(), 2);
    }
}

#[test]
fn one_of_three_never_stands_for_election() {
    let mut proposer = new();
    let gone = [Event::Disconnected(Peer(1)), Event::Disconnected(Peer(2)), Event::PatienceEnded];
    assert_eq!(run(&mut proposer, [greeting(0, 3)].into_iter().chain(gone)), []);
}

#[test]
fn the_log_of_the_highest_term_is_taken_over_and_the_others_are_cut() {
    let mut proposer = new();
    run(&mut proposer, (0..3).map(|peer| greeting(peer, 5)));
    let effects = run(
        &mut proposer,
        [vote(0, 6, 2000, 1000, &[(3, 1000)]), vote(1, 6, 1700, 1200, &[(3, 1000), (5, 1500)])],
    );
    assert_eq!(starts(&effects), [(0, 1500), (1, 1700)]);
    assert_eq!((proposer.position(), proposer.commit_lsn()), (Some(Lsn(1700)), Lsn(1200)));
}

#[test]
fn an_acceptor_that_was_only_told_of_a_term_does_not_stand_for_it() {
    let mut proposer = new();
    run(&mut proposer, (0..3).map(|peer| greeting(peer, 5)));
    let told = [(4, 1000), (5, 1500)];
    let effects =
        run(&mut proposer, [vote(0, 6, 1100, 1000, &told), vote(1, 6, 1500, 1500, &[(4, 1000)])]);
    assert_eq!(starts(&effects), [(0, 1100), (1, 1500)]);
}

#[test]
fn the_takeover_is_committed_without_a_new_byte() {
    let mut proposer = leader();
    assert_eq!(run(&mut proposer, [flushed(0, 6, 1500)]), []);
    let established = Effect::Established { term: Term(6), position: Lsn(1500) };
    assert_eq!(run(&mut proposer, [flushed(1, 6, 1500)]), [established]);
    assert_eq!(proposer.commit_lsn(), Lsn(1500));
}

#[test]
fn nothing_before_the_start_of_the_term_is_committed_by_itself() {
    let mut proposer = leader();
    run(&mut proposer, [vote(2, 6, 1450, 1000, &[(5, 1000)])]);
    assert_eq!(run(&mut proposer, [flushed(2, 6, 1450), flushed(0, 6, 1500)]), []);
    assert_eq!(proposer.commit_lsn(), Lsn(1400));
}

#[test]
fn only_what_a_quorum_has_flushed_is_committed() {
    let mut proposer = leader();
    run(&mut proposer, [flushed(0, 6, 1500), flushed(1, 6, 1500), Event::Written(Lsn(1800))]);
    run(&mut proposer, [flushed(0, 6, 1800)]);
    assert_eq!(proposer.commit_lsn(), Lsn(1500));
    run(&mut proposer, [flushed(1, 6, 1650)]);
    assert_eq!(proposer.commit_lsn(), Lsn(1650));
    assert_eq!(proposer.holder(Lsn(1700), Peer(2)), Some(Peer(0)));
    assert_eq!(proposer.holder(Lsn(1700), Peer(0)), None);
}

#[test]
fn a_member_that_comes_late_joins_the_running_term() {
    let mut proposer = leader();
    run(&mut proposer, [Event::Disconnected(Peer(2)), Event::Written(Lsn(1800))]);
    let effects = run(&mut proposer, [greeting(2, 6), vote(2, 6, 1600, 1500, &[(5, 1000)])]);
    assert_eq!(starts(&effects), [(2, 1500)]);
    assert!(effects.contains(&Effect::Stream(Peer(2), Lsn(1500))));
}

#[test]
fn a_connection_that_is_made_anew_counts_again_only_after_it_took_the_term_over() {
    let mut proposer = leader();
    run(&mut proposer, [flushed(0, 6, 1500), Event::Disconnected(Peer(0)), flushed(1, 6, 1500)]);
    assert_eq!(proposer.flush_lsns(), [None, Some(Lsn(1500)), None]);
    let effects = run(&mut proposer, [greeting(0, 6), flushed(0, 6, 1500)]);
    assert!(matches!(effects[..], [Effect::Send(..), Effect::Reconnect(Peer(0), _)]));
}

#[test]
fn a_higher_term_in_any_answer_fences_for_ever() {
    let higher = [
        flushed(1, 7, 1500),
        vote(2, 7, 1500, 1500, &[]),
        greeting(2, 7),
        Event::Message(
            Peer(2),
            AcceptorMessage::Refused(Refusal::Fenced { asked: Term(6), known: Term(7) }),
        ),
    ];
    for event in higher {
        let mut proposer = leader();
        let over = Effect::Over(Over::Fenced { known: Term(7) });
        assert_eq!(proposer.step(event.clone()), [over], "{event:?}");
        assert_eq!(run(&mut proposer, [flushed(0, 6, 1500), flushed(1, 6, 1500)]), []);
        assert_eq!(proposer.commit_lsn(), Lsn(1400));
    }
}

#[test]
fn an_election_is_lost_when_a_quorum_can_no_longer_be_won() {
    let mut proposer = new();
    run(&mut proposer, (0..3).map(|peer| greeting(peer, 5)));
    assert_eq!(proposer.step(refusal(0, 6)), []);
    assert_eq!(proposer.step(refusal(1, 6)), [Effect::Over(Over::Lost { known: Term(6) })]);
}

#[test]
fn one_who_voted_for_the_loser_is_told_of_the_election_too() {
    let mut proposer = new();
    run(&mut proposer, (0..3).map(|peer| greeting(peer, 5)));
    let votes = [refusal(0, 6), vote(1, 6, 1000, 1000, &[]), vote(2, 6, 1000, 1000, &[])];
    assert_eq!(starts(&run(&mut proposer, votes)), [(0, 1000), (1, 1000), (2, 1000)]);
}

#[test]
fn a_disk_that_is_no_member_neither_votes_nor_acknowledges() {
    let mut proposer = new();
    let known = configuration(1, &[0, 1, 2]);
    let wiped = greeting_of(2, 77, 5, known);
    assert_eq!(run(&mut proposer, [greeting(0, 5), wiped]), []);
    let effects = run(&mut proposer, [greeting(1, 5)]);
    assert_eq!(effects.len(), 2, "{effects:?}");
    run(&mut proposer, [vote(2, 6, 1000, 1000, &[]), vote(0, 6, 1000, 1000, &[])]);
    assert_eq!(proposer.position(), None);
}

#[test]
fn a_newer_configuration_takes_the_word_of_a_replaced_disk_away() {
    let mut proposer = leader();
    run(&mut proposer, [flushed(0, 6, 1500), Event::Written(Lsn(1800)), flushed(0, 6, 1800)]);
    // Disk 0 was lost and 77 is in its place, as the greeting of another member tells first.
    run(&mut proposer, [Event::Disconnected(Peer(2))]);
    run(&mut proposer, [greeting_of(2, 2, 6, configuration(2, &[77, 1, 2]))]);
    run(&mut proposer, [flushed(1, 6, 1800)]);
    assert_eq!((proposer.generation(), proposer.commit_lsn()), (2, Lsn(1400)));
}

#[test]
fn a_log_that_lacks_what_is_committed_is_not_taken_over() {
    let mut proposer = new();
    run(&mut proposer, (0..3).map(|peer| greeting(peer, 5)));
    let terms = [(5, 1000)];
    let effects =
        run(&mut proposer, [vote(0, 6, 1200, 1300, &terms), vote(1, 6, 1200, 1000, &terms)]);
    assert!(matches!(effects[..], [Effect::Over(Over::Corrupt(_))]), "{effects:?}");
}
