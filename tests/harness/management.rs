//! The management API, as a program uses it that has a key.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, ensure};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// A client of it.
#[derive(Clone)]
pub struct Management {
    at: SocketAddr,
    key: String,
    http: reqwest::Client,
}

impl Management {
    /// One of the control plane at this address, with the key in this file.
    pub fn new(at: SocketAddr, key_file: &Path) -> anyhow::Result<Management> {
        let key = fs::read_to_string(key_file)
            .with_context(|| format!("no key in {}", key_file.display()))?;
        Ok(Management { at, key: key.trim().to_owned(), http: reqwest::Client::new() })
    }

    /// Asks, and gives the status and the body as they are.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let url = format!("http://{}/api/v2/{path}", self.at);
        let request = self.http.request(method, url).bearer_auth(&self.key).json(&body);
        let response = request.send().await?;
        Ok((response.status(), response.json().await?))
    }

    /// Asks for something that must succeed.
    pub async fn done(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let (status, answer) = self.ask(method.clone(), path, body).await?;
        ensure!(status.is_success(), "{method} {path}: {status} {answer}");
        Ok(answer)
    }

    /// What must be there.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.done(Method::GET, path, Value::Null).await
    }

    /// Posts what must succeed.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.done(Method::POST, path, body).await
    }
}
