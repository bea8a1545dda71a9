//! The admin API of a region's pageservers, as far as projects and branches need it (docs/formats/admin-api.md).

use std::{net::SocketAddr, time::Duration};

use access::{Bearer, tls};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ErrorBody, PageserverAt, catalog::timelines::Moment, region::Health};

/// The slowest answer: a branch at the head of a timeline that ingest is behind of.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The slowest copy of a database.
const PUBLISH_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often a request follows a tenant from one pageserver to another.
const HOPS_MAX: u32 = 4;

/// Why the pageserver did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StorageError {
    /// It is there already.
    #[error("{0}")]
    Exists(String),
    /// It is not there.
    #[error("{0}")]
    NotFound(String),
    /// It makes no sense, or its history is gone.
    #[error("{0}")]
    Refused(String),
    /// It cannot be asked, or cannot do it now.
    #[error("{0}")]
    Unavailable(String),
}

/// A client of it.
pub(crate) struct Storage {
    /// The pageserver that is asked first; it says which one serves a tenant.
    first: Option<SocketAddr>,
    bearer: Bearer,
    health: Health,
    http: reqwest::Client,
}

/// A tenant.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Tenant {
    pub id: String,
    pub name: String,
    pub created_at: String,
    #[serde(default)]
    pub history: History,
}

/// A tenant's window of history.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct History {
    pub seconds: Option<u64>,
}

/// A timeline, which the pageserver calls a branch.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Timeline {
    pub name: String,
    pub ancestor: Option<Ancestor>,
    pub branch_point: String,
    pub created_at: String,
    pub logical_size_bytes: u64,
    pub tenant_id: String,
}

/// Where a timeline came from.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ancestor {
    pub tenant_id: String,
    pub name: String,
}

/// A template; without an id one that is being published.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct StoredTemplate {
    pub name: String,
    pub id: Option<String>,
    pub lsn: Option<String>,
    pub created_at: Option<String>,
    pub logical_size_bytes: Option<u64>,
    pub copied_bytes: Option<u64>,
    pub stored_bytes: Option<u64>,
}

impl Storage {
    /// A client; no connection is made yet.
    pub(crate) fn new(pageservers: &[PageserverAt], bearer: Bearer, health: Health) -> Storage {
        let first = pageservers.first().map(|at| at.http);
        let http = bearer.trust().http();
        Storage { first, bearer, health, http }
    }

    /// Makes a tenant, or finds the one that is there.
    pub(crate) async fn create_tenant(
        &self,
        name: &str,
        template: Option<&str>,
        history_seconds: u64,
    ) -> Result<Tenant, StorageError> {
        let mut body = json!({ "name": name, "history": { "seconds": history_seconds } });
        if let Some(template) = template {
            body["template"] = template.into();
        }
        match self.ask(Method::POST, "tenants", Some(body)).await {
            Err(StorageError::Exists(_)) => {
                self.ask(Method::GET, &format!("tenants/{name}"), None).await
            }
            made => made,
        }
    }

    /// Says how much history a tenant keeps.
    pub(crate) async fn set_history(&self, tenant: &str, seconds: u64) -> Result<(), StorageError> {
        let body = json!({ "history": { "seconds": seconds } });
        let _tenant: Value =
            self.ask(Method::PATCH, &format!("tenants/{tenant}"), Some(body)).await?;
        Ok(())
    }

    /// Every tenant.
    pub(crate) async fn tenants(&self) -> Result<Vec<Tenant>, StorageError> {
        #[derive(Deserialize)]
        struct Tenants {
            tenants: Vec<Tenant>,
        }
        let tenants: Tenants = self.ask(Method::GET, "tenants", None).await?;
        Ok(tenants.tenants)
    }

    /// Whether projects can be made of a template of this name or id.
    pub(crate) async fn has_template(&self, template: &str) -> Result<bool, StorageError> {
        Ok(self.template(template).await?.is_some_and(|stored| stored.id.is_some()))
    }

    /// The template of this name or id, also one that is being published.
    pub(crate) async fn template(
        &self,
        template: &str,
    ) -> Result<Option<StoredTemplate>, StorageError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if template.is_empty() || !template.bytes().all(is_word) {
            return Ok(None);
        }
        match self.ask(Method::GET, &format!("templates/{template}"), None).await {
            Err(StorageError::NotFound(_)) => Ok(None),
            found => found.map(Some),
        }
    }

    /// All templates.
    pub(crate) async fn templates(&self) -> Result<Vec<StoredTemplate>, StorageError> {
        #[derive(Deserialize)]
        struct Templates {
            templates: Vec<StoredTemplate>,
        }
        let templates: Templates = self.ask(Method::GET, "templates", None).await?;
        Ok(templates.templates)
    }

    /// Has a template made of a timeline's head, and waits until it is whole.
    pub(crate) async fn publish_template(
        &self,
        template: &str,
        tenant: &str,
        timeline: &str,
    ) -> Result<(), StorageError> {
        let body = json!({ "name": template, "from": { "tenant": tenant, "branch": timeline } });
        let asked = self.ask_for(PUBLISH_MAX, Method::POST, "templates", Some(body));
        asked.await.map(|_: Value| ())
    }

    /// Deletes a template that nothing is made of.
    pub(crate) async fn delete_template(&self, template: &str) -> Result<(), StorageError> {
        self.delete(&format!("templates/{template}")).await
    }

    /// Deletes a tenant; one that is not there is deleted.
    pub(crate) async fn delete_tenant(&self, tenant: &str) -> Result<(), StorageError> {
        self.delete(&format!("tenants/{tenant}")).await
    }

    /// Makes a timeline, or finds the one that is there.
    pub(crate) async fn create_timeline(
        &self,
        tenant: &str,
        name: &str,
        parent: &str,
        moment: Option<&Moment>,
    ) -> Result<Timeline, StorageError> {
        let mut body = json!({ "name": name, "from": parent });
        if let Some(moment) = moment {
            body["at"] = json!(moment);
        }
        match self.ask(Method::POST, &format!("tenants/{tenant}/branches"), Some(body)).await {
            Err(StorageError::Exists(_)) => self.timeline(tenant, name).await,
            made => made,
        }
    }

    /// A timeline.
    pub(crate) async fn timeline(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Timeline, StorageError> {
        self.ask(Method::GET, &format!("tenants/{tenant}/branches/{name}"), None).await
    }

    /// A tenant's timelines.
    pub(crate) async fn timelines(&self, tenant: &str) -> Result<Vec<Timeline>, StorageError> {
        #[derive(Deserialize)]
        struct Branches {
            branches: Vec<Timeline>,
        }
        let branches: Branches =
            self.ask(Method::GET, &format!("tenants/{tenant}/branches"), None).await?;
        Ok(branches.branches)
    }

    /// Deletes a timeline that nothing came from; one that is not there is deleted.
    pub(crate) async fn delete_timeline(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<(), StorageError> {
        self.delete(&format!("tenants/{tenant}/branches/{name}")).await
    }

    /// Has a timeline give up, for good, what it was before its head.
    pub(crate) async fn forget_past(&self, tenant: &str, name: &str) -> Result<(), StorageError> {
        let path = format!("tenants/{tenant}/branches/{name}/forget_past");
        self.ask(Method::POST, &path, None).await.map(|_: Value| ())
    }

    async fn delete(&self, path: &str) -> Result<(), StorageError> {
        match self.ask::<Value>(Method::DELETE, path, None).await {
            Ok(_) | Err(StorageError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, StorageError> {
        self.ask_for(ANSWER_MAX, method, path, body).await
    }

    async fn ask_for<T: for<'de> Deserialize<'de>>(
        &self,
        longest: Duration,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, StorageError> {
        let (status, bytes) = match self.health.wait(self.send(longest, method, path, body)).await {
            Ok(answer) => answer?,
            Err(silent) => return Err(self.unavailable(silent)),
        };
        if status.is_success() {
            let body: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(body).map_err(|error| {
                self.unavailable(format!("the pageserver answered no such JSON: {error}"))
            });
        }
        let said = serde_json::from_slice::<ErrorBody>(&bytes);
        let (code, message) = match said {
            Ok(ErrorBody { code, message }) => (code, message),
            Err(_) => (String::new(), format!("the pageserver answered HTTP status {status}")),
        };
        Err(match (status.as_u16(), code.as_str()) {
            // What is there must not be taken for gone because the token is not taken.
            (404, "no_such_path") => {
                self.unavailable(crate::pageserver_client::NOT_LET_IN.to_owned())
            }
            (404, _) => StorageError::NotFound(message),
            (409, "exists") => StorageError::Exists(message),
            (421, _) => self.unavailable(message),
            (400..500, _) => StorageError::Refused(message),
            _ => self.unavailable(message),
        })
    }

    /// Sends a request to the pageserver that serves the tenant: the status and the body of its answer.
    async fn send(
        &self,
        longest: Duration,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Vec<u8>), StorageError> {
        let Some(first) = self.first else {
            return Err(self.unavailable("it has no pageserver".to_owned()));
        };
        let path = format!("v1/{path}");
        let mut at = first.to_string();
        let mut hops = 0;
        loop {
            let mut request = self.bearer.request(&self.http, method.clone(), &at, &path);
            if let Some(body) = &body {
                request = request.json(body);
            }
            let unreachable = |error: reqwest::Error| {
                let why = tls::why(&error);
                self.unavailable(format!("the pageserver at {at} cannot be asked: {why}"))
            };
            let response = request.timeout(longest).send().await.map_err(unreachable)?;
            let status = response.status();
            let bytes = response.bytes().await.map_err(unreachable)?;
            if status != StatusCode::MISDIRECTED_REQUEST || hops == HOPS_MAX {
                return Ok((status, bytes.to_vec()));
            }
            // Another pageserver serves the tenant, and the refusal says which.
            let refusal: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            match refusal.pointer("/pageserver/http").and_then(Value::as_str) {
                Some(http) => at = http.to_owned(),
                None => return Ok((status, bytes.to_vec())),
            }
            hops += 1;
        }
    }

    fn unavailable(&self, reason: String) -> StorageError {
        StorageError::Unavailable(self.health.unavailable(reason).to_string())
    }
}
