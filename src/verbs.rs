//! The verbs for tenants and what is below them: all but `scrub` talk to a running `offshoot up`.

mod auth;
mod branch;
mod compute;
mod psql;
mod scrub;
mod snapshot;
mod status;
mod template;
mod tenant;

pub use auth::auth;
pub use compute::compute;
pub use scrub::scrub;
pub use snapshot::snapshot;
pub use status::status;
pub use template::import_template;
pub use tenant::tenant;

use serde_json::Value;

/// How the verbs speak.
#[derive(Clone, Copy)]
pub struct Voice {
    /// JSON for programs instead of tables for people.
    pub json: bool,
}

/// The stages of a start, as people read them.
pub fn stages(stages: &Value) -> String {
    let mut lines = Vec::new();
    let mut total = 0.0;
    for stage in stages.as_array().into_iter().flatten() {
        let ms = stage["ms"].as_f64().unwrap_or_default();
        total += ms;
        lines.push(format!("  {:<36} {ms:>9.1} ms", text(stage, "/name")));
    }
    lines.push(format!("  {:<36} {total:>9.1} ms", "together"));
    lines.join("\n")
}

/// A text field of an answer, `-` where it is absent.
pub fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A field of an answer that counts bytes, as people read them.
pub fn bytes(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer).and_then(Value::as_u64) {
        Some(bytes) => crate::output::size(bytes),
        None => "-".to_owned(),
    }
}

/// The objects of an answer that is a list, or holds its list in a field of this name.
fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    let list = value.as_array().or_else(|| value.get(field).and_then(Value::as_array));
    list.map(Vec::as_slice).unwrap_or_default()
}
