//! `offshoot psql` and `offshoot connection-string`.

use std::{os::unix::process::CommandExt, process::Command, time::Duration};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_postgres::config::{Host, SslMode};

use super::{
    client::Client,
    contents::databases,
    names::{self, Branch, Project},
    say::answer,
};
use crate::{
    api::encode,
    cli::{ConnectArgs, ConnectionStringArgs, MomentArgs, PsqlArgs},
    failure::Failure,
    output::say,
    programs,
    verbs::{Voice, stages, text},
};

/// How long the proxy may take to take a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Prints a branch's connection string.
pub async fn connection_string(
    client: &Client,
    voice: Voice,
    args: ConnectionStringArgs,
) -> Result<(), Failure> {
    let uri = uri(client, args.to, args.pooled).await?;
    answer(voice, &json!({ "uri": uri }), |_| say!("{uri}"));
    Ok(())
}

/// Becomes psql; returns only where it cannot.
pub async fn psql(client: &Client, args: PsqlArgs) -> Result<(), Failure> {
    let psql = programs::find("psql", args.pg_bin.as_deref())?;
    let project = args.to.project.clone();
    let endpoint = args.to.endpoint.clone().or(args.to.branch.clone());
    let uri = uri(client, args.to, false).await?;
    let environment = environment(&uri)?;
    let value = |name: &str| {
        let found = environment.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    reach(value("PGHOST"), value("PGPORT")).await?;
    // By the environment: what stands in arguments, everybody on this machine may read.
    let mut command = Command::new(&psql);
    command.envs(environment).args(&args.arguments);
    if args.trace {
        return trace(client, &mut command, &project, endpoint.as_deref()).await;
    }
    let error = command.exec();
    Err(Failure::new(format!("{} does not run: {error}", psql.display())))
}

/// Runs psql to its end, and says what the last start of the endpoint's compute took.
async fn trace(
    client: &Client,
    psql: &mut Command,
    project: &str,
    endpoint: Option<&str>,
) -> Result<(), Failure> {
    let status =
        psql.status().map_err(|error| Failure::new(format!("psql does not run: {error}")))?;
    let project = names::project(client, project).await?;
    let endpoint = names::endpoint(client, &project, endpoint).await?;
    let traced = client.get(&project.path(&["endpoints", &endpoint, "trace"]), &[]).await?;
    eprintln!("{}", stages(&traced["stages"]));
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::with_code(code as u8, "psql failed".to_owned())),
        None => Err(Failure::new("psql was killed")),
    }
}

async fn uri(client: &Client, to: ConnectArgs, pooled: bool) -> Result<String, Failure> {
    let ConnectArgs { project, branch, endpoint, role, database, moment } = to;
    let project = names::project(client, &project).await?;
    let (endpoint, branch) = match endpoint {
        Some(said) => {
            let id = names::endpoint(client, &project, Some(&said)).await?;
            let shown = client.get(&project.path(&["endpoints", &id]), &[]).await?;
            (Some(id), Some(text(&shown, "/endpoint/branch_id")))
        }
        None => (None, branch),
    };
    let branch = names::branch(client, &project, branch.as_deref()).await?;
    let (database, role) = match (database, role) {
        (Some(database), Some(role)) => (database, role),
        (database, role) => {
            let known = databases(client, &project, &branch).await?;
            let (name, owner) = choose(&project, &branch, &known, database.as_deref())?;
            (name, role.unwrap_or(owner))
        }
    };
    let endpoint = endpoint.as_deref().map(|id| ("endpoint_id", id));
    let query = [
        ("branch_id", branch.id.as_str()),
        ("database_name", &database),
        ("role_name", &role),
        ("pooled", if pooled { "true" } else { "false" }),
    ];
    let query: Vec<_> = query.into_iter().chain(endpoint).collect();
    let answer = client.get(&project.path(&["connection_uri"]), &query).await?;
    let uri = answer.get("uri").and_then(Value::as_str).map(|uri| at_moment(uri, &moment));
    uri.ok_or_else(|| Failure::new("the control plane answers without a connection string"))
}

/// The connection string of a branch as it was at a moment, if one is said.
fn at_moment(uri: &str, moment: &MomentArgs) -> String {
    let word = match (&moment.lsn, &moment.timestamp) {
        (Some(lsn), _) => format!("neon_lsn:{lsn}"),
        (None, Some(time)) => format!("neon_timestamp:{time}"),
        (None, None) => return uri.to_owned(),
    };
    let word = encode(&word);
    match uri.split_once("options=") {
        Some((before, options)) => format!("{before}options={word}%20{options}"),
        None => format!("{uri}&options={word}"),
    }
}

/// The database that is meant, and its owner.
fn choose(
    project: &Project,
    branch: &Branch,
    databases: &[Value],
    said: Option<&str>,
) -> Result<(String, String), Failure> {
    let name = |database: &Value| text(database, "/name");
    let of = format!("branch {:?} of {}", branch.name, project.name);
    let found = match (said, databases) {
        (Some(said), _) => databases.iter().find(|database| name(database) == said),
        (None, [only]) => Some(only),
        (None, []) => None,
        (None, many) => {
            let names: Vec<_> = many.iter().map(name).collect();
            return Err(Failure::new(format!(
                "{of} has the databases {}: --database says which one is meant",
                names.join(", ")
            )));
        }
    };
    found.map(|database| (name(database), text(database, "/owner_name"))).ok_or_else(|| {
        let which =
            said.map_or_else(|| "no database".to_owned(), |it| format!("no database {it:?}"));
        Failure::not_found(format!("{of} has {which}: `offshoot database create` makes one"))
    })
}

/// A connection string as the variables that libpq reads.
fn environment(uri: &str) -> Result<Vec<(&'static str, String)>, Failure> {
    let config: tokio_postgres::Config = uri
        .parse()
        .map_err(|error| Failure::new(format!("the connection string cannot be read: {error}")))?;
    let host = config.get_hosts().first().map(|host| match host {
        Host::Tcp(host) => host.trim_matches(['[', ']']).to_owned(),
        Host::Unix(folder) => folder.display().to_string(),
    });
    let ssl_mode = match config.get_ssl_mode() {
        SslMode::Require => Some("require".to_owned()),
        _ => None,
    };
    let text = |said: Option<&str>| said.map(str::to_owned);
    let password =
        config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
    let said = [
        ("PGHOST", host),
        ("PGPORT", config.get_ports().first().map(u16::to_string)),
        ("PGUSER", text(config.get_user())),
        ("PGPASSWORD", password),
        ("PGDATABASE", text(config.get_dbname())),
        ("PGSSLMODE", ssl_mode),
        ("PGOPTIONS", text(config.get_options())),
    ];
    Ok(said.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// Whether somebody listens: psql would say that nobody does, but not what mends it.
async fn reach(host: &str, port: &str) -> Result<(), Failure> {
    let at = (host, port.parse().unwrap_or(5432));
    let reason = match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(at)).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer".to_owned(),
    };
    Err(Failure::unavailable(format!(
        "the proxy at {host}:{port} cannot be reached ({reason}): `offshoot up --proxy {host}:{port}` \
         runs one"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_word_of_the_options() -> Result<(), Failure> {
        let lsn = MomentArgs { lsn: Some("0/16B3748".to_owned()), timestamp: None };
        let time = "2026-03-01T12:00:00+01:00".to_owned();
        let time = MomentArgs { lsn: None, timestamp: Some(time) };
        let none = MomentArgs { lsn: None, timestamp: None };
        let named = "postgresql://a:b@h/d?sslmode=require&options=endpoint%3Dep-a";
        let by_server = "postgresql://a:b@ep-a.h/d?sslmode=require";
        for (uri, moment, options) in [
            (named, &lsn, Some("neon_lsn:0/16B3748 endpoint=ep-a")),
            (named, &time, Some("neon_timestamp:2026-03-01T12:00:00+01:00 endpoint=ep-a")),
            (named, &none, Some("endpoint=ep-a")),
            (by_server, &lsn, Some("neon_lsn:0/16B3748")),
            (by_server, &none, None),
        ] {
            let said = environment(&at_moment(uri, moment))?;
            let found = said.iter().find(|(name, _)| *name == "PGOPTIONS");
            assert_eq!(found.map(|(_, options)| options.as_str()), options, "{uri}");
        }
        Ok(())
    }

    #[test]
    fn a_connection_string_becomes_variables_with_nothing_encoded() -> Result<(), Failure> {
        let uri = "postgresql://r%2Fo:p%40w@127.0.0.1:6432/d%20b?sslmode=require\
                   &options=endpoint%3Dep-a";
        let said = environment(uri)?;
        let expected = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", "6432"),
            ("PGUSER", "r/o"),
            ("PGPASSWORD", "p@w"),
            ("PGDATABASE", "d b"),
            ("PGSSLMODE", "require"),
            ("PGOPTIONS", "endpoint=ep-a"),
        ];
        assert_eq!(said, expected.map(|(name, value)| (name, value.to_owned())));
        assert!(environment("http://nobody").is_err());
        Ok(())
    }
}
