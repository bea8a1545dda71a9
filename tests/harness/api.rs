//! The two HTTP APIs, as a program uses them.

use std::{net::SocketAddr, time::Duration};

use access::Bearer;
use anyhow::{Context, bail};
use control_plane::Compute;
use protocol::TimelineId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::eventually;

/// A client of both.
#[derive(Clone)]
pub struct Api {
    pub pageserver: SocketAddr,
    pub control_plane: SocketAddr,
    operator: Bearer,
    http: reqwest::Client,
}

impl Api {
    /// One that shows what the bearer has.
    pub fn new(pageserver: SocketAddr, control_plane: SocketAddr, operator: Bearer) -> Api {
        let http = operator.trust().http();
        Api { pageserver, control_plane, operator, http }
    }

    /// A server's metrics.
    pub async fn metrics(&self, server: SocketAddr) -> anyhow::Result<String> {
        self.operator.token().context("a token")?;
        let request = self.operator.request(&self.http, Method::GET, server, "metrics");
        let answer = request.send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// Asks, and gives the status and the body as they are.
    pub async fn ask(
        &self,
        server: SocketAddr,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let path = format!("v1/{path}");
        let mut request = self.operator.request(&self.http, method, server, &path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        let bytes = response.bytes().await?;
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        let body = serde_json::from_slice(&bytes)
            .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&bytes)))?;
        Ok((status, body))
    }

    async fn done(
        &self,
        server: SocketAddr,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let (status, answer) = self.ask(server, method.clone(), path, body).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {answer}");
        }
        Ok(answer)
    }

    /// Asks the pageserver for something that must succeed.
    pub async fn storage(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        self.done(self.pageserver, method, path, body).await
    }

    /// What the pageserver's status says of a timeline; `None` where it is not loaded.
    pub async fn timeline_status(&self, timeline: TimelineId) -> anyhow::Result<Option<Value>> {
        let status = self.storage(Method::GET, "status", None).await?;
        let all = status["timelines"].as_array().context("a list of timelines")?;
        let id = timeline.to_string();
        Ok(all.iter().find(|status| status["timeline_id"] == id).cloned())
    }

    /// Waits until all of a loaded timeline is in layers, and no two runs of them are to be merged.
    /// Its status then.
    pub async fn merged(&self, timeline: TimelineId, within: Duration) -> anyhow::Result<Value> {
        eventually("layers are merged", within, async || {
            let status = self.timeline_status(timeline).await?.context("the timeline is loaded")?;
            let is_stored = status["last_record_lsn"] == status["remote_consistent_lsn"];
            if !is_stored || status["is_merged"] != json!(true) {
                bail!("there is more to do: {status}");
            }
            Ok(status)
        })
        .await
    }

    /// Asks the pageserver for something that must be refused; the sentence.
    pub async fn refused(&self, path: &str, body: Value) -> anyhow::Result<(StatusCode, String)> {
        let (status, answer) = self.ask(self.pageserver, Method::POST, path, Some(body)).await?;
        if status.is_success() {
            bail!("POST {path} was not refused: {answer}");
        }
        let message = answer["message"].as_str().context("an error without a message")?;
        Ok((status, message.to_owned()))
    }

    /// Has a pageserver of this name serve the tenant.
    pub async fn move_tenant(&self, tenant: &str, to: &str) -> anyhow::Result<Value> {
        let path = format!("tenants/{tenant}/move");
        self.done(self.control_plane, Method::POST, &path, Some(json!({ "to": to }))).await
    }

    pub async fn create_tenant(&self, name: &str) -> anyhow::Result<Value> {
        self.storage(Method::POST, "tenants", Some(json!({ "name": name }))).await
    }

    /// A branch at head of main.
    pub async fn create_branch(&self, tenant: &str, name: &str) -> anyhow::Result<Value> {
        let path = format!("tenants/{tenant}/branches");
        self.storage(Method::POST, &path, Some(json!({ "name": name }))).await
    }

    /// A branch of main at an LSN.
    pub async fn create_branch_at(
        &self,
        tenant: &str,
        name: &str,
        lsn: &str,
    ) -> anyhow::Result<Value> {
        let path = format!("tenants/{tenant}/branches");
        let body = json!({ "name": name, "at": { "lsn": lsn } });
        self.storage(Method::POST, &path, Some(body)).await
    }

    /// Restores main, and has its compute follow.
    pub async fn restore(&self, tenant: &str, moment: Value) -> anyhow::Result<Value> {
        let path = format!("tenants/{tenant}/branches/main/restore");
        let restored = self.storage(Method::POST, &path, Some(moment)).await?;
        let path = format!("computes/{tenant}/main/follow");
        self.done(self.control_plane, Method::POST, &path, None).await?;
        Ok(restored)
    }

    pub async fn start(&self, tenant: &str, branch: &str) -> anyhow::Result<Compute> {
        self.start_with(json!({ "tenant": tenant, "branch": branch })).await
    }

    pub async fn start_with(&self, request: Value) -> anyhow::Result<Compute> {
        let path = "computes";
        let compute = self.done(self.control_plane, Method::POST, path, Some(request)).await?;
        Ok(serde_json::from_value(compute)?)
    }

    pub async fn stop(&self, tenant: &str, branch: &str) -> anyhow::Result<Compute> {
        let path = format!("computes/{tenant}/{branch}");
        let compute = self.done(self.control_plane, Method::DELETE, &path, None).await?;
        Ok(serde_json::from_value(compute)?)
    }

    pub async fn compute(&self, tenant: &str, branch: &str) -> anyhow::Result<Compute> {
        let path = format!("computes/{tenant}/{branch}");
        let compute = self.done(self.control_plane, Method::GET, &path, None).await?;
        Ok(serde_json::from_value(compute)?)
    }
}
