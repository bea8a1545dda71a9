//! Which timeline a branch's name stands for: the pageserver knows.

use std::{net::SocketAddr, time::Duration};

use protocol::{TenantId, TimelineId};
use serde::Deserialize;

use crate::{Error, ErrorBody};

/// How long the pageserver may take to name a timeline.
const RESOLVE_MAX: Duration = Duration::from_secs(30);

/// A client of the pageserver's HTTP API.
pub(crate) struct PageserverClient {
    address: SocketAddr,
    http: reqwest::Client,
}

/// What of a branch matters here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Branch {
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The timeline that it stands for now.
    pub timeline_id: TimelineId,
}

/// What of a tenant matters here.
#[derive(Deserialize)]
struct Tenant {
    name: String,
}

impl PageserverClient {
    /// A client; no connection is made yet.
    pub(crate) fn new(address: SocketAddr) -> PageserverClient {
        PageserverClient { address, http: reqwest::Client::new() }
    }

    /// The tenant's name and the branch, each given by name or id.
    pub(crate) async fn branch(
        &self,
        tenant: &str,
        branch: &str,
    ) -> Result<(String, Branch), Error> {
        for (kind, name) in [("tenant", tenant), ("branch", branch)] {
            if !is_name(name) {
                let allowed = "letters, digits, '-', '_' and '.'";
                return Err(Error::Invalid(format!(
                    "{name:?} is not a {kind}'s name: {allowed} were expected"
                )));
            }
        }
        let url = format!("http://{}/v1/tenants/{tenant}", self.address);
        let found: Branch = self.get(&format!("{url}/branches/{branch}")).await?;
        let named: Tenant = self.get(&url).await?;
        Ok((named.name, found))
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, url: &str) -> Result<T, Error> {
        let unavailable = |reason: reqwest::Error| Error::Unavailable {
            address: self.address,
            reason: reason.to_string(),
        };
        let request = self.http.get(url).timeout(RESOLVE_MAX);
        let response = request.send().await.map_err(unavailable)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(unavailable);
        }
        let message = match response.json::<ErrorBody>().await {
            Ok(body) => body.message,
            Err(_) => format!("HTTP status {status}"),
        };
        match status.as_u16() {
            404 => Err(Error::NotFound(message)),
            400 => Err(Error::Invalid(message)),
            _ => Err(Error::Unavailable { address: self.address, reason: message }),
        }
    }
}

/// Whether a text can stand in a URL's path as it is, and name a tenant or branch.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed) && text != "." && text != ".."
}
