//! The client's SASL exchange.

use tokio::io::AsyncWriteExt;

use super::{
    Ended, Refusal,
    message::{Message, OK, SASL, SASL_BYTES_MAX, SASL_CONTINUE, SASL_FINAL, authentication},
    scram::{self, Binding, Keys, Verifier},
    stream::ClientStream,
};

/// Authenticates the client as a role with this verifier, and tells it so. What is learned logs in to
/// the backend. `nonce` is the server's half.
pub(crate) async fn authenticate(
    stream: &mut ClientStream,
    role: &str,
    verifier: Verifier,
    binding: Binding<'_>,
    nonce: &str,
) -> Result<Keys, Ended> {
    let mut offered = Vec::new();
    for mechanism in binding.mechanisms() {
        offered.extend_from_slice(mechanism.as_bytes());
        offered.push(0);
    }
    offered.push(0);
    stream.write_all(&authentication(SASL, &offered)).await?;
    stream.flush().await?;
    let chosen = response(stream).await?;
    let (mechanism, data) = initial_response(&chosen)?;
    let challenge = scram::begin(mechanism, data, verifier, binding, nonce)?;
    stream.write_all(&authentication(SASL_CONTINUE, challenge.message().as_bytes())).await?;
    stream.flush().await?;
    let last = response(stream).await?;
    let wrong = || Refusal::WrongPassword { role: role.to_owned() };
    let proven = challenge.finish(&last)?.ok_or_else(wrong)?;
    let both = [authentication(SASL_FINAL, proven.message.as_bytes()), authentication(OK, &[])];
    stream.write_all(&both.concat()).await?;
    stream.flush().await?;
    Ok(proven.keys)
}

async fn response(stream: &mut ClientStream) -> Result<Vec<u8>, Ended> {
    let message = Message::read(stream, SASL_BYTES_MAX).await?;
    if message.kind != b'p' {
        let sentence = format!("expected SASL response, got message type {}", message.kind);
        return Err(Refusal::Protocol(sentence).into());
    }
    Ok(message.body)
}

/// `SASLInitialResponse`: the mechanism, and the first message with its length before it.
fn initial_response(body: &[u8]) -> Result<(&str, &[u8]), Refusal> {
    let parsed = || {
        let end = body.iter().position(|byte| *byte == 0)?;
        let mechanism = std::str::from_utf8(body.get(..end)?).ok()?;
        let (length, data) = body.get(end + 1..)?.split_first_chunk::<4>()?;
        (u32::from_be_bytes(*length) as usize == data.len()).then_some((mechanism, data))
    };
    parsed().ok_or_else(|| Refusal::Protocol("malformed SASLInitialResponse".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_response_has_a_mechanism_and_a_message() {
        let body = b"SCRAM-SHA-256\0\0\0\0\x05n,,n=";
        assert_eq!(initial_response(body), Ok(("SCRAM-SHA-256", &b"n,,n="[..])));
        for bad in [&b""[..], b"SCRAM", b"SCRAM\0", b"S\0\0\0\0\x02x", b"S\0\xFF\xFF\xFF\xFF"] {
            assert!(initial_response(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_responses_never_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((mechanism, data)) = initial_response(&body) {
                prop_assert_eq!(mechanism.len() + 5 + data.len(), body.len());
            }
        }
    }
}
