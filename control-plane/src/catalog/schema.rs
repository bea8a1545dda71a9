//! The catalog's version, and how a file gets its tables.

use rusqlite::{Connection, config::DbConfig};

use super::Error;

/// The version of the tables, kept in the file (`PRAGMA user_version`).
const VERSION: i64 = 5;

/// What each version adds to the one before, from the first on.
const ADDED: [&str; VERSION as usize] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
];

/// Marks the file as a catalog (`PRAGMA application_id`): "offs".
const APPLICATION: i64 = 0x6f66_6673;

/// How a connection is set up: readers do not wait for the writer, and a commit is on disk when it
/// is answered.
const SETTINGS: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = OFF;
PRAGMA busy_timeout = 10000;
PRAGMA cache_size = -8192;
PRAGMA temp_store = MEMORY;
";

/// Statements that a connection keeps parsed: more than there are.
const STATEMENTS_MAX: usize = 256;

/// Sets a connection up.
pub(super) fn configure(connection: &Connection) -> Result<(), Error> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Else SQLite plans a statement anew when a parameter that its plan might depend on changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection.execute_batch(SETTINGS)?)
}

/// Makes the tables that the file lacks; whether it was new. Refuses a file of another kind or a newer
/// version.
pub(super) fn prepare(connection: &Connection) -> Result<bool, Error> {
    let read = |pragma| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let (application, version) = (read("PRAGMA application_id")?, read("PRAGMA user_version")?);
    match (application, version) {
        (0, 0) => {
            add(connection, &ADDED)?;
            Ok(true)
        }
        (APPLICATION, VERSION) => Ok(false),
        (APPLICATION, earlier @ 1..VERSION) => {
            add(connection, &ADDED[earlier as usize..])?;
            Ok(false)
        }
        (APPLICATION, other) => Err(Error::Corrupt(format!(
            "it has version {other}, this program knows {VERSION}: use the version of offshoot \
             that wrote it"
        ))),
        _ => Err(Error::Corrupt("the file is a database of another program".to_owned())),
    }
}

fn add(connection: &Connection, tables: &[&str]) -> Result<(), Error> {
    Ok(connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {} PRAGMA application_id = {APPLICATION}; \
         PRAGMA user_version = {VERSION}; COMMIT;",
        tables.concat()
    ))?)
}
