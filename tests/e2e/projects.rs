//! The command line for projects and all that belongs to them, against a running `offshoot up`: each
//! command for people and for programs, and what it says where it cannot do what it was asked to.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, ensure};
use reqwest::Client;
use serde_json::{Value, json};

use crate::harness::{OFFSHOOT, Process, folder, free_port, turn, up_arguments};

/// `offshoot up` with a proxy, and how its API is reached.
pub struct Up {
    url: String,
    key_file: PathBuf,
    process: Process,
    folder: tempfile::TempDir,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// How a command ended, and what it said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Up {
    async fn start() -> anyhow::Result<Up> {
        Up::start_with(&[]).await
    }

    /// One with these options besides.
    pub async fn start_with(more: &[&str]) -> anyhow::Result<Up> {
        let turn = turn().await;
        let folder = folder()?;
        let mut arguments = up_arguments(&folder.path().join("data"));
        arguments.extend(["--proxy".to_owned(), format!("127.0.0.1:{}", free_port())]);
        arguments.extend(more.iter().map(|option| (*option).to_owned()));
        let mut process = Process::spawn(&arguments, &folder.path().join("up.log"))?;
        let ready: Value = serde_json::from_str(&process.wait_for_line("\"ready\"")?)?;
        let url = format!("http://{}", ready["control_plane"].as_str().context("no address")?);
        let key_file = ready["api_key_file"].as_str().context("no key")?.into();
        Ok(Up { url, key_file, process, folder, _turn: turn })
    }

    /// Its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where its control plane listens.
    pub fn control_plane(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// How a command ended, whatever it said.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let mut command = Command::new(OFFSHOOT);
        command.args(["--api-url", &self.url, "--api-key-file"]).arg(&self.key_file);
        command.arg("--token-file").arg(self.data().join("auth/operator-token"));
        outcome(command.args(arguments))
    }

    /// What a command that must succeed prints for people.
    pub fn table(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let Said { code, out, err } = self.run(arguments)?;
        ensure!(code == 0, "{arguments:?} ended with {code}: {out}{err}");
        // Nobody looks: nothing is said of progress.
        ensure!(err.is_empty(), "{arguments:?} said {err}");
        Ok(out)
    }

    /// What it prints for programs.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let out = self.table(&[&["--json"], arguments].concat())?;
        serde_json::from_str(&out).with_context(|| format!("{arguments:?} printed {out}"))
    }

    /// Stops it, which must go well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let status = self.process.stop()?;
        ensure!(status.success(), "up ended with {status}:\n{}", self.process.log());
        Ok(())
    }

    /// The management API's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The API key.
    pub fn key(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.key_file)?.trim().to_owned())
    }

    /// What a command that must fail says, and its exit code.
    pub fn refused(&self, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
        let Said { code, out, err } = self.run(arguments)?;
        ensure!(code != 0, "{arguments:?} was not refused: {out}");
        ensure!(out.is_empty(), "{arguments:?} failed, but printed {out}");
        Ok((code, err))
    }
}

/// How a command ended.
pub fn outcome(command: &mut Command) -> anyhow::Result<Said> {
    for variable in ["OFFSHOOT_API_URL", "OFFSHOOT_API_KEY", "OFFSHOOT_API_KEY_FILE"] {
        command.env_remove(variable);
    }
    let Output { status, stdout, stderr } = command.output()?;
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Said { code: status.code().unwrap_or(-1), out, err })
}

/// The rows of a table that have this word as a cell.
pub fn rows<'t>(table: &'t str, cell: &str) -> Vec<&'t str> {
    table.lines().filter(|row| row.split_whitespace().any(|word| word == cell)).collect()
}

/// What stands behind a title where one thing is shown.
fn field<'s>(shown: &'s str, title: &str) -> &'s str {
    shown.lines().find_map(|line| line.strip_prefix(title)?.strip_prefix("  ")).unwrap_or("").trim()
}

fn text(value: &Value, at: &str) -> String {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_and_branches_are_made_changed_put_back_and_deleted() -> anyhow::Result<()> {
    let up = Up::start().await?;
    let made = up.json(&[
        "project",
        "create",
        "acme",
        "--role",
        "owner",
        "--database",
        "orders",
        "--history",
        "2d",
        "--suspend-after",
        "never",
    ])?;
    let id = text(&made, "/project/id");
    ensure!(made["operations"][0]["status"] == "finished", "{made}");
    ensure!(text(&made, "/connection_uris/0/connection_uri").contains("owner:"), "{made}");
    let shown = up.table(&["project", "create", "shop"])?;
    ensure!(field(&shown, "connect").starts_with("postgresql://app:"), "{shown}");
    ensure!(shown.contains("next: offshoot psql shop"), "{shown}");

    let shown = up.table(&["project", "show", "acme"])?;
    for (title, value) in [("project", "acme"), ("history", "2days"), ("suspend after", "never")] {
        ensure!(field(&shown, title) == value, "{title} is not {value} in\n{shown}");
    }
    ensure!(up.json(&["project", "show", &id])?["project"]["name"] == "acme");
    let listed = up.table(&["project", "list"])?;
    ensure!(rows(&listed, "acme").len() == 1 && rows(&listed, "shop").len() == 1, "{listed}");
    let found = up.json(&["project", "list", "--search", "ACM"])?;
    ensure!(found["projects"].as_array().map(Vec::len) == Some(1), "{found}");
    let (_, said) = up.refused(&["project", "update", "acme"])?;
    ensure!(said.contains("--name, --history or --suspend-after"), "{said}");
    let changed = up.table(&["project", "update", "shop", "--name", "store", "--history", "1h"])?;
    ensure!(changed.contains("store") && changed.contains("1h"), "{changed}");

    let bounds = ["--active-time", "100h", "--logical-size", "10G"];
    let bounded = up.table(&[&["project", "set-quota", "acme"][..], &bounds].concat())?;
    let shown = up.table(&["project", "show", "acme"])?;
    for said in [&bounded, &shown] {
        let [time] = rows(said, "active_time_seconds")[..] else { anyhow::bail!("{said}") };
        ensure!(time.contains("0s") && time.contains("4days 4h"), "{time}");
        let [size] = rows(said, "logical_size_bytes")[..] else { anyhow::bail!("{said}") };
        ensure!(size.contains("10.0 GiB") && size.contains("no"), "{size}");
    }
    let lifted = up.table(&["project", "set-quota", "acme", "--active-time", "none"])?;
    ensure!(rows(&lifted, "active_time_seconds").is_empty(), "{lifted}");
    ensure!(rows(&lifted, "logical_size_bytes").len() == 1, "what is not said went: {lifted}");
    let (_, said) = up.refused(&["project", "set-quota", "acme"])?;
    ensure!(said.contains("--active-time"), "{said}");
    let used = up.json(&["project", "usage", "acme", "--by", "month"])?;
    ensure!(used["consumption"][0]["written_data_bytes"] == 0, "{used}");
    let used = up.table(&["project", "usage", "--by", "hour"])?;
    ensure!(used.contains("LOGICAL SIZE") && used.contains("0s"), "{used}");
    let (_, said) = up.refused(&["project", "usage", "acme", "--from", "yesterday"])?;
    ensure!(said.contains("is not a moment"), "{said}");

    let (code, said) = up.refused(&["project", "delete", "store"])?;
    ensure!(code == 1 && said.contains("--yes"), "{said}");
    let deleted = up.table(&["project", "delete", "store", "--yes"])?;
    ensure!(deleted.contains("offshoot project restore"), "{deleted}");
    ensure!(rows(&up.table(&["project", "list"])?, "store").is_empty());
    ensure!(rows(&up.table(&["project", "list", "--deleted"])?, "store").len() == 1);
    ensure!(up.json(&["project", "restore", "store"])?["project"]["name"] == "store");
    ensure!(up.json(&["project", "delete", "store", "--yes"])?["project"]["name"] == "store");

    let tried = up.json(&["branch", "create", "acme", "try"])?;
    ensure!(tried["endpoints"].as_array().map(Vec::len) == Some(1), "{tried}");
    let lsn = text(&tried, "/branch/parent_lsn");
    let kept = up.table(&["branch", "create", "acme", "old", "--lsn", &lsn, "--no-compute"])?;
    ensure!(kept.contains("next: offshoot endpoint create acme old"), "{kept}");
    let other = ["branch", "create", "acme", "fix_it", "--parent", "try", "--expires-in", "2d"];
    let other = up.json(&other)?;
    ensure!(other["branch"]["parent_id"] == tried["branch"]["id"], "{other}");
    ensure!(!text(&other, "/branch/expires_at").is_empty(), "{other}");

    let listed = up.table(&["branch", "list", "acme"])?;
    ensure!(listed.lines().count() == 5, "{listed}");
    ensure!(rows(&listed, "fix_it").iter().all(|row| row.contains("  try  ")), "{listed}");
    let found = up.json(&["branch", "list", "acme", "--search", "X_I"])?;
    ensure!(found["branches"].as_array().map(Vec::len) == Some(1), "{found}");
    ensure!(field(&up.table(&["branch", "show", "acme", "try"])?, "protected") == "no");
    ensure!(up.json(&["branch", "show", "acme", "try"])?["branch"]["name"] == "try");
    ensure!(up.json(&["branch", "rename", "acme", "try", "trial"])?["branch"]["name"] == "trial");
    ensure!(field(&up.table(&["branch", "set-default", "acme", "trial"])?, "default") == "yes");
    ensure!(field(&up.table(&["branch", "protect", "acme", "trial"])?, "protected") == "yes");
    let (_, said) = up.refused(&["branch", "reset", "acme", "trial"])?;
    ensure!(said.contains("protected"), "{said}");
    ensure!(up.json(&["branch", "unprotect", "acme", "trial"])?["branch"]["protected"] == false);
    let never = up.json(&["branch", "expire", "acme", "fix_it", "--never"])?;
    ensure!(never["branch"]["expires_at"].is_null(), "{never}");
    let at = ["branch", "expire", "acme", "fix_it", "--at", "2099-01-01T00:00:00Z"];
    ensure!(up.table(&at)?.contains("2099-01-01"));
    ensure!(up.table(&["branch", "expire", "acme", "fix_it", "--in", "1h"])?.contains("expires "));

    let reset = up.json(&["branch", "reset", "acme", "trial", "--keep-as", "before"])?;
    ensure!(reset["operations"][0]["status"] == "finished", "{reset}");
    // It is the parent now of what was made of the branch, and of the branch itself.
    let listed = up.table(&["branch", "list", "acme"])?;
    ensure!(rows(&listed, "before").len() == 3, "{listed}");
    let (_, said) = up.refused(&["branch", "reset", "acme", "main"])?;
    ensure!(said.contains("no parent") && said.contains("offshoot branch restore"), "{said}");
    ensure!(
        up.table(&["branch", "restore", "acme", "old", "--from", "main"])?.contains("last reset")
    );
    ensure!(
        up.json(&["branch", "restore", "acme", "main", "--lsn", &lsn])?["branch"]["name"] == "main"
    );
    let (code, said) = up.refused(&["branch", "delete", "acme", "fix_it"])?;
    ensure!(code == 1 && said.contains("--yes"), "{said}");
    let gone = up.json(&["branch", "delete", "acme", "fix_it", "--yes"])?;
    ensure!(gone["operations"][0]["action"] == "delete_timeline", "{gone}");
    ensure!(up.table(&["branch", "delete", "acme", "old", "--yes"])?.contains("is deleted"));

    let operations = up.json(&["operation", "list", "acme"])?;
    let operation = text(&operations, "/operations/0/id");
    ensure!(up.table(&["operation", "list", "acme", "--limit", "2"])?.lines().count() == 3);
    ensure!(up.table(&["operation", "show", "acme", &operation])?.contains("delete_timeline"));
    let waited = up.json(&["operation", "show", "acme", &operation, "--wait"])?;
    ensure!(waited["operation"]["status"] == "finished", "{waited}");
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_roles_and_databases_are_made_and_psql_gets_in() -> anyhow::Result<()> {
    let up = Up::start().await?;
    up.json(&["project", "create", "acme"])?;
    let sql = |branch: &str, query: &str| {
        up.table(&["psql", "acme", branch, "--", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", query])
    };
    // The first connection starts the compute.
    sql("main", "CREATE TABLE t AS SELECT generate_series(1, 100) AS n")?;
    ensure!(
        sql("main", "SELECT count(*), current_user, current_database() FROM t")?.trim()
            == "100|app|app"
    );
    // Neither the password nor where it goes stands in what others may read.
    let arguments = sql("main", "\\! tr '\\0' ' ' < /proc/$PPID/cmdline")?;
    let uri = up.table(&["connection-string", "acme"])?;
    let password = uri.split([':', '@']).nth(2).context("a password")?.to_owned();
    ensure!(password.len() > 20 && arguments.contains("psql"), "{arguments} {uri}");
    ensure!(!arguments.contains(&password), "{arguments}");
    ensure!(up.json(&["connection-string", "acme", "main"])?["uri"] == uri.trim());
    let pooled = up.table(&["connection-string", "acme", "--pooled"])?;
    ensure!(pooled.contains("-pooler"), "{pooled}");

    // What fails is logged as it was sent, but for what nobody is to know.
    let secret = "correct-horse-battery";
    let wrong = format!("CREATE ROLE x PASSWORD '{secret}' NONSENSE");
    ensure!(up.run(&["psql", "acme", "--", "-Xc", &wrong])?.code != 0);
    let logged = up.table(&["logs", "acme", "--tail", "1000"])?;
    ensure!(logged.contains("CREATE ROLE x PASSWORD *** NONSENSE"), "{logged}");
    ensure!(!logged.contains(secret), "{logged}");
    ensure!(logged.contains("ready to accept connections"), "{logged}");
    let last = up.json(&["logs", "acme", "main", "--tail", "2"])?;
    let last = last["lines"].as_array().context("lines")?.clone();
    ensure!(last.len() == 2, "{last:?}");

    let shown = up.table(&["endpoint", "show", "acme", "main"])?;
    ensure!(field(&shown, "state") == "active", "{shown}");
    let endpoint = text(&up.json(&["endpoint", "show", "acme", "main"])?, "/endpoint/id");
    let listed = up.table(&["endpoint", "list", "acme"])?;
    ensure!(rows(&listed, &endpoint).len() == 1 && rows(&listed, "active").len() == 1, "{listed}");
    ensure!(up.json(&["endpoint", "list", "acme"])?["endpoints"][0]["id"] == endpoint.as_str());
    let suspended = up.json(&["endpoint", "suspend", "acme", &endpoint])?;
    ensure!(suspended["endpoint"]["current_state"] == "idle", "{suspended}");
    ensure!(suspended["operations"][0]["status"] == "finished", "{suspended}");
    // What the one that ended said is there still.
    ensure!(
        up.table(&["logs", "acme", "--tail", "1000"])?.contains("database system is shut down")
    );
    ensure!(up.table(&["endpoint", "start", "acme", "main"])?.contains("active"));
    let update = ["endpoint", "update", "acme", "main", "--set", "work_mem=7MB", "--suspend-after"];
    let update = [&update[..], &["60", "--name", "front"]].concat();
    let updated = up.table(&update)?;
    ensure!(
        field(&updated, "suspend after") == "60 s" && updated.contains("work_mem=7MB"),
        "{updated}"
    );
    ensure!(
        up.json(&["endpoint", "restart", "acme", "front"])?["endpoint"]["current_state"]
            == "active"
    );
    ensure!(sql("main", "SHOW work_mem")?.trim() == "7MB");
    up.json(&["endpoint", "update", "acme", "main", "--disable"])?;
    let (_, said) = up.refused(&["endpoint", "start", "acme", "main"])?;
    ensure!(said.contains("disabled") && said.contains("enable it first"), "{said}");
    let enabled = up.table(&["endpoint", "update", "acme", "main", "--enable"])?;
    ensure!(field(&enabled, "disabled") == "no", "{enabled}");

    up.json(&["branch", "create", "acme", "try", "--no-compute"])?;
    let (code, said) = up.refused(&["psql", "acme", "try"])?;
    ensure!(code == 4 && said.contains("no endpoint"), "{said}");
    let (code, said) = up.refused(&["logs", "acme", "try"])?;
    ensure!(code == 4 && said.contains("offshoot endpoint create acme try"), "{said}");
    let made = up.json(&["endpoint", "create", "acme", "try", "--suspend-after", "never"])?;
    ensure!(made["endpoint"]["suspend_timeout_seconds"] == -1, "{made}");
    ensure!(sql("try", "SELECT count(*) FROM t")?.trim() == "100");
    ensure!(up.table(&["endpoint", "delete", "acme", "try"])?.contains("its branch stays"));

    let role = up.json(&["role", "create", "acme", "reader"])?;
    ensure!(text(&role, "/role/password").len() == 40, "{role}");
    ensure!(up.table(&["role", "create", "acme", "team", "--no-login"])?.contains("no_login"));
    let listed = up.table(&["role", "list", "acme"])?;
    ensure!(listed.lines().count() == 4 && rows(&listed, "reader").len() == 1, "{listed}");
    ensure!(
        up.json(&["role", "list", "acme", "--branch", "try"])?["roles"].as_array().map(Vec::len)
            == Some(1)
    );
    let revealed = up.table(&["role", "reveal-password", "acme", "reader"])?;
    ensure!(revealed.trim() == text(&role, "/role/password"), "{revealed}");
    let reset = up.table(&["role", "reset-password", "acme", "reader"])?;
    let now = up.json(&["role", "reveal-password", "acme", "reader"])?;
    ensure!(
        reset.contains(&text(&now, "/password")) && now["password"] != role["role"]["password"]
    );

    let (_, said) = up.refused(&["database", "create", "acme", "orders"])?;
    ensure!(said.contains("app, reader, team") && said.contains("--owner"), "{said}");
    let made = up.json(&["database", "create", "acme", "orders", "--owner", "reader"])?;
    ensure!(made["database"]["owner_name"] == "reader", "{made}");
    let (_, said) = up.refused(&["connection-string", "acme"])?;
    ensure!(said.contains("app, orders") && said.contains("--database"), "{said}");
    let there = ["psql", "acme", "--database", "orders", "--", "-XqAtc", "SELECT current_user"];
    ensure!(up.table(&there)?.trim() == "reader");
    let update = ["database", "update", "acme", "orders", "--name", "sales"];
    ensure!(up.table(&update)?.contains("sales"));
    ensure!(
        up.json(&["database", "update", "acme", "sales", "--owner", "app"])?["database"]["owner_name"]
            == "app"
    );
    let listed = up.table(&["database", "list", "acme"])?;
    ensure!(rows(&listed, "sales").len() == 1, "{listed}");
    let (_, said) = up.refused(&["database", "delete", "acme", "sales"])?;
    ensure!(said.contains("--yes"), "{said}");
    ensure!(up.table(&["database", "delete", "acme", "sales", "--yes"])?.contains("is deleted"));
    ensure!(
        up.json(&["database", "list", "acme"])?["databases"].as_array().map(Vec::len) == Some(1)
    );
    ensure!(up.json(&["role", "delete", "acme", "team"])?["role"]["name"] == "team");
    ensure!(up.table(&["role", "delete", "acme", "reader"])?.contains("is deleted"));
    up.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_with_its_name_its_reason_and_the_mend() -> anyhow::Result<()> {
    let mut up = Up::start().await?;
    let key = fs::read_to_string(&up.key_file)?.trim().to_owned();
    let key_of = |file: &str| -> anyhow::Result<String> {
        let path = up.folder.path().join(file);
        Ok(path.to_str().context("a path")?.to_owned())
    };

    // Names.
    up.json(&["project", "create", "acme"])?;
    for (wrong, named, mend) in [
        (&["project", "show", "acne"][..], "no project \"acne\"", "offshoot project list"),
        (&["project", "restore", "acme"], "no deleted project \"acme\"", "--deleted"),
        (&["branch", "show", "acme", "tri"], "no branch \"tri\"", "offshoot branch list acme"),
        (&["endpoint", "start", "acme", "tri"], "\"tri\"", "offshoot endpoint list acme"),
        (&["logs", "acme", "tri"], "\"tri\"", "offshoot endpoint list acme"),
        (&["role", "delete", "acme", "nobody"], "nobody", ""),
        (&["database", "delete", "acme", "none", "--yes"], "none", ""),
        (&["psql", "acme", "--database", "none"], "no database \"none\"", "database create"),
        (&["operation", "show", "acme", "none"], "no operation \"none\"", ""),
    ] {
        let (code, said) = up.refused(wrong)?;
        ensure!(code == 4, "{wrong:?} ended with {code}: {said}");
        ensure!(said.contains(named) && said.contains(mend), "{wrong:?}: {said}");
    }
    let (code, said) = up.refused(&["branch", "create", "acme", "main"])?;
    ensure!(code == 5 && said.contains("\"main\" already"), "{said}");
    up.json(&["project", "create", "acme"])?;
    let (code, said) = up.refused(&["branch", "list", "acme"])?;
    ensure!(code == 5 && said.contains("2 projects have the name \"acme\""), "{said}");
    let (code, said) = up.refused(&["project", "create", "x", "--pg-version", "13"])?;
    ensure!(code == 1 && said.contains("13") && said.contains("15"), "{said}");
    // Programs hear it as JSON, too.
    let Said { code, out, .. } = up.run(&["--json", "project", "show", "acne"])?;
    let failure: Value = serde_json::from_str(&out)?;
    ensure!(code == 4 && text(&failure, "/error").contains("acne"), "{failure}");

    // Keys.
    let mut wrong = Command::new(OFFSHOOT);
    wrong.args(["--api-url", &up.url, "--api-key", "offshoot_wrong", "project", "list"]);
    let Said { code, err, .. } = outcome(&mut wrong)?;
    ensure!(code == 7 && err.contains("not known") && err.contains("OFFSHOOT_API_KEY"), "{err}");
    ensure!(!err.contains("offshoot_wrong"), "the key was said: {err}");
    let mut none = Command::new(OFFSHOOT);
    none.args(["--api-url", &up.url, "--api-key-file", &key_of("none")?, "project", "list"]);
    let Said { code, err, .. } = outcome(&mut none)?;
    ensure!(code == 7 && err.contains("--api-key-file") && err.contains("/none"), "{err}");
    let empty = key_of("empty")?;
    fs::write(&empty, "\n")?;
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o600))?;
    let mut none = Command::new(OFFSHOOT);
    none.args(["--api-url", &up.url, "--api-key-file", &empty, "project", "list"]);
    let Said { code, err, .. } = outcome(&mut none)?;
    ensure!(code == 7 && err.contains("is empty"), "{err}");
    // By the environment; and the address of the control plane is the API's, too.
    let mut right = Command::new(OFFSHOOT);
    right.args(["--json", "project", "list"]).env("OFFSHOOT_CONTROL_PLANE", &up.url[7..]);
    let output = right.env("OFFSHOOT_API_KEY", &key).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // A list that comes in pages is listed whole.
    let http = Client::new();
    let (url, body) = (format!("{}/api/v2/projects", up.url), json!({ "project": {} }));
    for _ in 0..105 {
        let made = http.post(&url).bearer_auth(&key).json(&body).send().await?;
        ensure!(made.status().is_success(), "{}", made.text().await?);
    }
    let all = up.json(&["project", "list"])?;
    ensure!(all["projects"].as_array().map(Vec::len) == Some(107), "{all}");

    // Nobody there, and somebody else.
    ensure!(up.process.stop()?.success());
    let (code, said) = up.refused(&["project", "list"])?;
    ensure!(code == 6 && said.contains(&up.url) && said.contains("offshoot up"), "{said}");
    Ok(())
}
