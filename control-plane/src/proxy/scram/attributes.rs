//! `a=value,b=value`: how SCRAM's messages are written.

use super::super::Refusal;

/// What is wrong with a message.
pub(super) fn malformed(what: &str) -> Refusal {
    Refusal::Protocol(format!("malformed SCRAM message: {what}"))
}

/// Takes the attribute `name` from the front of a message.
pub(super) fn take<'a>(message: &mut &'a str, name: char) -> Result<&'a str, Refusal> {
    let expected = || malformed(&format!("attribute {name:?} was expected"));
    let rest = message.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
    let rest = rest.ok_or_else(expected)?;
    let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
    *message = after;
    Ok(value)
}
