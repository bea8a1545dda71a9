//! Requests to the management API, and what their failures mean for who asked.

use std::{fs, io, time::Duration};

use access::tls::{self, Trust};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::{api::encode, cli::ApiArgs, failure::Failure};

/// The slowest answer: a restore, and the start of the compute that follows it.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// A client of the management API.
pub struct Client {
    /// Without a `/` at its end.
    url: String,
    key: String,
    http: reqwest::Client,
}

/// What stands behind a path's `?`.
pub type Query<'q> = &'q [(&'q str, &'q str)];

impl Client {
    /// A client of the API that was named, or of the control plane's at this address.
    pub fn new(args: &ApiArgs, control_plane: &str, trust: &Trust) -> Result<Client, Failure> {
        let url = args.api_url.clone().unwrap_or_else(|| control_plane.to_owned());
        let url = match url.contains("://") {
            true => url,
            false => format!("{}://{url}", trust.scheme()),
        };
        let url = url.trim_end_matches('/').trim_end_matches("/api/v2").to_owned();
        Ok(Client { url, key: key(args)?, http: trust.http() })
    }

    /// Asks for something.
    pub async fn get(&self, path: &[&str], query: Query<'_>) -> Result<Value, Failure> {
        self.ask(Method::GET, path, query, None).await
    }

    /// Has something made or done.
    pub async fn post(&self, path: &[&str], body: Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// Has something changed.
    pub async fn patch(&self, path: &[&str], body: Value) -> Result<Value, Failure> {
        self.ask(Method::PATCH, path, &[], Some(body)).await
    }

    /// Has something deleted.
    pub async fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, &[], None).await
    }

    /// Has one of several things deleted that are called alike.
    pub async fn delete_of(&self, path: &[&str], query: Query<'_>) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, query, None).await
    }

    /// All of a list that comes in pages, or its first entries where there is to be a most.
    pub async fn all(
        &self,
        path: &[&str],
        field: &str,
        query: Query<'_>,
        most: Option<usize>,
    ) -> Result<Vec<Value>, Failure> {
        let most = most.unwrap_or(usize::MAX);
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut query = query.to_vec();
            if !cursor.is_empty() {
                query.push(("cursor", &cursor));
            }
            let mut page = self.get(path, &query).await?;
            let entries = page.get_mut(field).and_then(Value::as_array_mut);
            let entries = entries.map(std::mem::take).unwrap_or_default();
            // Lists say where the next page begins, or where this one ends.
            let next = ["/pagination/next", "/pagination/cursor"]
                .iter()
                .find_map(|at| page.pointer(at).and_then(Value::as_str))
                .unwrap_or_default();
            let is_over = entries.is_empty() || next.is_empty() || next == cursor;
            all.extend(entries);
            if is_over || all.len() >= most {
                all.truncate(most);
                return Ok(all);
            }
            next.clone_into(&mut cursor);
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: Query<'_>,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let path: Vec<String> = path.iter().map(|part| encode(part)).collect();
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("{}/api/v2/{}{mark}{}", self.url, path.join("/"), query.join("&"));
        let mut request = self.http.request(method, url).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let sent = request.timeout(ANSWER_MAX).send().await;
        let response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let value = serde_json::from_slice::<Value>(&bytes);
        match value {
            Ok(value) if status.is_success() => Ok(value),
            Ok(value) => Err(self.refusal(status, &value)),
            Err(_) => Err(Failure::new(format!(
                "{} does not answer as the management API, but with HTTP status {status}; \
                 --api-url or OFFSHOOT_API_URL says where that is",
                self.url
            ))),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::unavailable(format!(
            "the control plane at {} cannot be reached ({}); is `offshoot up` running? \
             --api-url or OFFSHOOT_API_URL says where",
            self.url,
            tls::why(error)
        ))
    }

    fn refusal(&self, status: StatusCode, body: &Value) -> Failure {
        let message = body.get("message").and_then(Value::as_str);
        let message =
            message.map_or_else(|| format!("HTTP status {status}, and no reason"), str::to_owned);
        match status.as_u16() {
            401 => Failure::no_key(format!(
                "the control plane at {} refuses the API key: {message}; --api-key, \
                 OFFSHOOT_API_KEY or --api-key-file says another one",
                self.url
            )),
            404 => Failure::not_found(message),
            409 => Failure::conflict(message),
            503 | 504 => Failure::unavailable(message),
            _ => Failure::new(message),
        }
    }
}

/// The API key: the one that was said, or the one in the file.
fn key(args: &ApiArgs) -> Result<String, Failure> {
    let said = args.api_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
    if let Some(key) = said {
        return Ok(key.to_owned());
    }
    let file = args.api_key_file.display();
    let read = fs::read_to_string(&args.api_key_file);
    let key = read.map(|text| text.trim().to_owned()).map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::NotFound => {
                "--api-key-file names the file that `offshoot up` left in its --data folder"
            }
            _ => "root can read it",
        };
        Failure::no_key(format!(
            "an API key is needed: say it as --api-key or OFFSHOOT_API_KEY; {file} cannot be read \
             ({error}): {mend}"
        ))
    })?;
    match key.is_empty() {
        false => Ok(key),
        true => Err(Failure::no_key(format!("{file} is empty: there is no API key in it"))),
    }
}
