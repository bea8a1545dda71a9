mod simulation;
// The programs in tests/ use more of it.
#[allow(dead_code)]
#[path = "../../tests/harness/wal.rs"]
mod wal;

use protocol::quorum::TermStart;
use protocol::{Identity, NodeId};

use super::*;
use wal::{WalWriter, origin};

const BEGIN: Lsn = Lsn(0x100_1000);

fn member(node: u32, disk: u128) -> Member {
    Member { node: NodeId(node), identity: Identity::from_bits(disk) }
}

/// The disk whose acceptor is tested.
fn me() -> Member {
    member(1, 0xD15C)
}

fn configuration(generation: u32, members: Vec<Member>) -> Configuration {
    Configuration { generation, members }
}

fn acceptor() -> Acceptor {
    let members = vec![me(), member(2, 2), member(3, 3)];
    let state = AcceptorState::new(origin(), configuration(1, members));
    Acceptor::new(me(), Version::V15, state)
}

fn history(entries: &[(u64, Lsn)]) -> TermHistory {
    let entries = entries.iter().map(|&(term, start)| TermStart { term: Term(term), start });
    TermHistory::try_from(entries.collect::<Vec<_>>()).expect("the test's history is in order")
}

fn vote(connection: u64, proposer: u128, term: u64) -> Event {
    let connection = ConnectionId(connection);
    Event::Vote { connection, proposer, generation: 1, term: Term(term) }
}

fn elected(connection: u64, term: u64, start: Lsn, entries: &[(u64, Lsn)]) -> Event {
    Event::Elected {
        connection: ConnectionId(connection),
        proposer: u128::from(term),
        generation: 1,
        term: Term(term),
        start,
        history: history(entries),
    }
}

fn append(connection: u64, term: u64, begin: Lsn, commit_lsn: Lsn, wal: Bytes) -> Event {
    let connection = ConnectionId(connection);
    Event::Append { connection, generation: 1, term: Term(term), begin, commit_lsn, wal }
}

/// The last effect, which must be an answer to this connection.
fn answer(effects: &[Effect], connection: u64) -> AcceptorMessage {
    match effects.last() {
        Some(Effect::Reply { to, message }) if *to == ConnectionId(connection) => message.clone(),
        other => panic!("an answer was expected, {other:?} was found"),
    }
}

fn granted(effects: &[Effect], connection: u64) -> bool {
    match answer(effects, connection) {
        AcceptorMessage::Vote { granted, .. } => granted,
        other => panic!("a vote was expected, {other:?} was found"),
    }
}

fn refusal(effects: &[Effect], connection: u64) -> Refusal {
    match answer(effects, connection) {
        AcceptorMessage::Refused(refusal) => refusal,
        other => panic!("a refusal was expected, {other:?} was found"),
    }
}

fn flushed(term: u64, flush_lsn: Lsn) -> AcceptorMessage {
    AcceptorMessage::Flushed { term: Term(term), flush_lsn }
}

#[test]
fn a_vote_is_persisted_before_it_is_answered() {
    let effects = acceptor().step(vote(1, 7, 1));
    assert!(matches!(
        &effects[..],
        [Effect::PersistState(state), Effect::Reply { .. }]
            if state.term == Term(1) && state.voted_for == Some(7)
    ));
}

#[test]
fn a_term_has_one_vote_which_its_holder_may_ask_for_again() {
    let mut acceptor = acceptor();
    assert!(granted(&acceptor.step(vote(1, 7, 5)), 1));
    assert!(!granted(&acceptor.step(vote(2, 8, 5)), 2));
    assert!(!granted(&acceptor.step(vote(2, 8, 4)), 2));
    assert!(granted(&acceptor.step(vote(3, 7, 5)), 3));
    let mut acceptor = Acceptor::new(me(), Version::V15, acceptor.state().clone());
    assert!(!granted(&acceptor.step(vote(4, 8, 5)), 4));
    assert!(granted(&acceptor.step(vote(5, 7, 5)), 5));
}

#[test]
fn wal_counts_up_to_the_last_complete_record() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    let mut writer = WalWriter::at_origin();
    let first = writer.record(b"first");
    let first_end = writer.end();
    let second = writer.record(&[7; 20_000]);
    let mut wal = first.to_vec();
    wal.extend_from_slice(&second[..9_000]);
    let sent = wal.len();
    let effects = acceptor.step(append(1, 1, BEGIN, BEGIN, wal.into()));
    assert_eq!(answer(&effects, 1), flushed(1, first_end));
    assert_eq!(acceptor.state().end_lsn, BEGIN + sent as u64);
    let rest = second.slice(9_000..);
    let effects = acceptor.step(append(1, 1, BEGIN + sent as u64, first_end, rest));
    assert!(matches!(effects[0], Effect::PersistWal { flush_lsn, commit_lsn, .. }
        if flush_lsn == writer.end() && commit_lsn == first_end));
    assert_eq!(answer(&effects, 1), flushed(1, writer.end()));
}

#[test]
fn a_record_that_does_not_check_is_refused_and_nothing_of_it_is_kept() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    let mut damaged = WalWriter::at_origin().record(&[9; 100]).to_vec();
    damaged[60] ^= 1;
    let effects = acceptor.step(append(1, 1, BEGIN, BEGIN, damaged.into()));
    assert_eq!(effects.len(), 1);
    assert!(matches!(refusal(&effects, 1), Refusal::Invalid(_)));
    assert_eq!(acceptor.state().end_lsn, BEGIN);
    let good = WalWriter::at_origin().record(&[9; 100]);
    assert!(matches!(
        refusal(&acceptor.step(append(1, 1, BEGIN, BEGIN, good.clone())), 1),
        Refusal::Invalid(_)
    ));
    acceptor.step(vote(2, 1, 1));
    acceptor.step(elected(2, 1, BEGIN, &[(1, BEGIN)]));
    let end = BEGIN + good.len() as u64;
    assert_eq!(answer(&acceptor.step(append(2, 1, BEGIN, BEGIN, good)), 2), flushed(1, end));
}

#[test]
fn wal_that_leaves_a_gap_or_comes_twice_is_refused() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    let wal = WalWriter::at_origin().record(b"x");
    let effects = acceptor.step(append(1, 1, BEGIN + 8, BEGIN, wal));
    assert!(matches!(refusal(&effects, 1), Refusal::Invalid(_)));
}

#[test]
fn the_older_proposer_is_fenced_by_a_vote_for_a_newer_one() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    let effects = acceptor.step(vote(2, 9, 2));
    let fence = Refusal::Fenced { asked: Term(1), known: Term(2) };
    assert!(matches!(&effects[..], [
        Effect::PersistState(_),
        Effect::Reply { to: ConnectionId(1), message: AcceptorMessage::Refused(refusal) },
        Effect::Reply { to: ConnectionId(2), .. },
    ] if *refusal == fence));
    let wal = WalWriter::at_origin().record(b"x");
    assert_eq!(refusal(&acceptor.step(append(1, 1, BEGIN, BEGIN, wal)), 1), fence);
    assert_eq!(refusal(&acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)])), 1), fence);
}

#[test]
fn a_takeover_cuts_the_tail_that_the_new_log_does_not_have() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    let mut writer = WalWriter::at_origin();
    let wal = writer.record(b"kept");
    let kept = writer.end();
    acceptor.step(append(1, 1, BEGIN, BEGIN, wal));
    let wal = writer.record(b"never committed");
    acceptor.step(append(1, 1, kept, BEGIN, wal));
    // The new proposer took over a log of term 1 that ends at `kept`.
    let told = [(1, BEGIN), (2, kept)];
    let wrong = acceptor.step(elected(2, 2, writer.end(), &told));
    assert!(matches!(refusal(&wrong, 2), Refusal::Invalid(_)));
    let effects = acceptor.step(elected(2, 2, kept, &told));
    assert_eq!(answer(&effects, 2), flushed(2, kept));
    assert!(matches!(&effects[0], Effect::PersistState(state)
        if state.end_lsn == kept && state.term == Term(2)));
}

#[test]
fn what_is_committed_is_never_cut() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    let mut writer = WalWriter::at_origin();
    let wal = writer.record(b"committed");
    acceptor.step(append(1, 1, BEGIN, writer.end(), wal));
    assert_eq!(acceptor.state().commit_lsn, writer.end());
    let effects = acceptor.step(elected(2, 2, BEGIN, &[(2, BEGIN)]));
    assert!(matches!(refusal(&effects, 2), Refusal::Invalid(_)));
}

#[test]
fn an_acceptor_that_lags_does_not_stand_for_the_term_it_was_told_of() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    // Term 4 begins far ahead: this acceptor has none of what lies between.
    acceptor.step(elected(2, 4, BEGIN, &[(1, BEGIN), (4, BEGIN + 800)]));
    let effects = acceptor.step(vote(3, 9, 5));
    let AcceptorMessage::Vote { history: told, .. } = answer(&effects, 3) else {
        panic!("a vote was expected")
    };
    assert_eq!(told, history(&[(1, BEGIN)]));
}

#[test]
fn a_term_without_a_byte_is_part_of_the_history() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    let told = [(1, BEGIN), (2, BEGIN), (3, BEGIN)];
    let effects = acceptor.step(elected(2, 3, BEGIN, &told));
    assert_eq!(answer(&effects, 2), flushed(3, BEGIN));
    assert_eq!(acceptor.state().log_history(), history(&told));
    // Another proposer that never heard of terms 2 and 3 begins where they do.
    let effects = acceptor.step(elected(3, 4, BEGIN, &[(1, BEGIN), (4, BEGIN)]));
    assert_eq!(answer(&effects, 3), flushed(4, BEGIN));
}

#[test]
fn a_proposer_that_connects_anew_supersedes_its_older_connection() {
    let mut acceptor = acceptor();
    acceptor.step(elected(1, 1, BEGIN, &[(1, BEGIN)]));
    let wal = WalWriter::at_origin().record(b"x");
    let end = BEGIN + wal.len() as u64;
    acceptor.step(append(1, 1, BEGIN, BEGIN, wal.clone()));
    // It cannot begin below what this acceptor has acknowledged.
    let effects = acceptor.step(elected(2, 1, BEGIN, &[(1, BEGIN)]));
    assert!(matches!(refusal(&effects, 2), Refusal::Invalid(_)));
    let effects = acceptor.step(elected(2, 1, end, &[(1, BEGIN)]));
    assert!(matches!(
        &effects[1],
        Effect::Reply {
            to: ConnectionId(1),
            message: AcceptorMessage::Refused(Refusal::Invalid(_)),
        }
    ));
    assert!(matches!(
        refusal(&acceptor.step(append(1, 1, end, BEGIN, wal)), 1),
        Refusal::Invalid(_)
    ));
    assert!(acceptor.has_proposer());
    acceptor.step(Event::Disconnected(ConnectionId(1)));
    assert!(acceptor.has_proposer());
    acceptor.step(Event::Disconnected(ConnectionId(2)));
    assert!(!acceptor.has_proposer());
}

#[test]
fn a_disk_that_is_not_a_member_or_has_not_recovered_takes_no_part() {
    let not_member = Refusal::NotMember { node: me().node, identity: me().identity };
    let others = vec![member(1, 0xF00D), member(2, 2), member(3, 3)];
    let foreign = AcceptorState::new(origin(), configuration(2, others));
    let mut recovering = acceptor().state().clone();
    recovering.standing = Standing::Recovering;
    for state in [foreign, recovering] {
        let mut acceptor = Acceptor::new(me(), Version::V15, state);
        for event in [
            vote(1, 7, 1),
            elected(1, 1, BEGIN, &[(1, BEGIN)]),
            append(1, 1, BEGIN, BEGIN, WalWriter::at_origin().record(b"x")),
        ] {
            let effects = acceptor.step(event);
            assert_eq!(effects.len(), 1, "nothing is persisted");
            assert_eq!(refusal(&effects, 1), not_member);
        }
    }
}

#[test]
fn an_older_configuration_is_refused_and_a_newer_one_persisted() {
    let mut acceptor = acceptor();
    let next = configuration(2, vec![me(), member(2, 2), member(3, 0x33)]);
    let effects = acceptor.step(Event::Configure(next.clone()));
    assert!(matches!(&effects[..], [Effect::PersistState(state)] if state.configuration == next));
    assert_eq!(
        refusal(&acceptor.step(vote(1, 7, 1)), 1),
        Refusal::OldConfiguration { asked: 1, known: 2 }
    );
    assert!(acceptor.step(Event::Configure(next)).is_empty());
}

#[test]
fn terms_and_histories_that_make_no_sense_are_refused() {
    let mut acceptor = acceptor();
    for (event, why) in [
        (vote(1, 7, 0), "term zero"),
        (vote(1, 7, u64::MAX), "no next term"),
        (elected(1, 0, BEGIN, &[]), "term zero"),
        (elected(1, 2, BEGIN, &[(1, BEGIN)]), "another last term"),
        (elected(1, 1, BEGIN, &[(1, BEGIN + 8)]), "another beginning"),
        (append(1, 1, BEGIN, BEGIN, Bytes::new()), "not elected"),
    ] {
        assert!(matches!(refusal(&acceptor.step(event), 1), Refusal::Invalid(_)), "{why}");
    }
    acceptor.step(elected(1, 3, BEGIN, &[(1, BEGIN), (3, BEGIN)]));
    let other = acceptor.step(elected(2, 3, BEGIN, &[(2, BEGIN), (3, BEGIN)]));
    assert!(matches!(refusal(&other, 2), Refusal::Invalid(_)), "two histories of one term");
}
