//! The client of a running `offshoot up`: its control plane, and the pageserver that it names.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use access::{
    Bearer,
    tls::{self, Trust},
};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;

/// The slowest answer: a compute's start behind a slow quorum, an import of a large directory.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// How often a request follows a tenant from one pageserver to another.
const HOPS_MAX: u32 = 4;

/// A client; it asks the control plane for the pageserver's address when it first needs it.
pub struct Api {
    control_plane: String,
    /// How servers are called whose address says nothing of that.
    scheme: &'static str,
    operator: Bearer,
    http: reqwest::Client,
}

/// What a server answered, and how long it took.
pub struct Answer {
    /// The body.
    pub value: Value,
    /// From the request to the whole answer.
    pub took: Duration,
}

impl Answer {
    /// The body, with the time it took as `took_ms`.
    pub fn with_time(self) -> Value {
        let mut value = self.value;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("took_ms".to_owned(), milliseconds(self.took).into());
        }
        value
    }
}

/// Milliseconds with three digits behind the point.
pub fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Api {
    /// A client of the control plane at this address, for an operator.
    pub fn new(control_plane: &str, operator: Bearer) -> Api {
        let control_plane = control_plane.trim_end_matches('/').to_owned();
        let scheme = match control_plane.starts_with("https://") {
            true => "https",
            false => operator.trust().scheme(),
        };
        let http = operator.trust().http();
        Api { control_plane, scheme, operator, http }
    }

    /// The same, for whoever may read the token in this file.
    pub fn with_token_of(control_plane: &str, file: &Path, trust: Trust) -> Api {
        // Servers that let everybody in need none, and the others say so.
        let operator = match File::open(file) {
            Ok(_) => Bearer::file(file.to_owned()),
            Err(_) => Bearer::nobody(),
        };
        Api::new(control_plane, operator.trusting(trust))
    }

    /// Asks the control plane.
    pub async fn control_plane(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&impl Serialize>,
    ) -> Result<Answer, Failure> {
        self.ask("control plane", &self.control_plane, method, path, body).await
    }

    /// Asks the pageserver.
    pub async fn pageserver(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&impl Serialize>,
    ) -> Result<Answer, Failure> {
        self.ask("pageserver", &self.pageserver_address().await?, method, path, body).await
    }

    /// Asks the pageserver for all of a list that it gives in pages: each page's entries, until
    /// there are none. A page follows the entry of this name.
    pub async fn pageserver_pages(
        &self,
        list: &str,
        entries: &str,
        mut each: impl FnMut(&[Value]),
    ) -> Result<(), Failure> {
        let address = self.pageserver_address().await?;
        let mut after = String::new();
        loop {
            let path = format!("{}?after={}", encode(list), encode(&after));
            let page = self.send("pageserver", &address, Method::GET, path, None::<&()>).await?;
            let page = page.value.get(entries).and_then(Value::as_array).cloned();
            let Some(last) = page.as_ref().and_then(|page| page.last()) else { return Ok(()) };
            last.get("name").and_then(Value::as_str).unwrap_or_default().clone_into(&mut after);
            each(page.as_deref().unwrap_or_default());
        }
    }

    async fn pageserver_address(&self) -> Result<String, Failure> {
        let status = self.control_plane(Method::GET, &["status"], None::<&()>).await?.value;
        let address = status.pointer("/addresses/pageserver_http").and_then(Value::as_str);
        address.map(str::to_owned).ok_or_else(|| {
            Failure::new(format!("{} does not answer as a control plane", self.control_plane))
        })
    }

    /// Asks a server at this address.
    pub async fn ask(
        &self,
        server: &str,
        address: &str,
        method: Method,
        path: &[&str],
        body: Option<&impl Serialize>,
    ) -> Result<Answer, Failure> {
        let path: Vec<String> = path.iter().map(|segment| encode(segment)).collect();
        self.send(server, address, method, path.join("/"), body).await
    }

    async fn send(
        &self,
        server: &str,
        address: &str,
        method: Method,
        path: String,
        body: Option<&impl Serialize>,
    ) -> Result<Answer, Failure> {
        let asked = Instant::now();
        let mut address = address.to_owned();
        let mut hops = 0;
        let response = loop {
            let url = match address.contains("://") {
                true => format!("{address}/v1/{path}"),
                false => format!("{}://{address}/v1/{path}", self.scheme),
            };
            let mut request = self.http.request(method.clone(), url).timeout(ANSWER_MAX);
            if let Some(token) = self.operator.token() {
                request = request.bearer_auth(token.secret());
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().await;
            let response = response.map_err(|error| unreachable(server, &address, &error))?;
            if response.status() != StatusCode::MISDIRECTED_REQUEST || hops == HOPS_MAX {
                break response;
            }
            // Another pageserver serves the tenant, and the refusal says which.
            let refusal: Value = response.json().await.unwrap_or_default();
            let Some(http) = refusal.pointer("/pageserver/http").and_then(Value::as_str) else {
                return Err(Failure::unavailable(sentence(server, &refusal)));
            };
            address = http.to_owned();
            hops += 1;
        };
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(server, response).await);
        }
        let bytes = response.bytes().await;
        let bytes = bytes.map_err(|error| unreachable(server, &address, &error))?;
        let took = asked.elapsed();
        if bytes.is_empty() {
            return Ok(Answer { value: Value::Null, took });
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("the {server} answered no JSON: {error}")))?;
        Ok(Answer { value, took })
    }
}

fn unreachable(server: &str, address: &str, error: &reqwest::Error) -> Failure {
    Failure::unavailable(format!(
        "the {server} at {address} cannot be reached ({}); is `offshoot up` running? \
         --control-plane or OFFSHOOT_CONTROL_PLANE says where",
        tls::why(error)
    ))
}

/// What a refusal says.
fn sentence(server: &str, body: &Value) -> String {
    let message = body.get("message").and_then(Value::as_str);
    message.map_or_else(|| format!("the {server} says nothing but no"), str::to_owned)
}

/// The failure that an answer which is an error stands for.
async fn refusal(server: &str, response: Response) -> Failure {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    let sentence = match body.get("message").and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => format!("the {server} answered with HTTP status {status}"),
    };
    let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
    match status.as_u16() {
        404 if code == "no_such_path" => Failure::no_key(format!(
            "the {server} has nothing for you: it wants an operator's token, which `offshoot up` \
             leaves in its data folder, as auth/operator-token, for root alone; run this as root, or \
             name the file with --token-file or OFFSHOOT_TOKEN_FILE"
        )),
        404 => Failure::not_found(sentence),
        409 if code == "not_yet" => Failure::unavailable(sentence),
        409 => Failure::conflict(sentence),
        503 | 504 => Failure::unavailable(sentence),
        _ => Failure::new(sentence),
    }
}

/// A path segment as it stands in a URL (RFC 3986, section 2.3: what is unreserved stays).
pub fn encode(segment: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    segment.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_slash_stays_one_segment() {
        assert_eq!(encode("a/b c"), "a%2Fb%20c");
        assert_eq!(encode("plain-1.x_y~"), "plain-1.x_y~");
    }
}
