//! How things are shown: a table of many, the fields of one.

use serde_json::Value;

use crate::{
    output::{self, say},
    verbs::{Voice, text},
};

/// A list as the API gives it, whole: for programs as it is, for people as a table.
pub fn list<const COLUMNS: usize>(
    voice: Voice,
    field: &str,
    entries: Vec<Value>,
    titles: [&str; COLUMNS],
    row: impl Fn(&Value) -> [String; COLUMNS],
) {
    if voice.json {
        output::json(&serde_json::json!({ field: entries }));
        return;
    }
    let rows: Vec<_> = entries.iter().map(row).collect();
    output::text(&output::table(titles, &rows));
}

/// An answer of the API: for programs as it is, for people as `show` has it.
pub fn answer(voice: Voice, answer: &Value, show: impl FnOnce(&Value)) {
    match voice.json {
        true => output::json(answer),
        false => show(answer),
    }
}

/// Adds to a request what was said.
pub fn set<const FIELDS: usize>(body: &mut Value, said: [(&str, Option<Value>); FIELDS]) {
    for (field, value) in said {
        if let Some(value) = value {
            body[field] = value;
        }
    }
}

/// The fields of one thing, each on a line of its own, but for what it does not have.
pub fn fields(thing: &Value, fields: &[(&str, &str)]) {
    let said = fields.iter().map(|(title, at)| (*title, text(thing, at)));
    let said: Vec<_> = said.filter(|(_, value)| value != "-" && !value.is_empty()).collect();
    let width = said.iter().map(|(title, _)| title.chars().count()).max().unwrap_or_default();
    for (title, value) in said {
        say!("{title:<width$}  {value}");
    }
}

/// `yes` or `no`.
pub fn yes_or_no(thing: &Value, at: &str) -> String {
    match thing.pointer(at).and_then(Value::as_bool) {
        Some(true) => "yes".to_owned(),
        _ => "no".to_owned(),
    }
}

/// Seconds until an endpoint is suspended, or what they stand for.
pub fn suspend_after(endpoint: &Value) -> String {
    match endpoint["suspend_timeout_seconds"].as_i64().unwrap_or_default() {
        0 => "default".to_owned(),
        ..0 => "never".to_owned(),
        seconds => format!("{seconds} s"),
    }
}

/// A span of time in the largest units that say it.
pub fn time(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}
