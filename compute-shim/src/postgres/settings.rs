//! What Postgres is told when it starts.

use std::{net::SocketAddr, path::Path};

use crate::ShimError;

/// The role that owns every cluster, as Debian's package names it.
const SUPERUSER: &str = "postgres";

/// Who may connect: by the Unix socket whoever may enter its folder, which is closed to all but root and the
/// user that runs Postgres; by the network, this machine's own included, whoever proves a password.
pub const HBA: &str = "\
# TYPE  DATABASE     USER  ADDRESS  METHOD
local   all          all            trust
local   replication  all            trust
host    all          all   all      scram-sha-256
host    replication  all   all      scram-sha-256
";

/// The settings that the engine rests on, on the command line: above `ALTER SYSTEM` and any file.
///
/// Commits are durable because fdatasync on `pg_wal` is the quorum's answer. Torn pages do not
/// matter, since nothing of the disk outlives the compute. A recycled segment would hold bytes that
/// were never this timeline's WAL; zeroing a new one would send nothing but zeros through the quorum.
/// After a crash it is the compute that starts anew, not Postgres in files that may be half written.
const FIXED: [(&str, &str); 9] = [
    ("fsync", "on"),
    ("wal_sync_method", "fdatasync"),
    ("wal_recycle", "off"),
    ("wal_init_zero", "off"),
    ("full_page_writes", "off"),
    ("restart_after_crash", "off"),
    ("wal_log_hints", "off"),
    ("archive_mode", "off"),
    ("unix_socket_permissions", "0777"),
];

/// What Postgres takes where nobody says anything (guc.c), of the settings that may have to be at
/// least so much.
const DEFAULTS: [(&str, u32); 5] = [
    ("max_connections", 100),
    ("max_worker_processes", 8),
    ("max_wal_senders", 10),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

/// The arguments of `postgres`. What stands in `least` is at least so much, and more where `settings`
/// ask for more: prepared transactions that were recovered need their places, a standby needs those of
/// its primary. `more` is set as it is.
pub fn command_line(
    data: &Path,
    sockets: &Path,
    listen: SocketAddr,
    least: &[(&str, u32)],
    more: &[(&str, &str)],
    settings: &[(String, String)],
) -> Vec<String> {
    let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
    let mut set = |name: &str, value: &str| {
        arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
    };
    set("listen_addresses", &listen.ip().to_string());
    set("port", &listen.port().to_string());
    set("unix_socket_directories", &sockets.display().to_string());
    for (name, value) in FIXED.iter().chain(more) {
        set(name, value);
    }
    for (name, least) in least {
        if *least > taken(name, settings) {
            set(name, &least.to_string());
        }
    }
    arguments
}

/// What Postgres takes of a setting that is a number, where nothing makes it take more.
pub fn taken(name: &str, settings: &[(String, String)]) -> u32 {
    let asked = settings.iter().rev().find(|(asked, _)| asked == name);
    let asked = asked.and_then(|(_, value)| value.parse().ok());
    let default = DEFAULTS.iter().find(|(known, _)| *known == name);
    asked.or(default.map(|(_, value)| *value)).unwrap_or(0)
}

/// Variables: those that libpq reads. A stock server that connects by `dblink` or `postgres_fdw` without
/// saying where reaches itself, since its socket is in the usual folder; here the folder is said. So
/// is the role, which libpq would take from the account of whoever runs the server: there may be none.
///
/// And the module that is loaded before the C library, if any.
pub fn environment(
    sockets: &Path,
    listen: SocketAddr,
    module: Option<&Path>,
) -> Vec<(&'static str, String)> {
    let (folder, port) = (sockets.display().to_string(), listen.port().to_string());
    let mut variables =
        vec![("PGHOST", folder), ("PGPORT", port), ("PGUSER", SUPERUSER.to_owned())];
    variables.extend(module.map(|module| ("LD_PRELOAD", module.display().to_string())));
    variables
}

/// `postgresql.conf` with the user's settings.
pub fn configuration_file(settings: &[(String, String)]) -> Result<String, ShimError> {
    let mut file = String::from("# written at each start of the compute: set --set NAME=VALUE\n");
    for (name, value) in settings {
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        if !is_name || value.contains(['\n', '\r', '\0']) {
            return Err(ShimError::Precondition {
                what: format!("{name:?} = {value:?} is not a setting of Postgres"),
                mend: "write --set NAME=VALUE on one line".to_owned(),
            });
        }
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        file.push_str(&format!("{name} = '{value}'\n"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_value_is_quoted_so_that_it_stays_one_value() {
        let file = configuration_file(&settings(&[("search_path", r"it's \ here")]));
        assert!(file.is_ok_and(|file| file.ends_with("search_path = 'it''s \\\\ here'\n")));
        for (name, value) in [("a b", "1"), ("", "1"), ("work_mem", "1\nfsync = off")] {
            assert!(configuration_file(&settings(&[(name, value)])).is_err(), "{name:?}");
        }
    }

    #[test]
    fn recovered_prepared_transactions_have_their_places() {
        let line = |prepared, pairs: &[(&str, &str)]| {
            let listen = SocketAddr::from(([127, 0, 0, 1], 5499));
            let paths = (Path::new("/d"), Path::new("/s"));
            let least = [("max_prepared_transactions", prepared)];
            let line = command_line(paths.0, paths.1, listen, &least, &[], &settings(pairs));
            line.into_iter().find(|argument| argument.starts_with("max_prepared"))
        };
        assert_eq!(line(0, &[]), None);
        assert_eq!(line(3, &[]).as_deref(), Some("max_prepared_transactions=3"));
        assert_eq!(line(3, &[("max_prepared_transactions", "10")]), None);
        assert_eq!(
            line(3, &[("max_prepared_transactions", "2")]).as_deref(),
            Some("max_prepared_transactions=3")
        );
    }

    #[test]
    fn a_standby_has_at_least_the_places_of_its_primary() {
        let line = |least: u32, pairs: &[(&str, &str)]| {
            let listen = SocketAddr::from(([127, 0, 0, 1], 5499));
            let paths = (Path::new("/d"), Path::new("/s"));
            let least = [("max_connections", least)];
            let more = [("recovery_target_timeline", "current")];
            let line = command_line(paths.0, paths.1, listen, &least, &more, &settings(pairs));
            assert!(line.contains(&"recovery_target_timeline=current".to_owned()));
            line.into_iter().find(|argument| argument.starts_with("max_connections"))
        };
        assert_eq!(line(100, &[]), None, "it is the default");
        assert_eq!(line(300, &[]).as_deref(), Some("max_connections=300"));
        assert_eq!(line(300, &[("max_connections", "50")]).as_deref(), Some("max_connections=300"));
        assert_eq!(line(300, &[("max_connections", "400")]), None);
    }
}
