//! What may be a name, a number of seconds, a setting.

use serde_json::Value;

use super::error::ApiError;

/// The longest name of a project or branch, in letters.
const LETTERS_MAX: usize = 256;
/// The longest name in Postgres (`NAMEDATALEN` less the NUL).
const POSTGRES_BYTES_MAX: usize = 63;
/// The longest window of history: 30 days.
const HISTORY_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// The longest time until a compute without work is suspended: a week.
const SUSPEND_SECONDS_MAX: i64 = 7 * 24 * 3600;

/// The one major version that is served.
pub(super) const PG_VERSION: u32 = 15;

/// Roles and databases that are Postgres' own, or are no names to SQL.
const ROLES_TAKEN: [&str; 3] = ["postgres", "public", "none"];
const DATABASES_TAKEN: [&str; 3] = ["postgres", "template0", "template1"];

/// Settings that would run programs, load code, or name files of the machine.
const SETTINGS_REFUSED: [&str; 7] = [
    "data_directory",
    "dynamic_library_path",
    "jit_provider",
    "listen_addresses",
    "log_directory",
    "log_filename",
    "port",
];
const SETTING_ENDS_REFUSED: [&str; 4] = ["_command", "_file", "_libraries", "_directory"];
const SETTING_STARTS_REFUSED: [&str; 1] = ["unix_socket_"];

/// A project's or branch's name.
pub(super) fn check_name(kind: &str, name: &str) -> Result<(), ApiError> {
    let letters = name.chars().count();
    if letters == 0 || letters > LETTERS_MAX || name.trim() != name {
        return Err(ApiError::invalid(format!(
            "a {kind}'s name has 1 to {LETTERS_MAX} letters and no space at its ends"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(ApiError::invalid(format!("a {kind}'s name has no control characters")));
    }
    Ok(())
}

/// A role's name.
pub(super) fn check_role(name: &str) -> Result<(), ApiError> {
    check_postgres("role", name)?;
    if ROLES_TAKEN.contains(&name) || name.starts_with("pg_") {
        return Err(ApiError::invalid(format!("{name:?} is Postgres' own: choose another role")));
    }
    Ok(())
}

/// A database's name.
pub(super) fn check_database(name: &str) -> Result<(), ApiError> {
    check_postgres("database", name)?;
    if DATABASES_TAKEN.contains(&name) {
        return Err(ApiError::invalid(format!(
            "{name:?} is Postgres' own: choose another database"
        )));
    }
    Ok(())
}

fn check_postgres(kind: &str, name: &str) -> Result<(), ApiError> {
    if name.is_empty() || name.len() > POSTGRES_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(ApiError::invalid(format!(
            "a {kind}'s name has 1 to {POSTGRES_BYTES_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}

/// The version of Postgres that is asked for.
pub(super) fn check_pg_version(version: Option<u32>) -> Result<(), ApiError> {
    match version {
        None | Some(PG_VERSION) => Ok(()),
        Some(other) => Err(ApiError::refused(format!(
            "Postgres {other} is not installed here: ask for {PG_VERSION}, or for none"
        ))),
    }
}

/// A window of history.
pub(super) fn check_history(seconds: u64) -> Result<(), ApiError> {
    if seconds > HISTORY_SECONDS_MAX {
        return Err(ApiError::invalid(format!(
            "history_retention_seconds is at most {HISTORY_SECONDS_MAX}, not {seconds}"
        )));
    }
    Ok(())
}

/// When a compute without work is suspended.
pub(super) fn check_suspend_timeout(seconds: i64) -> Result<(), ApiError> {
    if !(-1..=SUSPEND_SECONDS_MAX).contains(&seconds) {
        return Err(ApiError::invalid(format!(
            "suspend_timeout_seconds is -1 (never), 0 (the default) or up to \
             {SUSPEND_SECONDS_MAX}, not {seconds}"
        )));
    }
    Ok(())
}

/// The least and the most compute units.
pub(super) fn check_limits(min: f64, max: f64) -> Result<(), ApiError> {
    let is_good = min.is_finite() && max.is_finite() && min > 0.0 && min <= max && max <= 64.0;
    if !is_good {
        return Err(ApiError::invalid(format!(
            "autoscaling limits are above 0, at most 64, and the least is not above the most; not \
             {min} and {max}"
        )));
    }
    Ok(())
}

/// An endpoint's settings: an object, whose `pg_settings` are names and values.
pub(super) fn check_settings(settings: &Value) -> Result<(), ApiError> {
    let object =
        settings.as_object().ok_or_else(|| ApiError::invalid("settings are a JSON object"))?;
    let Some(settings) = object.get("pg_settings") else { return Ok(()) };
    let settings =
        settings.as_object().ok_or_else(|| ApiError::invalid("pg_settings are a JSON object"))?;
    for (name, value) in settings {
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.".contains(&b);
        if name.is_empty() || !name.bytes().all(is_word) {
            return Err(ApiError::invalid(format!("{name:?} is not a setting of Postgres")));
        }
        let refused = SETTINGS_REFUSED.contains(&name.as_str())
            || SETTING_ENDS_REFUSED.iter().any(|end| name.ends_with(end))
            || SETTING_STARTS_REFUSED.iter().any(|start| name.starts_with(start));
        if refused {
            return Err(ApiError::refused(format!(
                "the setting {name} is the machine's, not yours"
            )));
        }
        let is_plain = match value {
            Value::String(text) => !text.chars().any(char::is_control),
            Value::Number(_) | Value::Bool(_) => true,
            _ => false,
        };
        if !is_plain {
            return Err(ApiError::invalid(format!("the value of {name} is not one of a setting")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_that_postgres_or_people_cannot_use_are_refused() {
        for bad in ["", " a", "a\nb", &"x".repeat(257)] {
            assert!(check_name("branch", bad).is_err(), "{bad:?} was taken for a name");
        }
        assert_eq!(check_name("branch", "feature/ü \"quoted\""), Ok(()));
        for bad in ["", "postgres", "pg_read_all_data", &"x".repeat(64), "a\0b"] {
            assert!(check_role(bad).is_err(), "{bad:?} was taken for a role");
        }
        assert_eq!(check_role("it's \"me\""), Ok(()));
        assert!(check_database("template1").is_err());
        assert_eq!(check_database("shop"), Ok(()));
    }

    #[test]
    fn settings_that_reach_the_machine_are_refused() {
        for bad in ["archive_command", "shared_preload_libraries", "hba_file", "port", "A b"] {
            let settings = json!({ "pg_settings": { bad: "x" } });
            assert!(check_settings(&settings).is_err(), "{bad} was taken");
        }
        assert!(
            check_settings(&json!({ "pg_settings": { "work_mem": "1MB\nport = 1" } })).is_err()
        );
        assert!(
            check_settings(&json!({ "pg_settings": { "work_mem": "8MB", "jit": false } })).is_ok()
        );
    }
}
