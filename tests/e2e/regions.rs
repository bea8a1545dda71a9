//! Two regions behind one control plane, each with processes, an object store and a key of its own:
//! what is where, and what is left of one when the other is gone.

mod computes;
mod storage;

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};

use anyhow::{Context, ensure};
use control_plane::Compute;
use nix::sys::signal::Signal;
use protocol::{TenantId, TenantTimeline, token::Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{
        Database, Management, OFFSHOOT, PATIENCE, Process, eventually, folder, free_port,
        safekeeper_status, turn,
    },
    projects::{Said, outcome},
};
use computes::{peers, processes, signal};
use storage::Storage;

/// Two regions; `near` is the default one.
struct Two {
    // Dropped first: computes end with it, and want their storage until then.
    control_plane: Option<Process>,
    http: SocketAddr,
    api: Management,
    near: Storage,
    far: Storage,
    folder: tempfile::TempDir,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// Where the control plane leaves its first API key.
const API_KEY: &str = "computes/catalog/api-key";

/// A project and its endpoint.
#[derive(Clone)]
struct Project {
    id: String,
    endpoint: String,
}

impl Two {
    async fn start() -> anyhow::Result<Two> {
        let turn = turn().await;
        let folder = folder()?;
        let near = Storage::start("near", folder.path()).await?;
        let far = Storage::start("far", folder.path()).await?;
        let regions = format!("default = \"near\"\n\n{}{}", near.described(), far.described());
        fs::write(folder.path().join("regions.toml"), regions)?;
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let control_plane = Some(control_plane(http, folder.path())?);
        let api = Management::new(http, &folder.path().join(API_KEY))?;
        Ok(Two { control_plane, http, api, near, far, folder, _turn: turn })
    }

    /// Ends the control plane, which must go well, and starts another one on what it left.
    fn restart_control_plane(&mut self) -> anyhow::Result<()> {
        let mut process = self.control_plane.take().context("there is a control plane")?;
        let status = process.stop()?;
        ensure!(status.success(), "it ended with {status}:\n{}", process.log());
        self.control_plane = Some(control_plane(self.http, self.folder.path())?);
        Ok(())
    }

    async fn create(&self, region: &str) -> anyhow::Result<Project> {
        let body = json!({ "project": { "region_id": region } });
        let made = self.api.post("projects", body).await?;
        let text = |at: &str| made.pointer(at).and_then(Value::as_str).map(str::to_owned);
        Ok(Project {
            id: text("/project/id").context("an id")?,
            endpoint: text("/endpoints/0/id").context("an endpoint")?,
        })
    }

    /// How the start of a project's compute ended: it runs, or why not.
    async fn start_of(&self, project: &Project) -> anyhow::Result<Result<Compute, String>> {
        let path = format!("projects/{}/endpoints/{}/start", project.id, project.endpoint);
        let asked = self.api.post(&path, json!({})).await?;
        let id = asked["operations"][0]["id"].as_str().context("an operation")?.to_owned();
        let path = format!("projects/{}/operations/{id}", project.id);
        let ended = eventually("a start ends", PATIENCE, async || {
            let shown = self.api.get(&path).await?["operation"].clone();
            ensure!(shown["status"] != "running", "{shown}");
            Ok(shown)
        });
        let ended = ended.await?;
        if ended["status"] == "failed" {
            return Ok(Err(ended["error"].as_str().unwrap_or_default().to_owned()));
        }
        self.compute(project).await.map(Ok)
    }

    async fn compute(&self, project: &Project) -> anyhow::Result<Compute> {
        let url = format!("http://{}/v1/computes/{}/main", self.http, project.id);
        let token = self.near.token(Scope::Operator);
        let response = reqwest::Client::new().get(url).bearer_auth(token.secret()).send().await?;
        Ok(response.error_for_status()?.json().await?)
    }

    /// A project's compute, and a connection to it.
    async fn connect(&self, project: &Project) -> anyhow::Result<(Compute, Database)> {
        let compute = self.start_of(project).await?.map_err(anyhow::Error::msg)?;
        let database = Database::connect(compute.port).await?;
        Ok((compute, database))
    }

    /// How a command ended, and what it said.
    fn command(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let key = self.folder.path().join(API_KEY);
        let url = format!("http://{}", self.http);
        let mut command = std::process::Command::new(OFFSHOOT);
        command.args(["--api-url", &url, "--api-key-file"]).arg(key).args(arguments);
        outcome(&mut command)
    }

    async fn listed(&self) -> anyhow::Result<BTreeSet<String>> {
        let all = self.api.get("projects").await?;
        let all = all["projects"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().filter_map(|it| it["id"].as_str()).map(str::to_owned).collect())
    }
}

fn control_plane(http: SocketAddr, folder: &Path) -> anyhow::Result<Process> {
    let path = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        "control-plane",
        "--folder",
        &path("computes"),
        "--http",
        &http.to_string(),
        "--regions",
        &path("regions.toml"),
    ];
    let log = folder.join("control-plane.log");
    let mut process = Process::spawn(&arguments.map(str::to_owned), &log)?;
    process.wait_for_line(" on ")?;
    Ok(process)
}

const FILL: &str = "CREATE TABLE kept AS SELECT n FROM generate_series(1, 10000) n";
const SUM: &str = "SELECT sum(n)::bigint FROM kept";
const SUM_OF_ALL: i64 = 50_005_000;

/// Whether a file below this folder has the tenant's id in it, as bytes in either order.
fn mentions(folder: &Path, tenant: TenantId) -> anyhow::Result<bool> {
    let text = tenant.to_string();
    let number = u128::from_str_radix(&text, 16)?;
    let needles = [number.to_be_bytes(), number.to_le_bytes()];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => mentions(&path, tenant)?,
            false => {
                let content = fs::read(&path)?;
                let has = |needle: &[u8]| content.windows(needle.len()).any(|part| part == needle);
                needles.iter().any(|needle| has(needle)) || path.to_string_lossy().contains(&text)
            }
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projects_bytes_wal_and_computes_are_in_its_region_alone() -> anyhow::Result<()> {
    let mut two = Two::start().await?;
    let before = [two.near.tenants()?, two.far.tenants()?];
    let (here, there) = (two.create("near").await?, two.create("far").await?);
    let (near, near_database) = two.connect(&here).await?;
    let (far, far_database) = two.connect(&there).await?;
    for database in [&near_database, &far_database] {
        database.run(FILL).await?;
    }
    // Of both, layers too.
    let branch = json!({ "branch": { "name": "try" } });
    for project in [&here, &there] {
        two.api.post(&format!("projects/{}/branches", project.id), branch.clone()).await?;
    }
    let sides = [(&two.near, &near, &far, &before[0]), (&two.far, &far, &near, &before[1])];
    for (storage, own, other, before) in sides {
        let tenants: BTreeSet<String> = storage.tenants()?.difference(before).cloned().collect();
        assert_eq!(tenants, [own.tenant_id.to_string()].into(), "{}", storage.id);
        for number in 1..=3 {
            let folder = storage.folder.join(format!("safekeeper-{number}"));
            assert!(!mentions(&folder, other.tenant_id)?, "{} has the other's WAL", storage.id);
        }
        let journals = (1..=3).map(|n| storage.folder.join(format!("safekeeper-{n}")));
        let with_wal = journals.map(|folder| mentions(&folder, own.tenant_id));
        let with_wal = with_wal.collect::<anyhow::Result<Vec<_>>>()?;
        assert!(with_wal.iter().filter(|has| **has).count() >= 2, "{}: {with_wal:?}", storage.id);
        let talks_to = peers(own)?;
        assert!(!talks_to.is_empty(), "the compute of {} talks to nobody", storage.id);
        let strangers: Vec<_> = talks_to.difference(&storage.servers()).copied().collect();
        assert_eq!(strangers, [], "the compute of {} talks to others", storage.id);
    }
    // What one region's key has signed is nothing to the other, be it for its own tenant.
    let timeline = TenantTimeline { tenant: near.tenant_id, timeline: near.timeline_id };
    let asks = async |by: &Storage| {
        let token = by.token(Scope::Tenant(near.tenant_id));
        safekeeper_status(two.near.safekeepers[0], timeline, Some(token)).await
    };
    assert!(asks(&two.near).await.is_ok());
    assert!(asks(&two.far).await.is_err(), "a token of another region's key was taken");
    drop((near_database, far_database));

    // Another control plane finds both where they were.
    two.restart_control_plane()?;
    for (project, region) in [(&here, "near"), (&there, "far")] {
        let shown = two.api.get(&format!("projects/{}", project.id)).await?;
        assert_eq!(shown["project"]["region_id"], region);
        let (compute, database) = two.connect(project).await?;
        assert_eq!(compute.region, region);
        assert_eq!(database.one::<i64>(SUM).await?, SUM_OF_ALL);
    }
    check_command_line(&two)
}

fn check_command_line(two: &Two) -> anyhow::Result<()> {
    let table = two.command(&["region", "list"])?;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = table.out.lines().map(words).collect();
    assert!(rows.contains(&words("near Region near yes yes")), "{}", table.out);
    assert!(rows.contains(&words("far Region far no yes")), "{}", table.out);
    let listed: Value = serde_json::from_str(&two.command(&["--json", "region", "list"])?.out)?;
    assert_eq!(listed["regions"][1]["region_id"], "far");
    let made = two.command(&["--json", "project", "create", "said", "--region", "far"])?;
    let made: Value = serde_json::from_str(&made.out).with_context(|| made.err.clone())?;
    assert_eq!(made["project"]["region_id"], "far");
    let refused = two.command(&["project", "create", "lost", "--region", "moon"])?;
    ensure!(refused.code != 0 && refused.err.contains("one of near, far"), "{}", refused.err);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_hangs_or_is_gone_leaves_the_other_alone_and_comes_back_whole()
-> anyhow::Result<()> {
    let mut two = Two::start().await?;
    let here = two.create("near").await?;
    let (runs, sleeps) = (two.create("far").await?, two.create("far").await?);
    let (_, near_database) = two.connect(&here).await?;
    near_database.run(FILL).await?;
    let (compute, database) = two.connect(&runs).await?;
    database.run(FILL).await?;
    drop(database);

    let frozen = processes(&compute)?;
    two.far.signal(Signal::SIGSTOP)?;
    signal(&frozen, Signal::SIGSTOP)?;
    check_near_alone(&two, &here, &near_database, &[&runs, &sleeps]).await?;

    two.far.kill();
    signal(&frozen, Signal::SIGKILL)?;
    check_near_alone(&two, &here, &near_database, &[&runs, &sleeps]).await?;

    two.far.run()?;
    eventually("the region is seen to answer", PATIENCE, async || {
        ensure!(two.api.get("regions").await?["regions"][1]["available"] == true);
        Ok(())
    })
    .await?;
    let (_, database) = two.connect(&runs).await?;
    assert_eq!(database.one::<i64>(SUM).await?, SUM_OF_ALL);
    database.run("INSERT INTO kept VALUES (0)").await?;
    let (_, database) = two.connect(&sleeps).await?;
    assert_eq!(database.one::<i32>("SELECT 1").await?, 1);
    // What was asked for while it was gone is there.
    for id in two.listed().await? {
        let shown = two.api.get(&format!("projects/{id}/operations")).await?;
        let all = shown["operations"].as_array().cloned().unwrap_or_default();
        let made = all.iter().filter(|it| it["action"] == "create_timeline");
        for operation in made {
            let path =
                format!("projects/{id}/operations/{}", operation["id"].as_str().unwrap_or(""));
            eventually("a tenant is made", PATIENCE, async || {
                let shown = two.api.get(&path).await?;
                ensure!(shown["operation"]["status"] == "finished", "{shown}");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

/// While `far` is gone: `near` does all that it did, and `far`'s projects are known, and refused with
/// its name.
async fn check_near_alone(
    two: &Two,
    here: &Project,
    database: &Database,
    gone: &[&Project],
) -> anyhow::Result<()> {
    let new = two.create("near").await?;
    let (_, new_database) = two.connect(&new).await?;
    new_database.run(FILL).await?;
    assert_eq!(new_database.one::<i64>(SUM).await?, SUM_OF_ALL);
    database.run("INSERT INTO kept VALUES (0)").await?;
    two.api.post(&format!("projects/{}/branches", here.id), json!({})).await?;
    let path = format!("projects/{}/endpoints/{}/suspend", new.id, new.endpoint);
    two.api.post(&path, json!({})).await?;
    two.api.get("templates").await?;

    let listed = two.listed().await?;
    for project in gone {
        assert!(listed.contains(&project.id));
        let shown = two.api.get(&format!("projects/{}", project.id)).await?;
        assert_eq!(shown["project"]["region_id"], "far");
        let path = format!("projects/{}/branches", project.id);
        let (status, answer) = two.api.ask(Method::POST, &path, json!({})).await?;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains("region far cannot be used now"), "{message:?}");
    }
    let asleep = gone.last().context("one sleeps")?;
    let reason = two.start_of(asleep).await?.err().context("a compute of a dead region started")?;
    assert!(reason.contains("region far cannot be used now"), "{reason:?}");
    // A new one is written down, and made when it is back.
    two.create("far").await?;
    Ok(())
}
