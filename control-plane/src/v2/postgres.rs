//! What is done inside a branch's Postgres, as its superuser through its Unix socket.

use std::path::Path;

use tokio_postgres::{Client, Config, NoTls};

use crate::{
    catalog::roles::{Change, Seen},
    proxy::APPLICATION,
};

/// The superuser of every template.
const SUPERUSER: &str = "postgres";
/// The database that is always there.
const MAINTENANCE: &str = "postgres";
/// What a template's role and database are called.
const TEMPLATE_NAME: &str = "app";
/// The databases that can be connected to.
const DATABASES: &str = "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY oid";
/// Makes a database's tables empty: without triggers, and without touching what foreign tables stand
/// for.
const NO_ROWS: &str = include_str!("no_rows.sql");
/// What removes secrets from a database: each statement by itself, as `VACUUM` wants it.
const SECRETS_OF_A_DATABASE: [&str; 4] = [
    "UPDATE pg_user_mapping SET umoptions = NULL WHERE umoptions IS NOT NULL",
    "DELETE FROM pg_statistic WHERE starelid IN ('pg_authid'::regclass, \
     'pg_subscription'::regclass, 'pg_user_mapping'::regclass)",
    "VACUUM FULL pg_user_mapping",
    "VACUUM FULL pg_statistic",
];
/// And from what all databases share.
const SECRETS_OF_ALL: [&str; 3] = [
    "UPDATE pg_authid SET rolpassword = NULL WHERE rolpassword IS NOT NULL",
    "VACUUM FULL pg_authid",
    "VACUUM FULL pg_subscription",
];
/// Nothing that a database's or a role's settings say keeps the superuser from its work.
const OPTIONS: &str =
    "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off";
/// How long a connection may take.
const CONNECT_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    /// Postgres said no.
    #[error("{0}")]
    Refused(String),
    /// Postgres cannot be reached, or went away.
    #[error("the branch's Postgres cannot be asked: {0}")]
    Unreachable(String),
}

impl From<tokio_postgres::Error> for SqlError {
    fn from(error: tokio_postgres::Error) -> SqlError {
        match error.as_db_error() {
            Some(said) => SqlError::Refused(format!("Postgres refused: {}", said.message())),
            None => SqlError::Unreachable(error.to_string()),
        }
    }
}

/// A running Postgres: the folder of its socket, and its port.
#[derive(Clone, Copy)]
pub(super) struct Postgres<'p> {
    pub socket_folder: &'p Path,
    pub port: u16,
}

impl Postgres<'_> {
    async fn connect(&self, database: &str) -> Result<Client, SqlError> {
        self.connect_as("offshoot", database).await
    }

    async fn connect_as(&self, application: &str, database: &str) -> Result<Client, SqlError> {
        let mut config = Config::new();
        config
            .host_path(self.socket_folder)
            .port(self.port)
            .user(SUPERUSER)
            .dbname(database)
            .application_name(application)
            .options(OPTIONS)
            .connect_timeout(CONNECT_MAX);
        let (client, connection) = config.connect(NoTls).await?;
        // It ends with the client.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a compute broke");
            }
        });
        Ok(client)
    }

    /// What its roles and databases are: users' own, and databases with their owners. And the session
    /// that was opened to see it.
    pub(super) async fn look(
        &self,
    ) -> Result<(Vec<Seen>, Vec<(String, String)>, Client), SqlError> {
        // Looking is no work that keeps a compute awake.
        let client = self.connect_as(APPLICATION, MAINTENANCE).await?;
        let roles = "SELECT rolname::text, rolpassword, rolcanlogin FROM pg_authid \
                     WHERE rolname !~ '^pg_' AND NOT rolsuper ORDER BY 1";
        let roles = client.query(roles, &[]).await?;
        let roles = roles.iter().map(|row| Seen {
            name: row.get(0),
            verifier: row.get(1),
            login: row.get(2),
        });
        let databases = "SELECT datname::text, pg_get_userbyid(datdba)::text FROM pg_database \
                         WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY oid";
        let databases = client.query(databases, &[]).await?;
        let databases = databases.iter().map(|row| (row.get(0), row.get(1)));
        Ok((roles.collect(), databases.collect(), client))
    }

    /// Gives a role a verifier.
    pub(super) async fn set_verifier(&self, role: &str, verifier: &str) -> Result<(), SqlError> {
        let client = self.connect(MAINTENANCE).await?;
        Ok(client.batch_execute(&password(role, verifier)).await?)
    }

    /// Carries a change out; done once more, it changes nothing. `verifier` is the one of the role
    /// that it is about.
    pub(super) async fn carry_out(
        &self,
        change: &Change,
        verifier: Option<&str>,
    ) -> Result<(), SqlError> {
        let client = self.connect(MAINTENANCE).await?;
        match change {
            Change::First { role, database } => {
                rename(&client, "ROLE", TEMPLATE_NAME, role).await?;
                ensure_role(&client, role, verifier).await?;
                rename(&client, "DATABASE", TEMPLATE_NAME, database).await?;
                ensure_database(&client, database, role).await
            }
            Change::Role { name } => ensure_role(&client, name, verifier).await,
            Change::Verifier { name } => {
                let Some(verifier) = verifier else { return Ok(()) };
                if !is_there(&client, "ROLE", name).await? {
                    return Ok(());
                }
                Ok(client.batch_execute(&password(name, verifier)).await?)
            }
            Change::NoRole { name } => self.drop_role(&client, name).await,
            Change::Database { name, owner } => ensure_database(&client, name, owner).await,
            Change::Rename { from, to } => rename(&client, "DATABASE", from, to).await,
            Change::NoRows => self.remove_rows(&client).await,
            Change::NoDatabase { name } => {
                let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
                Ok(client.batch_execute(&sql).await?)
            }
        }
    }

    /// Removes the rows of all tables in all databases, but for those that belong to extensions and those
    /// that are elsewhere.
    async fn remove_rows(&self, client: &Client) -> Result<(), SqlError> {
        for row in client.query(DATABASES, &[]).await? {
            self.connect(row.get(0)).await?.batch_execute(NO_ROWS).await?;
        }
        Ok(())
    }

    /// Removes what lets people in, here and elsewhere: passwords of roles, options of user mappings,
    /// subscriptions with their connection strings, and what statistics know of these. The tables that
    /// held them are written anew, so that no old row version is left in a page. Nobody else may work in
    /// this Postgres: what another transaction could still see stays.
    pub(super) async fn remove_secrets(&self) -> Result<(), SqlError> {
        let client = self.connect(MAINTENANCE).await?;
        let prepared = "SELECT gid FROM pg_prepared_xacts LIMIT 1";
        if let Some(row) = client.query_opt(prepared, &[]).await? {
            let gid: String = row.get(0);
            return Err(SqlError::Refused(format!(
                "there is a prepared transaction then, {gid:?}: end it, and publish a later moment"
            )));
        }
        let subscriptions = "SELECT subname::text FROM pg_subscription WHERE subdbid = \
                             (SELECT oid FROM pg_database WHERE datname = current_database())";
        for row in client.query(DATABASES, &[]).await? {
            let client = self.connect(row.get(0)).await?;
            for row in client.query(subscriptions, &[]).await? {
                let name = identifier(row.get(0));
                let detach = format!(
                    "ALTER SUBSCRIPTION {name} DISABLE; \
                     ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"
                );
                client.batch_execute(&detach).await?;
                client.batch_execute(&format!("DROP SUBSCRIPTION {name}")).await?;
            }
            for statement in SECRETS_OF_A_DATABASE {
                client.batch_execute(statement).await?;
            }
        }
        for statement in SECRETS_OF_ALL {
            client.batch_execute(statement).await?;
        }
        Ok(())
    }

    /// Drops a role. What it owned in any database is the superuser's, and what it was granted is
    /// gone: Postgres drops no role before that (`DROP ROLE`, `REASSIGN OWNED`).
    async fn drop_role(&self, client: &Client, name: &str) -> Result<(), SqlError> {
        if !is_there(client, "ROLE", name).await? {
            return Ok(());
        }
        let role = identifier(name);
        let freed = format!("REASSIGN OWNED BY {role} TO {SUPERUSER}; DROP OWNED BY {role}");
        for row in client.query(DATABASES, &[]).await? {
            self.connect(row.get(0)).await?.batch_execute(&freed).await?;
        }
        let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        client.execute(ends, &[&name]).await?;
        Ok(client.batch_execute(&format!("DROP ROLE {role}")).await?)
    }
}

async fn ensure_role(client: &Client, name: &str, verifier: Option<&str>) -> Result<(), SqlError> {
    let verb = if is_there(client, "ROLE", name).await? { "ALTER" } else { "CREATE" };
    let login = match verifier {
        Some(verifier) => format!("LOGIN PASSWORD {}", literal(verifier)),
        None => "NOLOGIN".to_owned(),
    };
    let sql = format!("{verb} ROLE {} CREATEDB CREATEROLE {login}", identifier(name));
    Ok(client.batch_execute(&sql).await?)
}

async fn ensure_database(client: &Client, name: &str, owner: &str) -> Result<(), SqlError> {
    let (database, owner) = (identifier(name), identifier(owner));
    let sql = if is_there(client, "DATABASE", name).await? {
        format!("ALTER DATABASE {database} OWNER TO {owner}")
    } else {
        format!("CREATE DATABASE {database} OWNER {owner}")
    };
    Ok(client.batch_execute(&sql).await?)
}

/// Renames a role or database that is there to a name that is not.
async fn rename(client: &Client, kind: &str, from: &str, to: &str) -> Result<(), SqlError> {
    if from == to || !is_there(client, kind, from).await? || is_there(client, kind, to).await? {
        return Ok(());
    }
    if kind == "DATABASE" {
        // A database is renamed when nobody is connected to it.
        let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        client.execute(ends, &[&from]).await?;
    }
    let sql = format!("ALTER {kind} {} RENAME TO {}", identifier(from), identifier(to));
    Ok(client.batch_execute(&sql).await?)
}

async fn is_there(client: &Client, kind: &str, name: &str) -> Result<bool, SqlError> {
    let sql = match kind {
        "ROLE" => "SELECT 1 FROM pg_roles WHERE rolname = $1",
        _ => "SELECT 1 FROM pg_database WHERE datname = $1",
    };
    Ok(client.query_opt(sql, &[&name]).await?.is_some())
}

fn password(role: &str, verifier: &str) -> String {
    format!("ALTER ROLE {} PASSWORD {}", identifier(role), literal(verifier))
}

/// A name as SQL takes it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it, whatever `standard_conforming_strings` says: a verifier has no `\`.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_names_stay_in_the_name() {
        assert_eq!(identifier("a\"; DROP ROLE b; --"), "\"a\"\"; DROP ROLE b; --\"");
        assert_eq!(literal("it's"), "'it''s'");
    }
}
