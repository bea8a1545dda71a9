//! A pageserver's admin API over a table in memory: tenants and branches, as
//! `docs/formats/admin-api.md` has them, without any page.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing::{delete, get},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

type Answer = (StatusCode, Json<Value>);

/// Tenants by name, each with its branches.
#[derive(Clone, Default)]
pub struct Pageserver {
    tenants: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    /// What it says that each tenant used: bytes of WAL, and bytes that its branch main holds.
    pub usage: Arc<Mutex<BTreeMap<String, [u64; 2]>>>,
    /// It answers 503.
    pub is_away: Arc<AtomicBool>,
    /// It takes requests, and answers none.
    pub is_hanging: Arc<AtomicBool>,
    /// The names of its templates.
    pub templates: Arc<Mutex<BTreeSet<String>>>,
    /// How often it answered so where all usage was asked for.
    pub refused_lists: Arc<AtomicUsize>,
}

impl Pageserver {
    /// Serves it.
    pub async fn serve(&self) -> anyhow::Result<SocketAddr> {
        let router = Router::new()
            .route("/v1/tenants", get(list).post(create))
            .route("/v1/tenants/{tenant}", get(show).delete(remove).patch(show))
            .route("/v1/tenants/{tenant}/branches", get(branches).post(branch))
            .route("/v1/tenants/{tenant}/branches/{branch}", delete(remove_branch).get(one))
            .route("/v1/usage", get(all_usage).post(some_usage))
            .route("/v1/templates", get(templates))
            .route("/v1/templates/{template}", get(template))
            .layer(middleware::from_fn_with_state(self.clone(), hang))
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(address)
    }

    /// The names of a tenant's branches.
    pub fn branches(&self, tenant: &str) -> Vec<String> {
        let tenants = self.tenants.lock();
        let branches = tenants.get(tenant).map(Vec::as_slice).unwrap_or_default();
        branches.iter().filter_map(|branch| branch["name"].as_str()).map(str::to_owned).collect()
    }

    fn away(&self) -> Option<Answer> {
        let refusal = || said(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
        self.is_away.load(Ordering::SeqCst).then(refusal)
    }
}

async fn hang(State(server): State<Pageserver>, request: Request, next: Next) -> Response {
    while server.is_hanging.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    next.run(request).await
}

async fn templates(State(server): State<Pageserver>) -> Answer {
    let named = |name: &String| json!({ "name": name, "id": name });
    let templates: Vec<Value> = server.templates.lock().iter().map(named).collect();
    (StatusCode::OK, Json(json!({ "templates": templates })))
}

async fn template(State(server): State<Pageserver>, Path(name): Path<String>) -> Answer {
    match server.templates.lock().contains(&name) {
        true => (StatusCode::OK, Json(json!({ "name": name, "id": name }))),
        false => said(StatusCode::NOT_FOUND, "not_found"),
    }
}

fn said(status: StatusCode, code: &str) -> Answer {
    (status, Json(json!({ "code": code, "message": format!("the pageserver says {code}") })))
}

fn tenant(name: &str) -> Value {
    json!({
        "id": format!("{:032x}", name.len()),
        "name": name,
        "created_at": "2026-03-01T12:00:00Z",
        "history": { "seconds": 60 },
    })
}

/// The id of a branch's timeline.
pub fn timeline_id(name: &str) -> String {
    let sum: u64 = name.bytes().map(u64::from).sum();
    format!("{sum:016x}{:016x}", name.len())
}

fn new_branch(name: &str, parent: Option<&str>, lsn: &str) -> Value {
    let tenant = "00000000000000000000000000000001";
    json!({
        "name": name,
        "tenant_id": tenant,
        "timeline_id": timeline_id(name),
        "ancestor": parent.map(|name| json!({ "tenant_id": tenant, "name": name })),
        "branch_point": lsn,
        "created_at": "2026-03-01T12:00:00Z",
        "logical_size_bytes": 8192,
    })
}

async fn list(State(server): State<Pageserver>) -> Answer {
    let tenants: Vec<Value> = server.tenants.lock().keys().map(|name| tenant(name)).collect();
    (StatusCode::OK, Json(json!({ "tenants": tenants })))
}

fn usage(name: &str, [written, held]: [u64; 2]) -> Value {
    let total = json!({
        "wal_written_bytes": written,
        "logical_size_bytes": held,
        "stored_bytes": held / 2,
    });
    let main = json!({ "name": "main", "wal_written_bytes": written, "logical_size_bytes": held });
    let branches = json!([main]);
    json!({ "name": name, "total": total, "branches": branches })
}

/// In pages of one.
async fn all_usage(State(server): State<Pageserver>, Query(query): Query<Value>) -> Answer {
    if let Some(answer) = server.away() {
        server.refused_lists.fetch_add(1, Ordering::SeqCst);
        return answer;
    }
    let after = query["after"].as_str().unwrap_or_default().to_owned();
    let used = server.usage.lock();
    let mut later = used.range((Bound::Excluded(after), Bound::Unbounded));
    let page: Vec<Value> =
        later.next().map(|(name, used)| usage(name, *used)).into_iter().collect();
    let next = page.first().filter(|_| later.next().is_some()).map(|it| it["name"].clone());
    (StatusCode::OK, Json(json!({ "tenants": page, "next": next })))
}

async fn some_usage(State(server): State<Pageserver>, Json(body): Json<Value>) -> Answer {
    let used = server.usage.lock();
    let asked = body["tenants"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let found = asked.filter_map(|name| Some(usage(name, *used.get(name)?)));
    (StatusCode::OK, Json(json!({ "tenants": found.collect::<Vec<_>>() })))
}

async fn create(State(server): State<Pageserver>, Json(body): Json<Value>) -> Answer {
    if let Some(answer) = server.away() {
        return answer;
    }
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let mut tenants = server.tenants.lock();
    if tenants.contains_key(&name) {
        return said(StatusCode::CONFLICT, "exists");
    }
    let shown = tenant(&name);
    tenants.insert(name, vec![new_branch("main", None, "0/1")]);
    (StatusCode::CREATED, Json(shown))
}

async fn show(State(server): State<Pageserver>, Path(name): Path<String>) -> Answer {
    match server.tenants.lock().contains_key(&name) {
        true => (StatusCode::OK, Json(tenant(&name))),
        false => said(StatusCode::NOT_FOUND, "not_found"),
    }
}

async fn remove(State(server): State<Pageserver>, Path(name): Path<String>) -> Answer {
    match server.tenants.lock().remove(&name) {
        Some(_) => (StatusCode::NO_CONTENT, Json(Value::Null)),
        None => said(StatusCode::NOT_FOUND, "not_found"),
    }
}

async fn branches(State(server): State<Pageserver>, Path(tenant): Path<String>) -> Answer {
    // The tenant's id is asked for, too.
    let tenants = server.tenants.lock();
    let by_id = |name: &&String| format!("{:032x}", name.len()) == tenant;
    let name = tenants.keys().find(by_id).cloned().unwrap_or(tenant);
    match tenants.get(&name) {
        Some(branches) => (StatusCode::OK, Json(json!({ "branches": branches }))),
        None => said(StatusCode::NOT_FOUND, "not_found"),
    }
}

async fn branch(
    State(server): State<Pageserver>,
    Path(tenant): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    if let Some(answer) = server.away() {
        return answer;
    }
    let lsn = body.pointer("/at/lsn").and_then(Value::as_str).unwrap_or("0/2").to_owned();
    if lsn == "0/DEAD" {
        return said(StatusCode::GONE, "gone");
    }
    let name = body["name"].as_str().unwrap_or_default();
    let from = body["from"].as_str().unwrap_or("main");
    let mut tenants = server.tenants.lock();
    let Some(branches) = tenants.get_mut(&tenant) else {
        return said(StatusCode::NOT_FOUND, "not_found");
    };
    if branches.iter().any(|branch| branch["name"] == name) {
        return said(StatusCode::CONFLICT, "exists");
    }
    let made = new_branch(name, Some(from), &lsn);
    branches.push(made.clone());
    (StatusCode::CREATED, Json(made))
}

async fn one(
    State(server): State<Pageserver>,
    Path((tenant, name)): Path<(String, String)>,
) -> Answer {
    let tenants = server.tenants.lock();
    let found = tenants.get(&tenant).and_then(|all| all.iter().find(|it| it["name"] == name));
    match found {
        Some(branch) => (StatusCode::OK, Json(branch.clone())),
        None => said(StatusCode::NOT_FOUND, "not_found"),
    }
}

async fn remove_branch(
    State(server): State<Pageserver>,
    Path((tenant, name)): Path<(String, String)>,
) -> Answer {
    if let Some(answer) = server.away() {
        return answer;
    }
    let mut tenants = server.tenants.lock();
    let Some(branches) = tenants.get_mut(&tenant) else {
        return said(StatusCode::NOT_FOUND, "not_found");
    };
    if branches.iter().any(|branch| branch["ancestor"]["name"] == name) || name == "main" {
        return said(StatusCode::BAD_REQUEST, "bad_request");
    }
    branches.retain(|branch| branch["name"] != name);
    (StatusCode::NO_CONTENT, Json(Value::Null))
}
