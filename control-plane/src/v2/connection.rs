//! Where to connect, and as whom.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    context::{ConnectAt, Context},
    error::{ApiError, GeneralError},
    request::{Path, Query},
};
use crate::catalog::{self, branches, databases, endpoints, projects, roles};

/// How to connect.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionDetails {
    /// The whole in one.
    pub connection_uri: String,
    /// The parts.
    pub connection_parameters: ConnectionParameters,
}

/// The parts of a connection string.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionParameters {
    /// The database.
    pub database: String,
    /// The role's password.
    pub password: String,
    /// The role.
    pub role: String,
    /// The endpoint's host.
    pub host: String,
    /// The endpoint's host for pooled connections.
    pub pooler_host: String,
}

/// A connection string.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionUri {
    uri: String,
}

/// To what, and as whom.
#[derive(Deserialize, IntoParams)]
pub struct ConnectionQuery {
    /// The branch; the default one where none is said.
    branch_id: Option<String>,
    /// The endpoint; the branch's where none is said.
    endpoint_id: Option<String>,
    /// The database.
    database_name: String,
    /// The role.
    role_name: String,
    /// By the pooler's name.
    #[serde(default, deserialize_with = "yes_or_no")]
    pooled: bool,
}

/// `true` or `false`, also with a capital, as Python's client writes it.
fn yes_or_no<'de, D: serde::Deserializer<'de>>(text: D) -> Result<bool, D::Error> {
    match String::deserialize(text)?.to_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(serde::de::Error::custom(format!("{other:?} is neither true nor false"))),
    }
}

/// Postgres' own port, which need not be said.
const PORT_UNSAID: u16 = 5432;

/// The host of an endpoint, with the port where that is not Postgres' own: clients make their
/// connection strings of it.
pub(super) fn host(at: &ConnectAt, endpoint: &str) -> String {
    let host = match &at.domain {
        Some(domain) => format!("{endpoint}.{domain}"),
        None if at.host.is_ipv6() => format!("[{}]", at.host),
        None => at.host.to_string(),
    };
    match at.port {
        PORT_UNSAID => host,
        port => format!("{host}:{port}"),
    }
}

/// The host that all endpoints have in common.
pub(super) fn proxy_host(at: &ConnectAt) -> String {
    at.domain.clone().unwrap_or_else(|| at.host.to_string())
}

/// A connection string. Where no domain leads to the endpoint, the `options` name it.
fn uri(at: &ConnectAt, endpoint: &str, role: &str, password: &str, database: &str) -> String {
    let (role, password, database) = (encode(role), encode(password), encode(database));
    let host = host(at, endpoint);
    let named = match at.domain {
        Some(_) => String::new(),
        None => format!("&options=endpoint%3D{endpoint}"),
    };
    format!("postgresql://{role}:{password}@{host}/{database}?sslmode=require{named}")
}

/// How to connect to an endpoint: to its branch's first database, as that one's owner. `None` where
/// there is no such database, or the password of its owner is not known.
pub(super) fn details(
    at: &ConnectAt,
    endpoint: &str,
    roles: &[(roles::Role, Option<String>)],
    databases: &[databases::Database],
) -> Option<ConnectionDetails> {
    let database = databases.first()?;
    let (role, password) = roles.iter().find(|(role, _)| role.name == database.owner)?;
    let password = password.as_deref()?;
    Some(ConnectionDetails {
        connection_uri: uri(at, endpoint, &role.name, password, &database.name),
        connection_parameters: ConnectionParameters {
            database: database.name.clone(),
            password: password.to_owned(),
            role: role.name.clone(),
            host: host(at, endpoint),
            pooler_host: host(at, &pooler(endpoint)),
        },
    })
}

/// What an endpoint is called for pooled connections.
fn pooler(endpoint: &str) -> String {
    format!("{endpoint}-pooler")
}

/// Text as a part of a URI (RFC 3986, section 2.3: what is unreserved stays).
pub(crate) fn encode(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Say how to connect.
#[utoipa::path(get, path = "/projects/{project_id}/connection_uri", tag = "connections",
    params(("project_id" = String, Path), ConnectionQuery),
    responses((status = 200, body = ConnectionUri), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path(project): Path<String>,
    Query(query): Query<ConnectionQuery>,
) -> Result<Json<ConnectionUri>, ApiError> {
    let ConnectionQuery { branch_id, endpoint_id, database_name, role_name, pooled } = query;
    let (database, role) = (database_name.clone(), role_name.clone());
    let found = context.catalog.read(move |catalog| {
        let default = projects::get(catalog, &project)?.default_branch;
        let branch = branches::get(catalog, &project, branch_id.as_deref().unwrap_or(&default))?;
        let endpoint = match endpoint_id {
            Some(id) => endpoints::get(catalog, &project, &id)?,
            None => endpoints::of_branch(catalog, &branch.id)?.ok_or_else(|| {
                catalog::Error::NotFound(format!(
                    "branch {} has no endpoint: create one first",
                    branch.id
                ))
            })?,
        };
        databases::get(catalog, &endpoint.branch, &database)?;
        let role = roles::get(catalog, &endpoint.branch, &role)?;
        Ok((endpoint.id, roles::password(catalog, &role)?))
    });
    let (endpoint, password) = found.await?;
    let password = password.ok_or_else(|| unknown_password(&role_name))?;
    let endpoint = if pooled { pooler(&endpoint) } else { endpoint };
    let uri = uri(&context.connect_at, &endpoint, &role_name, &password, &database_name);
    Ok(Json(ConnectionUri { uri }))
}

/// A password that is nowhere in the clear.
pub(super) fn unknown_password(role: &str) -> ApiError {
    ApiError::refused(format!(
        "the password of role {role:?} is not known here, it was set by SQL or not at all: reset it"
    ))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn an_endpoint_without_domain_is_named_in_the_options() {
        let mut at = ConnectAt { domain: None, host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 6432 };
        assert_eq!(
            uri(&at, "ep-a", "r/o", "p@w", "d b"),
            "postgresql://r%2Fo:p%40w@127.0.0.1:6432/d%20b?sslmode=require&options=endpoint%3Dep-a"
        );
        at.domain = Some("db.example".to_owned());
        assert_eq!(
            uri(&at, "ep-a", "app", "pw", "app"),
            "postgresql://app:pw@ep-a.db.example:6432/app?sslmode=require"
        );
        at.port = 5432;
        assert_eq!(host(&at, "ep-a"), "ep-a.db.example");
    }
}
