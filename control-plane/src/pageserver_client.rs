//! Which timeline a branch's name stands for, and which pageserver serves a tenant: the pageservers
//! know, each of any tenant.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use access::{
    Bearer,
    tls::{self, Trust},
};
use parking_lot::Mutex;
use protocol::{TenantId, TimelineId};
use reqwest::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Error, ErrorBody, PageserverAt,
    catalog::timelines::Moment,
    region::Health,
    served::{Served, What},
};

/// How long a pageserver may take to name a timeline.
const RESOLVE_MAX: Duration = Duration::from_secs(30);
/// How often a request follows a tenant that goes from one pageserver to another.
const HOPS_MAX: usize = 4;

/// What it means where a pageserver says that there is no such path.
pub(crate) const NOT_LET_IN: &str = "the pageserver does not take this control plane's token, or \
                                     is of another version: give both keys that belong together \
                                     (--auth-key, --auth-public-key)";

/// A client of the pageservers' HTTP APIs.
pub(crate) struct PageserverClient {
    pageservers: Vec<PageserverAt>,
    bearer: Bearer,
    health: Health,
    /// Which of them served a tenant when it was last asked for, by its name or id. Only saves a
    /// request: what is not so any more, the pageserver says.
    places: Mutex<HashMap<String, usize>>,
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
pub(crate) struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Who serves it, where somebody does.
    pub pageserver: Option<Place>,
}

/// A pageserver, as pageservers say it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Place {
    /// Its name.
    pub name: String,
    /// Its HTTP API, if that can be said.
    #[serde(default)]
    pub http: Option<SocketAddr>,
}

/// The body of a refusal that says who serves the tenant.
#[derive(Deserialize)]
struct Elsewhere {
    pageserver: Place,
}

/// What a pageserver answered.
enum Answer<T> {
    Found(T),
    Moved(Place),
}

impl PageserverClient {
    /// A client; no connection is made yet.
    pub(crate) fn new(
        pageservers: Vec<PageserverAt>,
        bearer: Bearer,
        health: Health,
    ) -> PageserverClient {
        let http = bearer.trust().http();
        PageserverClient { pageservers, bearer, health, places: Mutex::default(), http }
    }

    /// Whom it believes.
    pub(crate) fn trust(&self) -> &Trust {
        self.bearer.trust()
    }

    /// The tenant's name and the branch, each given by name or id.
    pub(crate) async fn branch(
        &self,
        tenant: &str,
        branch: &str,
    ) -> Result<(String, Branch), Error> {
        check_name("tenant", tenant)?;
        check_name("branch", branch)?;
        let path = format!("tenants/{tenant}");
        let found: Branch = self.ask_owner(tenant, &format!("{path}/branches/{branch}")).await?;
        let named: Tenant = self.ask_owner(tenant, &path).await?;
        let place = self.places.lock().get(tenant).copied();
        if let Some(place) = place {
            self.places.lock().insert(found.tenant_id.to_string(), place);
        }
        Ok((named.name, found))
    }

    /// Where a moment of a branch is, each given by name or id.
    pub(crate) async fn moment(
        &self,
        tenant: &str,
        branch: &str,
        moment: &Moment,
    ) -> Result<Served, Error> {
        #[derive(Deserialize)]
        struct Found {
            timeline_id: TimelineId,
            lsn: String,
        }
        check_name("tenant", tenant)?;
        check_name("branch", branch)?;
        let (kind, value) = match moment {
            Moment::Lsn(lsn) => ("lsn", lsn),
            Moment::Timestamp(time) => ("timestamp", time),
        };
        // Of what a moment can hold, only a zone's sign means something else in a URL.
        let value = value.replace('+', "%2B");
        let path = format!("tenants/{tenant}/branches/{branch}/moment?{kind}={value}");
        let Found { timeline_id, lsn } = self.ask_owner(tenant, &path).await?;
        Ok(Served { timeline: timeline_id, what: What::Moment(lsn) })
    }

    /// The tenant of this name or id: any pageserver knows.
    pub(crate) async fn tenant(&self, tenant: &str) -> Result<Tenant, Error> {
        check_name("tenant", tenant)?;
        self.ask_owner(tenant, &format!("tenants/{tenant}")).await
    }

    /// All page services, the tenant's first, as far as it is known.
    pub(crate) fn pages_for(&self, tenant: TenantId) -> Vec<SocketAddr> {
        let place = self.places.lock().get(&tenant.to_string()).copied().unwrap_or(0);
        let mut pages: Vec<SocketAddr> = self.pageservers.iter().map(|at| at.pages).collect();
        if place < pages.len() {
            pages[..=place].rotate_right(1);
        }
        pages
    }

    /// All pageservers.
    pub(crate) fn all(&self) -> &[PageserverAt] {
        &self.pageservers
    }

    /// Takes note of where a tenant is served.
    pub(crate) fn note(&self, tenant: TenantId, http: SocketAddr) {
        if let Some(place) = self.place_of(http) {
            self.places.lock().insert(tenant.to_string(), place);
        }
    }

    fn place_of(&self, http: SocketAddr) -> Option<usize> {
        self.pageservers.iter().position(|at| at.http == http)
    }

    /// Asks whoever serves the tenant, as far as that is known; another one where it is elsewhere or
    /// does not answer.
    async fn ask_owner<T: DeserializeOwned>(&self, tenant: &str, path: &str) -> Result<T, Error> {
        let mut place = self.places.lock().get(tenant).copied().unwrap_or(0);
        let mut unavailable = None;
        for _ in 0..self.pageservers.len() + HOPS_MAX {
            let Some(asked) = self.pageservers.get(place) else { break };
            match self.ask(asked.http, Method::GET, path, None::<&()>, RESOLVE_MAX).await {
                Ok(Answer::Found(found)) => {
                    self.places.lock().insert(tenant.to_owned(), place);
                    return Ok(found);
                }
                Ok(Answer::Moved(to)) => {
                    let next = to.http.and_then(|http| self.place_of(http));
                    let name = to.name;
                    let reason = format!("{tenant} is served by pageserver {name:?}");
                    unavailable = Some(self.unavailable(asked.http, reason));
                    place = next.unwrap_or_else(|| self.after(place));
                }
                Err(error @ Error::Unavailable { .. }) => {
                    place = self.after(place);
                    unavailable = Some(unavailable.unwrap_or(error));
                    if self.pageservers.len() == 1 {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(unavailable.unwrap_or_else(|| Error::NotFound("no pageserver is known".to_owned())))
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) % self.pageservers.len().max(1)
    }

    /// Asks one pageserver, which must not send us elsewhere.
    pub(crate) async fn ask_one<T: DeserializeOwned>(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        longest: Duration,
    ) -> Result<T, Error> {
        match self.ask(address, method, path, body, longest).await? {
            Answer::Found(found) => Ok(found),
            Answer::Moved(to) => {
                let reason = format!("the tenant is served by pageserver {:?}", to.name);
                Err(self.unavailable(address, reason))
            }
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        longest: Duration,
    ) -> Result<Answer<T>, Error> {
        let answer = self.health.wait(self.ask_patiently(address, method, path, body, longest));
        answer.await.unwrap_or_else(|silent| Err(self.health.unavailable(silent)))
    }

    async fn ask_patiently<T: DeserializeOwned>(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        longest: Duration,
    ) -> Result<Answer<T>, Error> {
        let unavailable = |reason: reqwest::Error| self.unavailable(address, tls::why(&reason));
        let path = format!("v1/{path}");
        let request = self.bearer.request(&self.http, method, address, &path);
        let mut request = request.timeout(longest);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(unavailable)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map(Answer::Found).map_err(unavailable);
        }
        let body = response.bytes().await.unwrap_or_default();
        if status.as_u16() == 421
            && let Ok(Elsewhere { pageserver }) = serde_json::from_slice(&body)
        {
            return Ok(Answer::Moved(pageserver));
        }
        let (code, message) = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => (body.code, body.message),
            Err(_) => (String::new(), format!("HTTP status {status}")),
        };
        match status.as_u16() {
            // What is there must not be taken for gone because the token is not taken.
            404 if code == "no_such_path" => Err(self.unavailable(address, NOT_LET_IN.to_owned())),
            404 => Err(Error::NotFound(message)),
            // Gone: the history that is asked for is not kept any more.
            400 | 410 => Err(Error::Invalid(message)),
            _ => Err(self.unavailable(address, message)),
        }
    }

    fn unavailable(&self, address: SocketAddr, reason: String) -> Error {
        let reason = format!("the pageserver at {address} cannot be asked: {reason}");
        self.health.unavailable(reason)
    }
}

/// Refuses what cannot stand in a URL's path as it is, and name a tenant or branch.
fn check_name(kind: &str, name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(allowed) && name != "." && name != "..";
    if is_name {
        return Ok(());
    }
    let allowed = "letters, digits, '-', '_' and '.'";
    Err(Error::Invalid(format!("{name:?} is not a {kind}'s name: {allowed} were expected")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_own_page_service_comes_first_and_the_others_follow() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let pageservers = [1, 2, 3].map(|n| PageserverAt { pages: at(n), http: at(n + 10) });
        let (health, _watch) = Health::new("local".parse().expect("a good id"));
        let client = PageserverClient::new(pageservers.to_vec(), Bearer::nobody(), health);
        let tenant = TenantId::from_bits(7);
        assert_eq!(client.pages_for(tenant), [1, 2, 3].map(at));
        client.note(tenant, at(13));
        assert_eq!(client.pages_for(tenant), [3, 1, 2].map(at));
        client.note(tenant, at(99));
        assert_eq!(client.pages_for(tenant), [3, 1, 2].map(at), "nobody knows that one");
    }
}
