//! Which endpoint a client means: by the TLS server name, or by `options=endpoint=NAME`. And which
//! moment of its branch: by `options=neon_lsn:LSN` or `options=neon_timestamp:TIME`, as Neon's clients
//! write it.

use super::{Refusal, startup::Startup};
use crate::catalog::timelines::Moment;

/// What pooled connection strings carry after the endpoint's name; every connection is the same here.
const POOLED_SUFFIX: &str = "-pooler";

/// The longest name of an endpoint: a tenant's and a branch's, or two ids.
const NAME_BYTES_MAX: usize = 200;

/// What a client means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    /// The endpoint's name.
    pub name: String,
    /// The moment of its branch; none for its head.
    pub moment: Option<Moment>,
}

/// Finds the endpoint's name and the moment, and takes what names them out of the options: the backend
/// would not understand it.
///
/// The server name counts where it is one label below `domain`. Where both name an endpoint, they
/// name the same one.
pub(crate) fn take(
    startup: &mut Startup,
    server_name: Option<&str>,
    domain: &str,
) -> Result<Named, Refusal> {
    let by_server = server_name.and_then(|name| label(name, domain));
    let (by_options, moment) = take_from_options(startup)?;
    let name = match (by_server, by_options) {
        (Some(one), Some(other)) if one != other => {
            return Err(Refusal::Protocol(format!(
                "the server name says endpoint {one:?} and the options {other:?}: say one of them"
            )));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => return Err(Refusal::NoEndpoint { domain: domain.to_owned() }),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let name: String = name.chars().take(NAME_BYTES_MAX).collect();
        return Err(Refusal::UnknownEndpoint { name });
    }
    Ok(Named { name, moment })
}

/// The first label of a server name, where the rest of it is the domain.
fn label(server_name: &str, domain: &str) -> Option<String> {
    let server_name = server_name.trim_end_matches('.').to_ascii_lowercase();
    let (first, rest) = server_name.split_once('.')?;
    rest.eq_ignore_ascii_case(domain).then(|| without_suffix(first).to_owned())
}

fn without_suffix(name: &str) -> &str {
    name.strip_suffix(POOLED_SUFFIX).filter(|name| !name.is_empty()).unwrap_or(name)
}

/// What of a word of the options names something: these, with the sign behind them as it is, or as a
/// driver leaves it that does not decode a URL.
const WORDS: [(&str, [&str; 2]); 3] =
    [("endpoint", ["=", "%3D"]), ("neon_lsn", [":", "%3A"]), ("neon_timestamp", [":", "%3A"])];

/// Which of [`WORDS`] a word is, and its value.
fn meaning(word: &[u8]) -> Option<(&'static str, &[u8])> {
    WORDS.iter().find_map(|(name, signs)| {
        let rest = word.strip_prefix(name.as_bytes())?;
        let value = signs.iter().find_map(|sign| rest.strip_prefix(sign.as_bytes()))?;
        Some((*name, value))
    })
}

/// The endpoint and the moment in the session's options.
fn take_from_options(startup: &mut Startup) -> Result<(Option<String>, Option<Moment>), Refusal> {
    let (mut endpoint, mut moment) = (None, None);
    for (name, value) in &mut startup.parameters {
        if name != b"options" {
            continue;
        }
        let mut kept: Vec<&[u8]> = Vec::new();
        let all = words(value);
        for word in &all {
            match meaning(word) {
                Some(("endpoint", name)) => endpoint = Some(name.to_vec()),
                Some((kind, value)) => moment = Some(read_moment(kind, value)?),
                None => kept.push(word),
            }
        }
        if kept.len() < all.len() {
            *value = kept.join(&b' ');
        }
    }
    startup.parameters.retain(|(name, value)| name != b"options" || !value.is_empty());
    let text = |name: Vec<u8>| {
        let name = String::from_utf8(name).map_err(|_| {
            Refusal::Protocol("the endpoint's name in the options is not text".to_owned())
        })?;
        Ok(without_suffix(&name).to_owned())
    };
    Ok((endpoint.map(text).transpose()?, moment))
}

/// Reads a moment; its own signs may not have been decoded either.
fn read_moment(kind: &str, value: &[u8]) -> Result<Moment, Refusal> {
    let mut text = String::from_utf8_lossy(value).into_owned();
    for (code, sign) in [("%2F", "/"), ("%3A", ":"), ("%2B", "+")] {
        text = text.replace(code, sign);
    }
    let read = if kind == "neon_lsn" { Moment::lsn(&text) } else { Moment::timestamp(&text) };
    read.map_err(Refusal::NoSuchMoment)
}

/// The words of the options as `pg_split_opts` (src/backend/utils/init/postinit.c) splits them, a
/// backslash before a space kept: the backend splits them once more.
fn words(options: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let mut start = None;
    let mut escaped = false;
    for (place, byte) in options.iter().enumerate() {
        if byte.is_ascii_whitespace() && !escaped {
            words.extend(start.take().and_then(|start: usize| options.get(start..place)));
        } else {
            start.get_or_insert(place);
        }
        escaped = *byte == b'\\' && !escaped;
    }
    words.extend(start.and_then(|start| options.get(start..)));
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(
        server_name: Option<&str>,
        options: Option<&str>,
    ) -> (Result<String, Refusal>, Startup) {
        let mut parameters = vec![(b"user".to_vec(), b"app".to_vec())];
        parameters
            .extend(options.map(|options| (b"options".to_vec(), options.as_bytes().to_vec())));
        let mut startup = Startup { minor: 0, parameters };
        (take(&mut startup, server_name, "db.test").map(|named| named.name), startup)
    }

    #[test]
    fn the_server_names_first_label_names_the_endpoint() {
        for server_name in ["acme.db.test", "ACME.DB.test", "acme-pooler.db.test", "acme.db.test."]
        {
            assert_eq!(named(Some(server_name), None).0.as_deref(), Ok("acme"), "{server_name}");
        }
        for other in ["localhost", "db.test", "acme.other.test", "a.acme.db.test"] {
            let refused = named(Some(other), None).0;
            assert!(matches!(refused, Err(Refusal::NoEndpoint { .. })), "{other}: {refused:?}");
        }
    }

    #[test]
    fn options_name_it_where_the_server_name_does_not_and_the_rest_goes_on() {
        let cases = [
            ("endpoint=acme", None),
            ("endpoint%3Dacme-pooler", None),
            ("-c geqo=off endpoint=acme", Some("-c geqo=off")),
            (r"endpoint=acme -c a=b\ c  -d 1", Some(r"-c a=b\ c -d 1")),
        ];
        for (options, left) in cases {
            let (name, startup) = named(Some("localhost"), Some(options));
            assert_eq!(name.as_deref(), Ok("acme"), "{options}");
            assert_eq!(startup.get("options"), left.map(str::as_bytes), "{options}");
        }
    }

    #[test]
    fn a_moment_stands_beside_the_endpoint_and_the_rest_goes_on() {
        let taken = |options: &str| {
            let parameters = vec![(b"options".to_vec(), options.as_bytes().to_vec())];
            let mut startup = Startup { minor: 0, parameters };
            let named = take(&mut startup, Some("br-a-b-1.db.test"), "db.test");
            (named.map(|named| (named.name, named.moment)), startup)
        };
        let lsn = || Some(Moment::Lsn("0/16B3748".to_owned()));
        let time = || Some(Moment::Timestamp("2026-03-01T12:00:00+01:00".to_owned()));
        let cases = [
            ("neon_lsn:0/16B3748", lsn(), None),
            ("neon_lsn%3A0%2F16B3748", lsn(), None),
            ("-c geqo=off neon_lsn:0/16B3748 endpoint=br-a-b-1", lsn(), Some("-c geqo=off")),
            ("neon_timestamp:2026-03-01T12:00:00+01:00", time(), None),
            ("neon_timestamp%3A2026-03-01T12%3A00%3A00%2B01%3A00", time(), None),
            ("-c geqo=off", None, Some("-c geqo=off")),
        ];
        for (options, moment, left) in cases {
            let (named, startup) = taken(options);
            assert_eq!(named, Ok(("br-a-b-1".to_owned(), moment)), "{options}");
            assert_eq!(startup.get("options"), left.map(str::as_bytes), "{options}");
        }
        for bad in ["neon_lsn:", "neon_lsn:16B3748", "neon_lsn:0/16B37480/1", "neon_timestamp:now"]
        {
            let refused = taken(bad).0;
            assert!(matches!(refused, Err(Refusal::NoSuchMoment(_))), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn two_names_agree_or_are_refused() {
        assert_eq!(named(Some("a.db.test"), Some("endpoint=a")).0.as_deref(), Ok("a"));
        let refused = named(Some("a.db.test"), Some("endpoint=b")).0;
        assert!(matches!(refused, Err(Refusal::Protocol(_))), "{refused:?}");
    }

    #[test]
    fn what_cannot_be_a_name_is_no_endpoint() {
        let long = format!("endpoint={}", "a".repeat(201));
        for options in ["endpoint=", "endpoint=../etc", "endpoint=a/b", &long] {
            let refused = named(None, Some(options)).0;
            assert!(matches!(refused, Err(Refusal::UnknownEndpoint { .. })), "{refused:?}");
        }
        assert!(matches!(named(None, None).0, Err(Refusal::NoEndpoint { .. })));
    }

    proptest! {
        #[test]
        fn any_options_are_taken_without_panic(
            options in prop::collection::vec(prop::sample::select(b"endpoi=%3D \\\t-c\xFF".to_vec()), 0..80),
            server_name in ".{0,40}",
        ) {
            let parameters = vec![(b"options".to_vec(), options)];
            let mut startup = Startup { minor: 0, parameters };
            if let Ok(Named { name, .. }) = take(&mut startup, Some(&server_name), "db.test") {
                prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
            }
        }
    }
}
