//! The control plane over HTTP, with a compute that is a shell script and a pageserver that knows
//! one branch.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use axum::{Json, Router, extract, routing::get};
use control_plane::{
    Compute, ComputesAt, Config, ControlPlane, ErrorBody, PageserverAt, PortRange, RegionConfig,
    RegionConfigs, State, Users,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const TENANT: &str = "00000000000000000000000000000001";
const FIRST: &str = "0000000000000000000000000000000a";
const SECOND: &str = "0000000000000000000000000000000b";

/// A compute that is ready at once, and leaves as it should.
const GOOD: &str = r#"
echo '{"event":"ready","port":1,"stages_ms":{"elect":1.5}}'
cat > /dev/null
echo '{"event":"stopped"}'
"#;

/// One that says why it cannot start.
const NO_FUSE: &str = r#"
echo '{"event":"failed","reason":"there is no /dev/fuse: load the module"}'
exit 1
"#;

/// One that leaves a process of its own behind.
const LITTERING: &str = r#"
sleep 1000 &
echo $! > "$(dirname "$0")/orphan"
echo '{"event":"ready","port":1,"stages_ms":{}}'
kill -9 $$
"#;

/// One whose folder takes a while to remove.
const LARGE: &str = r#"
while [ $# -gt 0 ] && [ "$1" != --folder ]; do shift; done
mkdir -p "$2"
(cd "$2" && seq 2000 | xargs touch)
echo '{"event":"ready","port":1,"stages_ms":{}}'
exec cat > /dev/null
"#;

struct Fixture {
    _folder: tempfile::TempDir,
    control_plane: ControlPlane,
    url: String,
    http: reqwest::Client,
}

impl Fixture {
    async fn new(compute: &str, timeline: &'static str) -> anyhow::Result<Fixture> {
        let pageserver = pageserver(timeline).await?;
        Fixture::with_pageserver(compute, pageserver).await
    }

    async fn with_pageserver(compute: &str, pageserver: SocketAddr) -> anyhow::Result<Fixture> {
        let folder = tempfile::tempdir()?;
        let executable = folder.path().join("compute.sh");
        fs::write(&executable, format!("#!/bin/sh\n{compute}"))?;
        fs::set_permissions(&executable, fs::Permissions::from_mode(0o755))?;
        let region = RegionConfig {
            id: "local".parse().map_err(anyhow::Error::msg)?,
            name: "local".to_owned(),
            store: None,
            pageservers: vec![PageserverAt { pages: pageserver, http: pageserver }],
            safekeepers: vec![],
            computes: ComputesAt {
                folder: folder.path().join("computes"),
                host: "127.0.0.1".parse()?,
                ports: own_ports()?,
                users: Users::Shared,
                arguments: vec![],
            },
            tokens: None,
        };
        let control_plane = ControlPlane::start(Config {
            http: "127.0.0.1:0".parse()?,
            executable,
            regions: RegionConfigs::one(region),
            certificate: None,
            trust: Default::default(),
            proxy: None,
            suspend_after: None,
            management: None,
        })
        .await?;
        let url = format!("http://{}/v1", control_plane.local_addr());
        Ok(Fixture { _folder: folder, control_plane, url, http: reqwest::Client::new() })
    }

    fn path(&self) -> &Path {
        self._folder.path()
    }

    async fn start(&self, body: Value) -> anyhow::Result<reqwest::Response> {
        Ok(self.http.post(format!("{}/computes", self.url)).json(&body).send().await?)
    }

    async fn started(&self) -> anyhow::Result<Compute> {
        let response = self.start(json!({ "tenant": "acme" })).await?;
        anyhow::ensure!(response.status().is_success(), "{}", response.text().await?);
        Ok(response.json().await?)
    }

    async fn show(&self) -> anyhow::Result<Compute> {
        let url = format!("{}/computes/acme/main", self.url);
        Ok(self.http.get(url).send().await?.json().await?)
    }
}

/// Ports of this fixture alone: to see whether a port is free is to hold it for a moment, so two
/// control planes of one range may each find the other's looking.
fn own_ports() -> anyhow::Result<PortRange> {
    static NEXT: AtomicU16 = AtomicU16::new(6500);
    let first = NEXT.fetch_add(10, Ordering::Relaxed);
    format!("{first}-{}", first + 9).parse().map_err(anyhow::Error::msg)
}

/// A pageserver that knows acme's branch main, and where it is.
async fn pageserver(timeline: &'static str) -> anyhow::Result<SocketAddr> {
    let branch = move |extract::Path(branch): extract::Path<String>| async move {
        let body = match branch.as_str() {
            "main" => json!({ "name": "main", "tenant_id": TENANT, "timeline_id": timeline }),
            _ => json!({ "code": "not_found", "message": "acme has no such branch" }),
        };
        let status = if branch == "main" { StatusCode::OK } else { StatusCode::NOT_FOUND };
        (status, Json(body))
    };
    let router = Router::new()
        .route("/v1/tenants/acme", get(|| async { Json(json!({ "id": TENANT, "name": "acme" })) }))
        .route("/v1/tenants/acme/branches/{branch}", get(branch));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

#[tokio::test]
async fn a_compute_starts_once_stops_and_keeps_its_port() -> anyhow::Result<()> {
    let fixture = Fixture::new(GOOD, FIRST).await?;
    let first = fixture.started().await?;
    assert_eq!(first.state, State::Running);
    assert_eq!(first.stages_ms.get("elect"), Some(&1.5));
    let again = fixture.started().await?;
    assert_eq!(first.pid, again.pid, "a running compute was started a second time");

    let url = format!("{}/computes/acme/main", fixture.url);
    let stopped: Compute = fixture.http.delete(&url).send().await?.json().await?;
    assert_eq!((stopped.state, stopped.pid), (State::Stopped, None));
    assert_eq!(fixture.started().await?.port, first.port);

    let other = fixture.start(json!({ "tenant": "acme", "port": 1 })).await?;
    assert_eq!(other.status(), StatusCode::CONFLICT);
    fixture.control_plane.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_compute_that_cannot_start_says_why() -> anyhow::Result<()> {
    let fixture = Fixture::new(NO_FUSE, FIRST).await?;
    let response = fixture.start(json!({ "tenant": "acme" })).await?;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body: ErrorBody = response.json().await?;
    assert_eq!(body.code, "compute_failed");
    assert!(body.message.contains("there is no /dev/fuse"), "{}", body.message);
    assert_eq!(fixture.show().await?.state, State::Failed);
    Ok(())
}

#[tokio::test]
async fn a_killed_compute_is_seen_and_nothing_of_it_is_left() -> anyhow::Result<()> {
    let fixture = Fixture::new(LITTERING, FIRST).await?;
    // It may be killed before or after its readiness was heard.
    let _started = fixture.start(json!({ "tenant": "acme" })).await?;
    let mut compute = fixture.show().await?;
    for _ in 0..6000 {
        if compute.state == State::Failed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        compute = fixture.show().await?;
    }
    assert_eq!(compute.state, State::Failed);
    assert!(compute.reason.is_some_and(|reason| reason.contains("signal: 9")));
    let orphan = fs::read_to_string(fixture.path().join("orphan"))?;
    let stat = format!("/proc/{}/stat", orphan.trim());
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    // A signal that cannot be caught still takes its time.
    for _ in 0..6000 {
        if is_gone() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("what the compute had started lives on")
}

#[tokio::test]
async fn a_compute_that_was_killed_is_never_taken_for_one_that_runs() -> anyhow::Result<()> {
    let fixture = Fixture::new(LARGE, FIRST).await?;
    let killed = fixture.started().await?;
    let pid = killed.pid.ok_or_else(|| anyhow::anyhow!("a running compute has a pid"))?;
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    // Its process is gone long before its folder is.
    while Path::new(&format!("/proc/{pid}")).exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let next = fixture.started().await?;
    assert_eq!((next.state, next.port), (State::Running, killed.port));
    assert_ne!(next.pid, killed.pid);
    fixture.control_plane.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn after_a_restore_the_compute_follows_its_branch_on_the_same_port() -> anyhow::Result<()> {
    use std::sync::atomic::AtomicBool;
    static RESTORED: AtomicBool = AtomicBool::new(false);
    let branch = || async {
        let timeline = if RESTORED.load(Ordering::SeqCst) { SECOND } else { FIRST };
        Json(json!({ "name": "main", "tenant_id": TENANT, "timeline_id": timeline }))
    };
    let router = Router::new()
        .route("/v1/tenants/acme", get(|| async { Json(json!({ "id": TENANT, "name": "acme" })) }))
        .route("/v1/tenants/acme/branches/main", get(branch));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let pageserver = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let fixture = Fixture::with_pageserver(GOOD, pageserver).await?;
    let url = format!("{}/computes/acme/main/follow", fixture.url);

    let none: Option<Compute> = fixture.http.post(&url).send().await?.json().await?;
    assert!(none.is_none(), "a compute appeared that nobody asked for");
    let before = fixture.started().await?;
    let same: Compute = fixture.http.post(&url).send().await?.json().await?;
    assert_eq!(same.pid, before.pid, "a compute was restarted for nothing");
    RESTORED.store(true, Ordering::SeqCst);
    let after: Compute = fixture.http.post(&url).send().await?.json().await?;
    assert_ne!(after.timeline_id, before.timeline_id);
    assert_eq!((after.port, after.state), (before.port, State::Running));
    fixture.control_plane.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_nonsense_is_refused() -> anyhow::Result<()> {
    let fixture = Fixture::new(GOOD, FIRST).await?;
    let missing = fixture.start(json!({ "tenant": "acme", "branch": "none" })).await?;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    let strange = fixture.start(json!({ "tenant": "../etc" })).await?;
    assert_eq!(strange.status(), StatusCode::BAD_REQUEST);
    let unknown = fixture.start(json!({ "tenant": "acme", "colour": "blue" })).await?;
    assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
    let elsewhere = fixture.start(json!({ "tenant": "acme", "region": "moon" })).await?;
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
    let body: ErrorBody = elsewhere.json().await?;
    assert!(body.message.contains("one of local"), "{}", body.message);
    let url = format!("{}/computes/acme/main", fixture.url);
    assert_eq!(fixture.http.delete(url).send().await?.status(), StatusCode::NOT_FOUND);
    let url = format!("{}/nonsense", fixture.url);
    assert_eq!(fixture.http.get(url).send().await?.status(), StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_a_sentence() -> anyhow::Result<()> {
    let fixture = Fixture::new(GOOD, FIRST).await?;
    let holder = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = holder.local_addr()?.port();
    let response = fixture.start(json!({ "tenant": "acme", "port": port })).await?;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let body: ErrorBody = response.json().await?;
    assert!(body.message.contains(&format!("port {port} is taken")), "{}", body.message);
    Ok(())
}

#[tokio::test]
async fn a_pageserver_that_is_gone_is_named() -> anyhow::Result<()> {
    let nobody = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let fixture = Fixture::with_pageserver(GOOD, nobody).await?;
    let response = fixture.start(json!({ "tenant": "acme" })).await?;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: ErrorBody = response.json().await?;
    assert!(body.message.contains(&nobody.to_string()), "{}", body.message);
    Ok(())
}

#[tokio::test]
async fn metrics_are_text_for_prometheus_and_count_the_computes_that_run() -> anyhow::Result<()> {
    let fixture = Fixture::new(GOOD, FIRST).await?;
    fixture.started().await?;
    let url = fixture.url.replace("/v1", "/metrics");
    let text = fixture.http.get(url).send().await?.error_for_status()?.text().await?;
    assert!(text.contains("\noffshoot_control_plane_computes 1\n"), "{text}");
    assert!(text.contains("# TYPE offshoot_control_plane_start_seconds histogram"), "{text}");
    fixture.control_plane.shutdown().await;
    Ok(())
}
