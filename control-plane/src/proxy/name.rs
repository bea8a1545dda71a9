//! Which endpoint a client means: by the TLS server name, or by `options=endpoint=NAME`.

use super::{Refusal, startup::Startup};

/// What pooled connection strings carry after the endpoint's name; every connection is the same here.
const POOLED_SUFFIX: &str = "-pooler";

/// The longest name of an endpoint: a tenant's and a branch's, or two ids.
const NAME_BYTES_MAX: usize = 200;

/// Finds the endpoint's name, and takes what names it out of the options, which the backend would
/// not understand.
///
/// The server name counts where it is one label below `domain`. Where both name an endpoint, they
/// name the same one.
pub(crate) fn take(
    startup: &mut Startup,
    server_name: Option<&str>,
    domain: &str,
) -> Result<String, Refusal> {
    let by_server = server_name.and_then(|name| label(name, domain));
    let by_options = take_from_options(startup)?;
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
    Ok(name)
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

/// The value of `endpoint=` in the session's options; drivers that do not decode a URL's `%3D` are
/// understood, too.
fn take_from_options(startup: &mut Startup) -> Result<Option<String>, Refusal> {
    let mut found = None;
    for (name, value) in &mut startup.parameters {
        if name != b"options" {
            continue;
        }
        let mut kept: Vec<&[u8]> = Vec::new();
        for word in words(value) {
            let rest =
                word.strip_prefix(b"endpoint=").or_else(|| word.strip_prefix(b"endpoint%3D"));
            match rest {
                Some(endpoint) => found = Some(endpoint.to_vec()),
                None => kept.push(word),
            }
        }
        if found.is_some() {
            *value = kept.join(&b' ');
        }
    }
    startup.parameters.retain(|(name, value)| name != b"options" || !value.is_empty());
    let Some(found) = found else { return Ok(None) };
    let found = String::from_utf8(found).map_err(|_| {
        Refusal::Protocol("the endpoint's name in the options is not text".to_owned())
    })?;
    Ok(Some(without_suffix(&found).to_owned()))
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
        (take(&mut startup, server_name, "db.test"), startup)
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
            if let Ok(name) = take(&mut startup, Some(&server_name), "db.test") {
                prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
            }
        }
    }
}
