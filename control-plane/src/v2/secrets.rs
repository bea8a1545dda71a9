//! Passwords in what Postgres logs: it logs statements that fail as they were sent.

use std::{ops::Range, sync::LazyLock};

use regex::bytes::Regex;

/// What follows the word `password`: a literal, quoted in any of the ways that SQL knows, or a word
/// where `=` stands between, as in connection strings. Then verifiers, and passwords in URIs. One
/// whose end is not there goes to the end: rather too much is left out than too little.
static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let literal = r"(?:[en]|u&)?'(?:[^'\\]|''|\\.)*(?:'|\z)";
    let dollar = r"\$\w*\$.*?(?:\$\w*\$|\z)";
    let word = r"''.*?(?:''|\z)|[^\s';,)&]+";
    let password =
        format!(r"password\s*(?:=\s*(?P<a>{word}|{literal}|{dollar})|(?P<b>{literal}|{dollar}))");
    let verifier = r"(?P<c>scram-sha-256\$[^\s']+|\bmd5[0-9a-f]{32}\b)";
    let uri = r"://[^\s/:@]*:(?P<d>[^\s/@]+)@";
    Regex::new(&format!("(?is-u){password}|{verifier}|{uri}")).ok()
});

/// Where in a text passwords and what stands for them are, in order.
pub(super) fn secrets(text: &[u8]) -> Vec<Range<usize>> {
    let Some(secret) = &*SECRET else { return std::iter::once(0..text.len()).collect() };
    let of = |found: regex::bytes::Captures<'_>| {
        let group = ["a", "b", "c", "d"].iter().find_map(|name| found.name(name));
        group.map(|group| group.range())
    };
    secret.captures_iter(text).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Vec<&str> {
        secrets(text.as_bytes()).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn what_stands_for_a_password_is_found_in_all_ways_to_write_it() {
        for (text, secret) in [
            ("CREATE ROLE a PASSWORD 'x y' LOGIN", "'x y'"),
            ("alter role a with encrypted password\n\tE'x\\'y' nologin", "E'x\\'y'"),
            ("alter role a password 'it''s'", "'it''s'"),
            ("ALTER ROLE a PASSWORD $q$x'y$q$;", "$q$x'y$q$"),
            ("OPTIONS (user 'a', password 'x')", "'x'"),
            ("CONNECTION 'host=b password=x dbname=c'", "x"),
            ("CONNECTION 'host=b password = ''x y'' dbname=c'", "''x y''"),
            ("dblink('postgresql://a:x@b/c')", "x"),
            ("PASSWORD 'unfinished", "'unfinished"),
            ("ROLE a PASSWORD SCRAM-SHA-256$4096:s$k:v", "SCRAM-SHA-256$4096:s$k:v"),
            (
                "verifier md5900150983cd24fb0d6963f7d28e17f72.",
                "md5900150983cd24fb0d6963f7d28e17f72",
            ),
        ] {
            assert_eq!(hidden(text), [secret], "{text}");
        }
    }

    #[test]
    fn what_only_speaks_of_passwords_is_left() {
        for text in [
            "FATAL:  password authentication failed for user \"a\"",
            "SET password_encryption = 'scram-sha-256'",
            "LOG:  listening on IPv4 address \"127.0.0.1\", port 6500",
            "DETAIL:  see https://www.postgresql.org/docs",
        ] {
            assert_eq!(hidden(text), Vec::<&str>::new(), "{text}");
        }
    }
}
