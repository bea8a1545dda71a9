//! The management API over HTTP, with a pageserver that knows names alone: what needs no Postgres.

mod consumption;
mod logs;
mod pageserver;
mod regions;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use control_plane::{
    ComputesAt, Config, ConnectAt, ControlPlane, ManagementConfig, PageserverAt, RegionConfig,
    RegionConfigs, Users,
};
use pageserver::Pageserver;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

struct Fixture {
    folder: tempfile::TempDir,
    pageserver: Pageserver,
    control_plane: ControlPlane,
    url: String,
    key: String,
    http: reqwest::Client,
}

async fn start(folder: &Path, pageserver: &Pageserver) -> anyhow::Result<ControlPlane> {
    let regions = RegionConfigs::one(region("here", folder, pageserver.serve().await?)?);
    start_with(folder, regions).await
}

/// A region, with this pageserver.
fn region(id: &str, folder: &Path, pageserver: SocketAddr) -> anyhow::Result<RegionConfig> {
    Ok(RegionConfig {
        id: id.parse().map_err(anyhow::Error::msg)?,
        name: id.to_owned(),
        store: None,
        pageservers: vec![PageserverAt { pages: pageserver, http: pageserver }],
        safekeepers: vec!["127.0.0.1:1".parse()?],
        computes: ComputesAt {
            folder: folder.join("computes"),
            host: "127.0.0.1".parse()?,
            ports: "6990-6999".parse().map_err(anyhow::Error::msg)?,
            users: Users::Shared,
            arguments: vec![],
        },
        tokens: None,
    })
}

async fn start_with(folder: &Path, regions: RegionConfigs) -> anyhow::Result<ControlPlane> {
    Ok(ControlPlane::start(Config {
        http: "127.0.0.1:0".parse()?,
        executable: PathBuf::from("/bin/false"),
        regions,
        certificate: None,
        trust: Default::default(),
        proxy: None,
        suspend_after: None,
        management: Some(ManagementConfig {
            folder: folder.join("catalog"),
            connect_at: ConnectAt { domain: None, host: "127.0.0.1".parse()?, port: 6432 },
            pg_bin: None,
        }),
    })
    .await?)
}

impl Fixture {
    async fn new() -> anyhow::Result<Fixture> {
        Fixture::with(tempfile::tempdir()?, Pageserver::default()).await
    }

    async fn with(folder: tempfile::TempDir, pageserver: Pageserver) -> anyhow::Result<Fixture> {
        let control_plane = start(folder.path(), &pageserver).await?;
        Fixture::over(folder, pageserver, control_plane)
    }

    fn over(
        folder: tempfile::TempDir,
        pageserver: Pageserver,
        control_plane: ControlPlane,
    ) -> anyhow::Result<Fixture> {
        let key = fs::read_to_string(folder.path().join("catalog/api-key"))?.trim().to_owned();
        let url = format!("http://{}/api/v2", control_plane.local_addr());
        let http = reqwest::Client::new();
        Ok(Fixture { folder, pageserver, control_plane, url, key, http })
    }

    /// Ends the control plane, and starts one on what it left.
    async fn again(self) -> anyhow::Result<Fixture> {
        self.control_plane.shutdown().await;
        Fixture::with(self.folder, self.pageserver).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/{path}", self.url)).bearer_auth(&self.key)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        Ok((response.status(), response.json().await?))
    }

    async fn done(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let body = Some(body).filter(|body| !body.is_null());
        let (status, answer) = self.ask(method.clone(), path, body).await?;
        anyhow::ensure!(status.is_success(), "{method} {path}: {status} {answer}");
        Ok(answer)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.done(Method::GET, path, Value::Null).await
    }

    /// A request that must be refused: with this status, in the one form of errors.
    async fn refused(
        &self,
        method: Method,
        path: &str,
        body: Value,
        expected: u16,
    ) -> anyhow::Result<String> {
        let body = Some(body).filter(|body| !body.is_null());
        let (status, answer) = self.ask(method.clone(), path, body).await?;
        anyhow::ensure!(status.as_u16() == expected, "{method} {path}: {status} {answer}");
        for field in ["code", "message", "request_id"] {
            anyhow::ensure!(answer[field].is_string(), "no {field} in {answer}");
        }
        Ok(answer["message"].as_str().unwrap_or_default().to_owned())
    }

    /// A new project's id, whose tenant the pageserver has.
    async fn project(&self) -> anyhow::Result<String> {
        let made = self.done(Method::POST, "projects", json!({ "project": {} })).await?;
        let id = text(&made["project"]["id"]);
        self.finished(&id, &made["operations"][0]).await?;
        Ok(id)
    }

    async fn finished(&self, project: &str, operation: &Value) -> anyhow::Result<()> {
        let path = format!("projects/{project}/operations/{}", text(&operation["id"]));
        for _ in 0..500 {
            let shown = self.get(&path).await?;
            if shown["operation"]["status"] == "finished" {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("{path} does not finish")
    }

    async fn branch(&self, project: &str, branch: Value) -> anyhow::Result<Value> {
        let body = json!({ "branch": branch, "endpoints": [{ "type": "read_write" }] });
        let path = format!("projects/{project}/branches");
        Ok(self.done(Method::POST, &path, body).await?["branch"].clone())
    }

    /// Waits until the pageserver has these branches of a tenant.
    async fn has(&self, project: &str, names: &[&str]) -> anyhow::Result<()> {
        for _ in 0..500 {
            if self.pageserver.branches(project) == names {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("{:?} instead of {names:?}", self.pageserver.branches(project))
    }
}

/// Tries for a while, until it succeeds; then says the last error.
async fn eventually<T>(mut attempt: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut last = attempt().await;
    for _ in 0..500 {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        last = attempt().await;
    }
    last
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_key_and_the_first_one_is_roots_alone() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    for name in ["catalog", "catalog/api-key", "catalog/catalog.sqlite"] {
        let mode = fs::metadata(fixture.folder.path().join(name))?.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
    for header in ["", "Bearer", "Bearer wrong", "Basic abc"] {
        let request = fixture.http.get(format!("{}/projects", fixture.url));
        let response = request.header("authorization", header).send().await?;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{header:?}");
        assert!(response.json::<Value>().await?["request_id"].is_string());
    }
    let made = fixture.done(Method::POST, "api_keys", json!({ "key_name": "ci" })).await?;
    let ask = async |key: &str| -> anyhow::Result<StatusCode> {
        let request = fixture.http.get(format!("{}/projects", fixture.url)).bearer_auth(key);
        Ok(request.send().await?.status())
    };
    assert_eq!(ask(&text(&made["key"])).await?, StatusCode::OK);
    let listed = fixture.get("api_keys").await?;
    assert!(!listed.to_string().contains(&text(&made["key"])), "a key is shown again");
    fixture.done(Method::DELETE, &format!("api_keys/{}", made["id"]), Value::Null).await?;
    assert_eq!(ask(&text(&made["key"])).await?, StatusCode::UNAUTHORIZED);
    // The file of a database holds no key either.
    let file = fs::read(fixture.folder.path().join("catalog/catalog.sqlite"))?;
    let wal = fs::read(fixture.folder.path().join("catalog/catalog.sqlite-wal"))?;
    for bytes in [file, wal] {
        let key = fixture.key.as_bytes();
        assert!(!bytes.windows(key.len()).any(|part| part == key), "the key is in the catalog");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_there_at_once_though_the_pageserver_is_away() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    fixture.pageserver.is_away.store(true, Ordering::SeqCst);
    let body = json!({ "project": { "name": "Shop", "branch": { "role_name": "owner" } } });
    let made = fixture.done(Method::POST, "projects", body).await?;
    let id = text(&made["project"]["id"]);
    assert_eq!(made["operations"][0]["status"], "scheduling");
    assert_eq!(made["branch"]["current_state"], "init");
    let uri = text(&made["connection_uris"][0]["connection_uri"]);
    let password = text(&made["roles"][0]["password"]);
    let endpoint = text(&made["endpoints"][0]["id"]);
    let expected = format!(
        "postgresql://owner:{password}@127.0.0.1:6432/app?sslmode=require\
         &options=endpoint%3D{endpoint}"
    );
    assert_eq!(uri, expected);
    // It survives an end, and its tenant is made when the pageserver is back.
    let fixture = fixture.again().await?;
    assert_eq!(fixture.get(&format!("projects/{id}")).await?["project"]["name"], "Shop");
    fixture.pageserver.is_away.store(false, Ordering::SeqCst);
    fixture.finished(&id, &made["operations"][0]).await?;
    fixture.has(&id, &["main"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_key_of_its_own_makes_one_project_however_often_it_is_sent()
-> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let send = async |name: &str| -> anyhow::Result<(StatusCode, Value)> {
        let request = fixture.request(Method::POST, "projects").header("Idempotency-Key", "once");
        let response = request.json(&json!({ "project": { "name": name } })).send().await?;
        Ok((response.status(), response.json().await?))
    };
    let (first, again) = (send("a").await?.1, send("a").await?.1);
    assert_eq!(first["project"]["id"], again["project"]["id"]);
    assert_eq!(first["connection_uris"], again["connection_uris"]);
    assert_eq!(send("b").await?.0, StatusCode::UNPROCESSABLE_ENTITY);
    let listed = fixture.get("projects").await?;
    assert_eq!(listed["projects"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_and_a_deleted_project_comes_back() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(fixture.project().await?);
    }
    ids.sort();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = fixture.get(&format!("projects?limit=2&cursor={cursor}")).await?;
        let projects = page["projects"].as_array().cloned().unwrap_or_default();
        if projects.is_empty() {
            break;
        }
        seen.extend(projects.iter().map(|project| text(&project["id"])));
        cursor = text(&page["pagination"]["cursor"]);
    }
    assert_eq!(seen, ids);
    let path = format!("projects/{}", ids[0]);
    fixture.done(Method::DELETE, &path, Value::Null).await?;
    fixture.refused(Method::GET, &path, Value::Null, 404).await?;
    fixture.refused(Method::GET, &format!("{path}/branches"), Value::Null, 404).await?;
    let deleted = fixture.get("projects?recoverable=true").await?;
    assert_eq!(text(&deleted["projects"][0]["id"]), ids[0]);
    fixture.done(Method::POST, &format!("{path}/recover"), Value::Null).await?;
    assert_eq!(fixture.get(&path).await?["project"]["id"], ids[0].as_str());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_made_at_a_moment_and_one_that_is_refused_leaves_nothing() -> anyhow::Result<()>
{
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let branch = fixture.branch(&project, json!({ "name": "try", "parent_lsn": "0/AB" })).await?;
    assert_eq!(branch["current_state"], "ready");
    assert_eq!(branch["parent_lsn"], "0/AB");
    let path = format!("projects/{project}/branches");
    let gone = json!({ "branch": { "name": "old", "parent_lsn": "0/DEAD" } });
    fixture.refused(Method::POST, &path, gone, 422).await?;
    let taken = json!({ "branch": { "name": "try" } });
    fixture.refused(Method::POST, &path, taken, 409).await?;
    let listed = fixture.get(&path).await?;
    assert_eq!(listed["branches"].as_array().map(Vec::len), Some(2), "{listed}");
    assert!(listed["annotations"].is_object());
    fixture.has(&project, &["main", &format!("{}_0", text(&branch["id"]))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_the_id_and_the_old_state_under_its_name() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let path = format!("projects/{project}/branches");
    let child = fixture.branch(&project, json!({ "name": "child" })).await?;
    let listed = fixture.get(&path).await?;
    let main = text(&listed["branches"][0]["id"]);
    // The default branch, first of its tenant, put back to its own past.
    let body = json!({
        "source_branch_id": main, "source_lsn": "0/AB", "preserve_under_name": "before",
    });
    let restored = fixture.done(Method::POST, &format!("{path}/{main}/restore"), body).await?;
    let restored = &restored["branch"];
    assert_eq!((text(&restored["id"]), text(&restored["name"])), (main.clone(), "main".to_owned()));
    let before = text(&restored["parent_id"]);
    let shown = fixture.get(&format!("{path}/{before}")).await?;
    assert_eq!(shown["branch"]["name"], "before");
    // What was made of it before came from what is now under that name.
    let child_path = format!("{path}/{}", text(&child["id"]));
    assert_eq!(fixture.get(&child_path).await?["branch"]["parent_id"], before.as_str());
    // Its endpoint is still its own.
    let endpoints = fixture.get(&format!("{path}/{main}/endpoints")).await?;
    assert_eq!(text(&endpoints["endpoints"][0]["id"]), format!("ep-{project}"));
    // Reset from another branch, without keeping: the old timeline goes.
    let body = json!({ "source_branch_id": before });
    fixture.done(Method::POST, &format!("{child_path}/restore"), body).await?;
    let child = text(&child["id"]);
    fixture.has(&project, &["main", &format!("{main}_0"), &format!("{child}_1")]).await?;
    // Itself, at no moment, makes no sense.
    let body = json!({ "source_branch_id": child });
    fixture.refused(Method::POST, &format!("{child_path}/restore"), body, 400).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_is_deleted_and_its_history_lives_on_for_its_child() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let path = format!("projects/{project}/branches");
    let parent = text(&fixture.branch(&project, json!({ "name": "parent" })).await?["id"]);
    let of_parent = json!({ "name": "child", "parent_id": parent });
    let child = text(&fixture.branch(&project, of_parent).await?["id"]);
    fixture.done(Method::DELETE, &format!("{path}/{parent}"), Value::Null).await?;
    fixture.refused(Method::GET, &format!("{path}/{parent}"), Value::Null, 404).await?;
    let shown = fixture.get(&format!("{path}/{child}")).await?;
    assert!(shown["branch"]["parent_id"].is_null(), "{shown}");
    fixture.has(&project, &["main", &format!("{parent}_0"), &format!("{child}_0")]).await?;
    fixture.done(Method::DELETE, &format!("{path}/{child}"), Value::Null).await?;
    fixture.has(&project, &["main"]).await?;
    let main = format!("{path}/br-{project}");
    fixture.refused(Method::DELETE, &main, Value::Null, 422).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_expires_is_gone_and_a_protected_one_is_not() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let path = format!("projects/{project}/branches");
    let branch = text(&fixture.branch(&project, json!({ "name": "brief" })).await?["id"]);
    let one = format!("{path}/{branch}");
    let protect = json!({ "branch": { "protected": true } });
    fixture.done(Method::PATCH, &one, protect).await?;
    fixture.refused(Method::DELETE, &one, Value::Null, 422).await?;
    let soon = json!({ "branch": { "expires_at": "2999-01-01T00:00:00Z" } });
    fixture.refused(Method::PATCH, &one, soon.clone(), 422).await?;
    let past = json!({ "branch": { "protected": false, "expires_at": "2000-01-01T00:00:00Z" } });
    fixture.refused(Method::PATCH, &one, past, 400).await?;
    fixture.done(Method::PATCH, &one, json!({ "branch": { "protected": false } })).await?;
    let shown = fixture.done(Method::PATCH, &one, soon).await?;
    assert_eq!(shown["branch"]["expires_at"], "2999-01-01T00:00:00Z");
    let never = json!({ "branch": { "expires_at": null } });
    let shown = fixture.done(Method::PATCH, &one, never).await?;
    assert!(shown["branch"]["expires_at"].is_null());
    // A moment from now: the name says when, and the clock comes to it.
    let now = std::time::SystemTime::now() + Duration::from_millis(1500);
    let at = time::OffsetDateTime::from(now);
    let at = at.format(&time::format_description::well_known::Rfc3339)?;
    fixture.done(Method::PATCH, &one, json!({ "branch": { "expires_at": at } })).await?;
    fixture.has(&project, &["main"]).await?;
    fixture.refused(Method::GET, &one, Value::Null, 404).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_databases_of_a_sleeping_branch_wait_for_its_start() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let path = format!("projects/{project}/branches/br-{project}");
    let role = json!({ "role": { "name": "it's \"me\"" } });
    let made = fixture.done(Method::POST, &format!("{path}/roles"), role.clone()).await?;
    assert_eq!(made["operations"][0]["status"], "finished");
    fixture.refused(Method::POST, &format!("{path}/roles"), role, 409).await?;
    let name = "it%27s%20%22me%22";
    let revealed = fixture.get(&format!("{path}/roles/{name}/reveal_password")).await?;
    assert_eq!(revealed["password"], made["role"]["password"]);
    let reset = fixture
        .done(Method::POST, &format!("{path}/roles/{name}/reset_password"), Value::Null)
        .await?;
    assert_ne!(reset["role"]["password"], made["role"]["password"]);
    let database = json!({ "database": { "name": "shop", "owner_name": "it's \"me\"" } });
    fixture.done(Method::POST, &format!("{path}/databases"), database).await?;
    // A role that owns a database stays.
    let said =
        fixture.refused(Method::DELETE, &format!("{path}/roles/{name}"), Value::Null, 422).await?;
    assert!(said.contains("shop"), "{said}");
    fixture.done(Method::DELETE, &format!("{path}/databases/shop"), Value::Null).await?;
    fixture.done(Method::DELETE, &format!("{path}/roles/{name}"), Value::Null).await?;
    let revealed = fixture.get(&format!("{path}/roles/app/reveal_password")).await?;
    assert!(revealed["password"].as_str().is_some_and(|password| password.len() == 40));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compute_that_does_not_come_up_is_a_failed_operation() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let path = format!("projects/{project}/endpoints/ep-{project}");
    let asked = fixture.done(Method::POST, &format!("{path}/start"), Value::Null).await?;
    assert_eq!(asked["operations"][0]["status"], "running");
    let operation =
        format!("projects/{project}/operations/{}", text(&asked["operations"][0]["id"]));
    let mut shown = Value::Null;
    for _ in 0..500 {
        shown = fixture.get(&operation).await?["operation"].clone();
        if shown["status"] == "failed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shown["status"], "failed");
    assert_eq!(shown["failures_count"], 1);
    assert!(shown["error"].is_string(), "{shown}");
    assert_eq!(fixture.get(&path).await?["endpoint"]["current_state"], "idle");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_a_sentence_with_the_right_status() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let branches = format!("projects/{project}/branches");
    let main = format!("{branches}/br-{project}");
    let of_project = |fields: Value| json!({ "project": fields });
    let of_branch = |fields: Value| json!({ "branch": fields });
    let long = "x".repeat(300);
    let post = Method::POST;
    let cases = [
        (post.clone(), "projects".to_owned(), of_project(json!({ "pg_version": 16 })), 422),
        (post.clone(), "projects".to_owned(), of_project(json!({ "pg_version": "x" })), 400),
        (post.clone(), "projects".to_owned(), of_project(json!({ "name": long })), 400),
        (post.clone(), "projects".to_owned(), of_project(json!({ "region_id": "moon" })), 422),
        (post.clone(), branches.clone(), of_branch(json!({ "parent_lsn": "12" })), 400),
        (post.clone(), branches.clone(), of_branch(json!({ "parent_timestamp": "soon" })), 400),
        (
            post.clone(),
            branches.clone(),
            of_branch(json!({ "parent_lsn": "0/1", "parent_timestamp": "2026-01-01T00:00:00Z" })),
            400,
        ),
        (post.clone(), branches.clone(), of_branch(json!({ "parent_id": "br-no" })), 404),
        (
            post.clone(),
            branches.clone(),
            json!({ "branch": {}, "endpoints": [{ "type": "write_only" }] }),
            400,
        ),
        (post.clone(), format!("{main}/roles"), json!({ "role": { "name": "postgres" } }), 400),
        (post.clone(), format!("{main}/roles"), json!({ "role": {} }), 400),
        (
            post.clone(),
            format!("{main}/databases"),
            json!({ "database": { "name": "d", "owner_name": "nobody" } }),
            422,
        ),
        (
            post.clone(),
            format!("projects/{project}/endpoints"),
            json!({ "endpoint": { "branch_id": format!("br-{project}"), "type": "read_write" } }),
            409,
        ),
        (Method::GET, "projects?limit=0".to_owned(), Value::Null, 400),
        (Method::GET, "projects?limit=x".to_owned(), Value::Null, 400),
        (Method::GET, "nowhere".to_owned(), Value::Null, 404),
        (Method::PUT, "projects".to_owned(), Value::Null, 405),
        (Method::GET, "projects/none".to_owned(), Value::Null, 404),
    ];
    for (method, path, body, status) in cases {
        fixture.refused(method, &path, body, status).await?;
    }
    let oversized = json!({ "project": { "name": "x".repeat(70_000) } });
    fixture.refused(post, "projects", oversized, 413).await?;
    let answer = fixture.request(Method::POST, "projects").body("{").send().await?;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    // Another project's things are not there.
    let other = fixture.project().await?;
    let path = format!("projects/{other}/branches/br-{project}");
    fixture.refused(Method::GET, &path, Value::Null, 404).await?;
    let path = format!("projects/{other}/endpoints/ep-{project}");
    fixture.refused(Method::GET, &path, Value::Null, 404).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_made_with_endpoints_to_write_and_to_read_only() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let kinds = ["read_only", "read_write", "read_only"];
    let endpoints = kinds.map(|kind| json!({ "type": kind }));
    let body = json!({ "branch": { "name": "try" }, "endpoints": endpoints });
    let path = format!("projects/{project}/branches");
    let made = fixture.done(Method::POST, &path, body).await?;
    let branch = text(&made["branch"]["id"]);
    let listed = fixture.get(&format!("{path}/{branch}/endpoints")).await?;
    for shown in [&made, &listed] {
        let kinds: Vec<_> = shown["endpoints"].as_array().into_iter().flatten().collect();
        let kinds: Vec<String> = kinds.into_iter().map(|shown| text(&shown["type"])).collect();
        assert_eq!(kinds, ["read_write", "read_only", "read_only"], "{shown}");
    }
    // Each is connected to by a name of its own.
    let uris = made["connection_uris"].to_string();
    for endpoint in listed["endpoints"].as_array().into_iter().flatten() {
        let id = text(&endpoint["id"]);
        assert!(uris.contains(&id), "{id} is not in {uris}");
        let asked = format!(
            "projects/{project}/connection_uri?endpoint_id={id}&branch_id={branch}\
             &database_name=app&role_name=app"
        );
        assert!(fixture.get(&asked).await?["uri"].to_string().contains(&id));
    }
    let first = &listed["endpoints"][1];
    let path = format!("projects/{project}/endpoints/{}", text(&first["id"]));
    let change = json!({ "endpoint": { "autoscaling_limit_max_cu": 2, "name": "reports" } });
    let changed = fixture.done(Method::PATCH, &path, change).await?;
    assert_eq!(changed["endpoint"]["type"], "read_only");
    fixture.done(Method::DELETE, &path, Value::Null).await?;
    let left = fixture.get(&format!("projects/{project}/branches/{branch}/endpoints")).await?;
    assert_eq!(left["endpoints"].as_array().map(Vec::len), Some(2), "{left}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_is_made_of_what_the_pageserver_has() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    let branch = text(&fixture.branch(&project, json!({ "name": "try" })).await?["id"]);
    let Fixture { folder, pageserver, control_plane, .. } = fixture;
    control_plane.shutdown().await;
    fs::remove_dir_all(folder.path().join("catalog"))?;
    let fixture = Fixture::with(folder, pageserver).await?;
    let endpoints = fixture.get(&format!("projects/{project}/endpoints")).await?;
    let ids: Vec<String> = endpoints["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|endpoint| text(&endpoint["id"]))
        .collect();
    assert!(ids.contains(&format!("ep-{project}")), "{ids:?}");
    assert!(ids.contains(&branch.replace("br-", "ep-")), "{ids:?}");
    let shown = fixture.get(&format!("projects/{project}/branches/{branch}")).await?;
    assert_eq!(shown["branch"]["parent_id"], format!("br-{project}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_has_every_route_and_needs_no_key() -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let response = fixture.http.get(format!("{}/openapi.json", fixture.url)).send().await?;
    let description: Value = response.json().await?;
    let paths = description["paths"].as_object().cloned().unwrap_or_default();
    assert!(paths.len() >= 30, "{} paths", paths.len());
    let restore = "/projects/{project_id}/branches/{branch_id}/restore";
    assert!(paths.contains_key(restore), "{paths:?}");
    // Each is served: an unknown id is refused by its handler, not as an unknown path.
    for (path, methods) in &paths {
        let path = path
            .replace("{key_id}", "0")
            .replace("{project_id}", "none")
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for method in methods.as_object().into_iter().flat_map(|methods| methods.keys()) {
            let method: Method = method.to_uppercase().parse()?;
            let (_, answer) =
                fixture.ask(method.clone(), path.trim_start_matches('/'), None).await?;
            let message = answer["message"].as_str().unwrap_or_default();
            assert!(!message.contains("is not served"), "{method} {path}");
            assert!(!message.contains("is not possible"), "{method} {path}");
        }
    }
    Ok(())
}
