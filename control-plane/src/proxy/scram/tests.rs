//! The example of RFC 7677, both sides against each other, and hostile messages.

use proptest::prelude::*;

use super::*;
use crate::proxy::Refusal;

/// RFC 7677, section 3: the password is "pencil".
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

/// Hi() of RFC 5802: the keys of a password, as a client that has it makes them.
fn keys(password: &[u8], salt: &[u8], iterations: u32) -> Keys {
    let mut round = signature(password, &[salt, &1_u32.to_be_bytes()]);
    let mut salted = round;
    for _ in 1..iterations {
        round = signature(password, &[&round]);
        salted = xor(&salted, &round);
    }
    Keys {
        client: signature(&salted, &[b"Client Key"]),
        server: signature(&salted, &[b"Server Key"]),
    }
}

fn verifier(password: &[u8]) -> Verifier {
    let salt = STANDARD.decode(SALT).expect("the RFC's salt");
    let Keys { client, server } = keys(password, &salt, 4096);
    let (stored, server) = (STANDARD.encode(digest(&client)), STANDARD.encode(server));
    format!("SCRAM-SHA-256$4096:{SALT}${stored}:{server}").parse().expect("a verifier")
}

#[test]
fn the_rfcs_example_is_answered_to_the_letter_and_gives_the_client_key() {
    let begun = begin(PLAIN, CLIENT_FIRST, verifier(b"pencil"), Binding::None, SERVER_NONCE);
    let challenge = begun.expect("a good message");
    let expected = format!("r=rOprNGfwEbeRWgbNEkqO{SERVER_NONCE},s={SALT},i=4096");
    assert_eq!(challenge.message(), expected);
    let proven = challenge.finish(CLIENT_FINAL).expect("a good message").expect("the password");
    assert_eq!(proven.message, SERVER_FINAL);
    let salt = STANDARD.decode(SALT).expect("the RFC's salt");
    assert_eq!(proven.keys.client, keys(b"pencil", &salt, 4096).client);
}

#[test]
fn another_password_is_refused_and_so_is_every_password_for_a_role_that_is_not_there() {
    for verifier in [verifier(b"pen"), Verifier::mock(b"secret", "user")] {
        let begun = begin(PLAIN, CLIENT_FIRST, verifier, Binding::None, SERVER_NONCE);
        let finished = begun.expect("a good message").finish(CLIENT_FINAL);
        assert!(finished.expect("a good message").is_none());
    }
}

#[test]
fn a_role_that_is_not_there_has_the_same_salt_each_time_and_another_than_its_neighbour() {
    let salt = |role| Verifier::mock(b"secret", role).salt;
    assert_eq!(salt("alice"), salt("alice"));
    assert_ne!(salt("alice"), salt("bob"));
    assert_ne!(salt("alice"), Verifier::mock(b"another secret", "alice").salt);
}

/// The proxy's client against the proxy's server, over a binding that the server has.
fn exchange(keys: &Keys, verifier: Verifier) -> Option<Result<(), NotTheSame>> {
    let first = ClientFirst::new("client");
    let begun =
        begin(PLAIN, first.message().as_bytes(), verifier, Binding::EndPoint(b"x"), "server");
    let challenge = begun.expect("a good message");
    let last = first.answer(challenge.message().as_bytes(), keys).expect("a good message");
    let proven = challenge.finish(last.message.as_bytes()).expect("a good message")?;
    Some(last.check(proven.message.as_bytes()))
}

#[test]
fn the_keys_that_a_client_gave_away_log_in_to_a_backend_of_the_same_verifier_alone() {
    let salt = STANDARD.decode(SALT).expect("the RFC's salt");
    let mut learned = keys(b"pencil", &salt, 4096);
    assert_eq!(exchange(&learned, verifier(b"pencil")), Some(Ok(())));
    assert_eq!(exchange(&learned, verifier(b"another")), None);
    learned.server[0] ^= 1;
    let refused = exchange(&learned, verifier(b"pencil"));
    assert!(matches!(refused, Some(Err(_))), "a server without the server key was believed");
    let first = ClientFirst::new("client");
    for bad in [&b"r=client,s=AA==,i=1"[..], b"r=other,s=AA==,i=1", b"e=nonsense", b"\xFF"] {
        assert!(first.answer(bad, &learned).is_err(), "{bad:?}");
    }
}

#[test]
fn a_connection_is_bound_to_its_certificate() {
    let bound = |first: &[u8], data: &[u8], last_channel: &[u8]| {
        let begun = begin(PLUS, first, verifier(b"pencil"), Binding::EndPoint(data), "server")?;
        let channel = STANDARD.encode(last_channel);
        let proof = STANDARD.encode([0; 32]);
        begun.finish(format!("c={channel},r=clientserver,p={proof}").as_bytes())
    };
    let first = b"p=tls-server-end-point,,n=,r=client";
    // The proof is wrong, which is found only after the binding was found right.
    let right = bound(first, b"digest", b"p=tls-server-end-point,,digest");
    assert!(right.expect("the binding is right").is_none());
    let relayed = bound(first, b"digest", b"p=tls-server-end-point,,another");
    assert!(matches!(relayed, Err(Refusal::ChannelBinding(_))));
    for bad in [&b"n,,n=,r=client"[..], b"y,,n=,r=client", b"p=tls-unique,,n=,r=client"] {
        assert!(matches!(bound(bad, b"digest", b""), Err(Refusal::ChannelBinding(_))), "{bad:?}");
    }
}

#[test]
fn a_client_that_was_told_that_there_is_no_channel_binding_is_warned() {
    let first = b"y,,n=,r=client";
    let with = begin(PLAIN, first, verifier(b"pencil"), Binding::EndPoint(b"digest"), "server");
    assert!(matches!(with, Err(Refusal::ChannelBinding(_))));
    assert!(begin(PLAIN, first, verifier(b"pencil"), Binding::None, "server").is_ok());
    let not_offered = begin(PLUS, first, verifier(b"pencil"), Binding::None, "server");
    assert!(matches!(not_offered, Err(Refusal::Protocol(_))));
}

#[test]
fn what_is_no_verifier_is_said_without_repeating_it() {
    for bad in [
        "md5a6343a68d964ca596d9752250d54bb8a",
        "",
        "SCRAM-SHA-256$0:AA==$AA==:AA==",
        "SCRAM-SHA-256$4096:AA==$AA==:AA==",
    ] {
        let refused = bad.parse::<Verifier>().expect_err("no verifier").to_string();
        assert!(bad.is_empty() || !refused.contains(bad), "{refused}");
    }
    assert!(!format!("{:?}", verifier(b"pencil")).contains("W22Z"), "keys were shown");
}

proptest! {
    #[test]
    fn hostile_messages_are_refused_and_never_panic(
        first in "[npy=,ar]{0,4}.{0,30}",
        last in prop::collection::vec(prop::sample::select(b"c=biws,r=clientserver,p=AAAA\xFF".to_vec()), 0..100),
        any_bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        for binding in [Binding::None, Binding::EndPoint(b"digest")] {
            for mechanism in [PLAIN, PLUS] {
                let _any = begin(mechanism, first.as_bytes(), verifier_of_zeroes(), binding, "server");
                let _bytes = begin(mechanism, &any_bytes, verifier_of_zeroes(), binding, "server");
            }
        }
        let good = begin(PLAIN, b"n,,n=,r=client", verifier_of_zeroes(), Binding::None, "server");
        let finished = good.expect("a good message").finish(&last);
        prop_assert!(!matches!(finished, Ok(Some(_))), "a proof was guessed");
    }
}

fn verifier_of_zeroes() -> Verifier {
    Verifier { iterations: 1, salt: vec![0], stored_key: [0; 32], server_key: [0; 32] }
}
