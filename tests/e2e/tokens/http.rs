//! The HTTP APIs. Which routes there are, the routers themselves say.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use protocol::token::{Scope, Token};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::Two;
use crate::harness::token_for;

const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// A body that is right for nothing, and big enough for most.
fn body() -> Value {
    json!({ "name": "made", "tenant": "theirs", "branch": "main", "to": "a", "template": "default" })
}

async fn ask(
    client: &Client,
    method: Method,
    url: &str,
    token: Option<&Token>,
) -> anyhow::Result<(StatusCode, String)> {
    let mut request = client.request(method, url).json(&body());
    if let Some(token) = token {
        request = request.bearer_auth(token.secret());
    }
    let answer = request.send().await?;
    Ok((answer.status(), answer.text().await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_route_there_is_nothing_for_another_tenants_token() -> anyhow::Result<()> {
    let two = Two::start().await?;
    let api = &two.cluster.api;
    let mut tokens = two.wrong_tokens()?;
    // What a compute and a server have opens none of these either.
    tokens.push(("their own", Some(token_for(Scope::Tenant(two.theirs.tenant)))));
    tokens.push(("a server's", Some(token_for(Scope::Peer))));

    let doors: [(SocketAddr, Vec<&str>); 3] = [
        (api.pageserver, pageserver::http_paths()),
        (api.control_plane, control_plane::http_paths()),
        (two.cluster.safekeeper_http, safekeeper::http_paths()),
    ];
    let client = Client::new();
    for (server, paths) in doors {
        ensure!(paths.len() > 2, "{server} has {paths:?} only");
        for path in paths {
            let path = path
                .replace("{tenant}", "theirs")
                .replace("{branch}", "main")
                .replace("{snapshot}", "noon")
                .replace("{template}", "default");
            ensure!(!path.contains('{'), "{path} has a part that this test does not fill");
            for (what, token) in &tokens {
                for method in METHODS {
                    let url = format!("http://{server}{path}");
                    let found = ask(&client, method.clone(), &url, token.as_ref()).await?;
                    // The same as where there is nothing at all.
                    let nowhere = format!("http://{server}{path}nowhere");
                    let nothing = ask(&client, method.clone(), &nowhere, token.as_ref()).await?;
                    let expected = (nothing.0, nothing.1.replace("nowhere", ""));
                    ensure!(found == expected, "{what}: {method} {url}: {found:?}");
                    ensure!(found.0 == StatusCode::NOT_FOUND, "{what}: {method} {url}: {found:?}");
                }
            }
        }
    }
    // Nothing was changed by any of it, and an operator finds it all.
    for tenant in ["ours", "theirs"] {
        let compute = api.compute(tenant, "main").await?;
        ensure!(compute.state == control_plane::State::Running, "{compute:?}");
    }
    let tenants = api.storage(Method::GET, "tenants", None).await?;
    ensure!(tenants["tenants"].as_array().map(Vec::len) == Some(2), "{tenants}");
    // Each was counted by its reason.
    for server in [api.pageserver, api.control_plane, two.cluster.safekeeper_http] {
        let metrics = api.metrics(server).await?;
        for reason in ["none", "not_signed", "expired", "foreign"] {
            let label = format!("tokens_refused_total{{door=\"http\",reason=\"{reason}\"}}");
            ensure!(metrics.contains(&label), "{server} does not count {reason}:\n{metrics}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_opens_the_management_api() -> anyhow::Result<()> {
    let two = Two::start().await?;
    let base = format!("http://{}/api/v2", two.cluster.api.control_plane);
    let client = Client::new();
    let document: Value = client.get(format!("{base}/openapi.json")).send().await?.json().await?;
    let routes = document["paths"].as_object().context("the routes")?;
    ensure!(routes.len() > 30, "{} routes", routes.len());
    let mut tokens = two.wrong_tokens()?;
    for scope in [Scope::Tenant(two.theirs.tenant), Scope::Peer, Scope::Operator] {
        tokens.push(("a token", Some(token_for(scope))));
    }
    for (path, methods) in routes {
        let filled: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "theirs" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for method in methods.as_object().into_iter().flatten().map(|(method, _)| method) {
            let method: Method = method.to_uppercase().parse()?;
            for (what, token) in &tokens {
                let url = format!("{base}{filled}");
                let (status, said) = ask(&client, method.clone(), &url, token.as_ref()).await?;
                ensure!(status == StatusCode::UNAUTHORIZED, "{what}: {method} {url}: {said}");
            }
        }
    }
    Ok(())
}
