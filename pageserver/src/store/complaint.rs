//! Why a store cannot be used, as a sentence with its mend: for whoever has just written the URL.

use object_store::Error;

/// The sentence for an error of the first request.
pub(super) fn of(error: &Error) -> String {
    mend(error).map_or_else(|| chain(error), str::to_owned)
}

/// The sentence, where it is known what a person has to do about it.
pub(super) fn mend(error: &Error) -> Option<&'static str> {
    known(&chain(error))
}

/// Everything that the error and its causes say, once each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    said
}

/// The mend of what S3 and its client say; S3's codes stand in a reply's XML.
fn known(said: &str) -> Option<&'static str> {
    let any = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    if any(&["RequestTimeTooSkewed"]) {
        Some(
            "this machine's clock is too far from the store's for a signature to be taken; set the \
             clock, and keep it right with an NTP client",
        )
    } else if any(&["NoSuchBucket"]) {
        Some("the bucket does not exist; create it, or correct the name in s3://bucket/prefix")
    } else if any(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"])
    {
        Some(
            "the store does not take these credentials; correct AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY",
        )
    } else if any(&["AccessDenied", "403 Forbidden"]) {
        Some(
            "these credentials may not write here; allow them to get, put, delete and list objects \
             of the bucket below the prefix",
        )
    } else if any(&["169.254.169.254"]) {
        Some(
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run on \
             a machine that has a role",
        )
    } else if any(&["AuthorizationHeaderMalformed", "PermanentRedirect", "without LOCATION"]) {
        Some("the bucket is in another region; set AWS_REGION to it")
    } else if any(&[
        "error trying to connect",
        "tcp connect error",
        "dns error",
        "client error (Connect)",
    ]) {
        Some(
            "its endpoint cannot be reached; correct AWS_ENDPOINT_URL, or start what should answer \
             there",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(said: &'static str) -> Error {
        Error::Generic { store: "S3", source: said.into() }
    }

    #[test]
    fn what_s3_says_in_codes_is_said_in_a_sentence_with_its_mend() {
        for (code, part) in [
            ("403: <Code>RequestTimeTooSkewed</Code>", "clock"),
            ("404: <Code>NoSuchBucket</Code>", "create it"),
            ("403: <Code>InvalidAccessKeyId</Code>", "AWS_ACCESS_KEY_ID"),
            ("403: <Code>SignatureDoesNotMatch</Code>", "AWS_SECRET_ACCESS_KEY"),
            ("403: <Code>AccessDenied</Code>", "may not write"),
            ("error trying to connect: refused", "AWS_ENDPOINT_URL"),
        ] {
            assert!(of(&generic(code)).contains(part), "{code}: {}", of(&generic(code)));
        }
    }

    #[test]
    fn what_is_not_known_is_said_as_it_came() {
        assert!(of(&generic("the tape is torn")).contains("the tape is torn"));
    }
}
